//! Makes small images from Debian's busybox and pushes them to a registry on plain HTTP.

#![allow(
    clippy::print_stdout,
    reason = "a command: what it pushed is its output"
)]

use anyhow::{Context, Result};
use clap::Parser;
use crisp_e2e::image::catalogue::catalogue;
use crisp_e2e::image::push::Registry;

/// Makes images and pushes them as NAME:1.
#[derive(Debug, Parser)]
struct Options {
    /// The registry, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:5000")]
    registry: String,
    /// Images; all when none is named.
    names: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let catalogue = catalogue();
    let registry = Registry::at(&options.registry);
    let all = || catalogue.keys().map(|name| (*name).to_owned()).collect();
    let names: Vec<String> = match options.names.is_empty() {
        true => all(),
        false => options.names.clone(),
    };
    for name in names {
        let entry = catalogue.get(name.as_str());
        let entry = entry.with_context(|| format!("there is no image {name}"))?;
        registry.push(&name, "1", entry)?;
        println!("{}/{name}:1", options.registry);
    }
    Ok(())
}
