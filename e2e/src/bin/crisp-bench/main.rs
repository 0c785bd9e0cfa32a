//! Measures one CRI endpoint: the life of pods one after another, and the memory of idle ones.
//!
//! The client speaks gRPC itself, since a `crictl` start costs more than what is measured. Machines
//! are noisy: compare figures of one run only.

#![allow(clippy::print_stdout, reason = "a command: its table is its output")]

mod client;
mod figures;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use crisp_e2e::configs;

use client::{Life, Node};
use figures::{Figures, Memory};

/// Measures a CRI runtime: the one behind an endpoint, else a crispd of its own from beside this
/// program, in a network namespace of its own, on the built-in network.
#[derive(Debug, Parser)]
struct Options {
    /// The CRI endpoint, `unix:///PATH`.
    #[arg(long, requires = "image")]
    endpoint: Option<String>,
    /// An image with `sleep` and `true`; pulled first.
    #[arg(long, default_value_t = configs::image("busybox"))]
    image: String,
    /// Pods to run one after another.
    #[arg(long, default_value_t = 100)]
    pods: u32,
    /// Idle pods to hold while memory is read.
    #[arg(long, default_value_t = 40)]
    idle: u32,
    /// Seconds of grace for StopContainer; the container's `sleep` ignores SIGTERM.
    #[arg(long, default_value_t = 0)]
    grace: i64,
    /// Process id of the daemon, for its memory.
    #[arg(long)]
    daemon: Option<u32>,
    /// Where to write the figures as JSON, besides the table.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    // Held to the end: dropped, it stops the daemon.
    let _own = match &options.endpoint {
        Some(_) => None,
        None => Some(own_node(&mut options)),
    };
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    executor.block_on(measure(&options))
}

fn own_node(options: &mut Options) -> crisp_e2e::Node {
    let node = crisp_e2e::Node::start(crisp_e2e::Options {
        log_level: "info",
        ..Default::default()
    });
    node.pull(&["busybox"]);
    options.endpoint = Some(format!("unix://{}", node.socket().display()));
    options.daemon = Some(node.pid());
    node
}

async fn measure(options: &Options) -> Result<()> {
    let endpoint = options.endpoint.as_deref().context("no endpoint")?;
    let mut node = Node::connect(endpoint).await?;
    node.pull(&options.image).await?;
    let mut figures = Figures::default();
    for number in 0..options.pods {
        one_life(&mut node, options, number, &mut figures)
            .await
            .with_context(|| format!("pod {number}"))?;
    }
    println!("{}", figures.table(options.pods));
    let memory = idle_memory(&mut node, options).await?;
    println!("{memory}");
    if let Some(path) = &options.json {
        let body = serde_json::json!({ "figures": figures, "memory": memory });
        std::fs::File::create(path)
            .map_err(anyhow::Error::from)
            .and_then(|file| Ok(serde_json::to_writer_pretty(file, &body)?))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// One pod from nothing to nothing; every call's time goes into the figures.
async fn one_life(
    node: &mut Node,
    options: &Options,
    number: u32,
    figures: &mut Figures,
) -> Result<()> {
    let mut clock = Instant::now();
    let mut lap = |figures: &mut Figures, name: &'static str| {
        figures.add(name, clock.elapsed());
        clock = Instant::now();
    };
    let life = Life::named("bench", number);
    let pod = node.run_pod(&life).await?;
    lap(figures, "RunPodSandbox");
    let container = node.create(&life, &pod, &options.image).await?;
    lap(figures, "CreateContainer");
    node.start(&container).await?;
    lap(figures, "StartContainer");
    node.exec_true(&container).await?;
    lap(figures, "ExecSync true");
    node.exec_true(&container).await?;
    lap(figures, "ExecSync true, again");
    node.stop(&container, options.grace).await?;
    lap(figures, "StopContainer");
    node.stop_pod(&pod).await?;
    lap(figures, "StopPodSandbox");
    node.remove(&container).await?;
    node.remove_pod(&pod).await?;
    lap(figures, "remove both");
    figures.sum(
        "pod up",
        &["RunPodSandbox", "CreateContainer", "StartContainer"],
    );
    figures.sum(
        "pod down",
        &["StopContainer", "StopPodSandbox", "remove both"],
    );
    Ok(())
}

async fn idle_memory(node: &mut Node, options: &Options) -> Result<Memory> {
    let mut pods = Vec::new();
    for number in 0..options.idle {
        let life = Life::named("idle", number);
        let pod = node.run_pod(&life).await?;
        let container = node.create(&life, &pod, &options.image).await?;
        node.start(&container).await?;
        pods.push(pod);
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let memory = Memory::read(options.daemon)?;
    for pod in pods {
        node.stop_pod(&pod).await?;
        node.remove_pod(&pod).await?;
    }
    Ok(memory)
}
