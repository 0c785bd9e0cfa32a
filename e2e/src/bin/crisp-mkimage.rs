//! Makes small images from Debian's busybox and pushes them to a registry on plain HTTP, or writes
//! one to an archive.

#![allow(
    clippy::print_stdout,
    reason = "a command: what it pushed is its output"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use crisp_e2e::image::archive;
use crisp_e2e::image::catalogue::{Entry, catalogue};
use crisp_e2e::image::push::Registry;

/// Makes images and pushes them as NAME:1, or writes one to a file.
#[derive(Debug, Parser)]
struct Options {
    /// The registry, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:5000")]
    registry: String,
    /// Write one image to this file instead, under the name crisp.internal/NAME:1.
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
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
        if let Some(file) = &options.archive {
            anyhow::ensure!(options.names.len() == 1, "--archive: name one image");
            return write(entry, &name, file);
        }
        registry.push(&name, "1", entry)?;
        println!("{}/{name}:1", options.registry);
    }
    Ok(())
}

fn write(entry: &Entry, name: &str, file: &Path) -> Result<()> {
    let name = format!("crisp.internal/{name}:1");
    let image = entry.images.first().context("it has no image")?;
    let written = std::fs::File::create(file);
    let written = written.and_then(|mut to| to.write_all(&archive::archive(image, &name)));
    written.with_context(|| format!("write {}", file.display()))?;
    println!("{name}");
    Ok(())
}
