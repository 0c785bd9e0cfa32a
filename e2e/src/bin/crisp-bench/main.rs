//! The bench measures the life of pods as a kubelet makes them, one after another, and memory.
//!
//! It speaks gRPC itself, since a start of `crictl` costs more than the calls that are measured.
//! Machines are noisy: only figures of one run can be compared, so a second set of binaries is
//! measured in the same run, pod by pod in turn.

#![allow(clippy::print_stdout, reason = "a command: its table is its output")]
#![allow(
    clippy::disallowed_methods,
    reason = "what it writes is for this run only; no crash needs to be survived"
)]

mod cgroup;
mod client;
mod figures;
mod kubelet;
mod limits;
mod memory;
mod stream_client;
mod streams;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use crisp_e2e::netns::Net;
use crisp_e2e::{Node, configs};

use client::Client;
use figures::Figures;
use kubelet::Life;
use memory::Memory;
use streams::Target;

/// The daemon frees what removed pods had, and idle pods settle.
const SETTLING: Duration = Duration::from_secs(2);

/// How often everything passes through each kind of stream.
const STREAM_ROUNDS: u32 = 5;

/// Measures a CRI runtime: the one behind an endpoint, else a crispd of its own from beside this
/// program, in a network namespace of its own, on the built-in network.
#[derive(Debug, Parser)]
struct Options {
    /// The CRI endpoint, `unix:///PATH`.
    #[arg(long, requires = "image")]
    endpoint: Option<String>,
    /// An image with `sleep` and `true`, for streams with `sh`, `dd` and busybox's `nc`; pulled first.
    #[arg(long, default_value_t = configs::image("busybox"))]
    image: String,
    /// A directory with another set of binaries, measured in turn with those from here.
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    against: Option<PathBuf>,
    /// Pods to run one after another.
    #[arg(long, default_value_t = 100)]
    pods: u32,
    /// Idle pods to hold while memory is read.
    #[arg(long, default_value_t = 40)]
    idle: u32,
    /// Milliseconds of quiet before each pod: a node rarely starts pods back to back.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Milliseconds between the stop of a pod and its removal: a kubelet removes what it sees ended at
    /// one of its looks, a second apart.
    #[arg(long, default_value_t = 0)]
    rest: u64,
    /// Seconds of grace for StopContainer; the container's `sleep` ignores SIGTERM.
    #[arg(long, default_value_t = 0)]
    grace: i64,
    /// MiB to pass through each kind of stream, five times: output and input of exec, and
    /// port-forward, over SPDY and WebSocket, beside a plain pipe and socket. 0 for none.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    streams: u32,
    /// Process id of the daemon behind the endpoint, for its memory.
    #[arg(long)]
    daemon: Option<u32>,
    /// Where to write the figures as JSON, besides the table.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A contender is a runtime that is measured, with its figures.
#[derive(Debug)]
struct Contender<'a> {
    name: String,
    client: Client,
    /// Where its streaming server is reached, if not in the bench's own network.
    net: Option<&'a Net>,
    daemon: Option<u32>,
    figures: Figures,
}

fn main() -> Result<()> {
    let options = Options::parse();
    // Held to the end: dropped, they stop their daemons.
    let nodes = match options.endpoint {
        Some(_) => Vec::new(),
        None => own_nodes(&options),
    };
    let files = tempfile::Builder::new().prefix("crisp-bench-").tempdir()?;
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = executor.block_on(measure(&options, &nodes, files.path()));
    drop(nodes);
    cgroup::remove_parents();
    measured
}

fn own_nodes(options: &Options) -> Vec<Node> {
    let usual = crisp_e2e::Options {
        log_level: "info",
        ..Default::default()
    };
    let mut nodes = vec![Node::start(usual.clone())];
    if let Some(dir) = &options.against {
        let other = crisp_e2e::Options {
            binaries: Some(dir.clone()),
            ..usual
        };
        nodes.push(nodes[0].start_beside(other));
    }
    for node in &nodes {
        node.pull(&["busybox"]);
    }
    nodes
}

async fn contenders<'a>(options: &Options, nodes: &'a [Node]) -> Result<Vec<Contender<'a>>> {
    let mut found = Vec::new();
    if let Some(endpoint) = &options.endpoint {
        found.push((endpoint.clone(), endpoint.clone(), options.daemon, None));
    }
    for (node, name) in nodes.iter().zip(["here", "against"]) {
        let endpoint = format!("unix://{}", node.socket().display());
        found.push((name.to_owned(), endpoint, Some(node.pid()), Some(&node.net)));
    }
    let mut contenders = Vec::new();
    for (name, endpoint, daemon, net) in found {
        let mut client = Client::connect(&endpoint).await?;
        client.pull(&options.image).await?;
        contenders.push(Contender {
            name,
            client,
            net,
            daemon,
            figures: Figures::default(),
        });
    }
    Ok(contenders)
}

async fn measure(options: &Options, nodes: &[Node], files: &Path) -> Result<()> {
    let mut contenders = contenders(options, nodes).await?;
    for number in 0..options.pods {
        for contender in &mut contenders {
            let kind = format!("{}-life", kind(&contender.name));
            let life = Life::prepare(files, &kind, number, &options.image)?;
            tokio::time::sleep(Duration::from_millis(options.pause)).await;
            let lived = one_life(contender, &life, options).await;
            lived.with_context(|| format!("pod {number} of {}", contender.name))?;
        }
    }
    if options.streams > 0 {
        streams_of_all(&mut contenders, options, files).await?;
    }
    for contender in &mut contenders {
        contender.figures.memory = idle_memory(contender, options, files).await?;
    }
    let results: Vec<(&str, &Figures)> = contenders
        .iter()
        .map(|contender| (contender.name.as_str(), &contender.figures))
        .collect();
    println!(
        "{} pods as a kubelet makes them, each with its own cgroup, limits, RuntimeDefault and log\n",
        options.pods
    );
    print!("{}", figures::table(&results));
    match &options.json {
        Some(path) => write_json(path, &results),
        None => Ok(()),
    }
}

/// A part of pods' names that tells contenders apart.
fn kind(name: &str) -> &str {
    if name.contains('/') { "endpoint" } else { name }
}

fn write_json(path: &Path, results: &[(&str, &Figures)]) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Leads a pod from nothing to nothing; every call's time goes into the figures.
async fn one_life(contender: &mut Contender<'_>, life: &Life, options: &Options) -> Result<()> {
    let Contender {
        client, figures, ..
    } = contender;
    let clock = Cell::new(Instant::now());
    let lap = |figures: &mut Figures, name: &'static str| {
        figures.add(name, clock.get().elapsed());
        clock.set(Instant::now());
    };
    let pod = client.run_pod(life).await?;
    lap(figures, "RunPodSandbox");
    let container = client.create(life, &pod).await?;
    lap(figures, "CreateContainer");
    client.start(&container).await?;
    lap(figures, "StartContainer");
    client.exec_true(&container).await?;
    lap(figures, "ExecSync true");
    client.exec_true(&container).await?;
    lap(figures, "ExecSync true, again");
    client.stop(&container, options.grace).await?;
    lap(figures, "StopContainer");
    client.stop_pod(&pod).await?;
    lap(figures, "StopPodSandbox");
    tokio::time::sleep(Duration::from_millis(options.rest)).await;
    clock.set(Instant::now());
    client.remove(&container).await?;
    lap(figures, "RemoveContainer");
    client.remove_pod(&pod).await?;
    lap(figures, "RemovePodSandbox");
    let up = ["RunPodSandbox", "CreateContainer", "StartContainer"];
    figures.sum("pod up", &up);
    let down = [
        "StopContainer",
        "StopPodSandbox",
        "RemoveContainer",
        "RemovePodSandbox",
    ];
    figures.sum("pod down", &down);
    Ok(())
}

/// Holds a pod of each contender, whose streams are measured in turn.
async fn streams_of_all(
    contenders: &mut [Contender<'_>],
    options: &Options,
    files: &Path,
) -> Result<()> {
    let bytes = u64::from(options.streams) << 20;
    let mut held = Vec::new();
    for contender in contenders.iter_mut() {
        let kind = format!("{}-streams", kind(&contender.name));
        let life = Life::unlimited(files, &kind, &options.image, streams::command(bytes))?;
        let client = &mut contender.client;
        let pod = client.run_pod(&life).await?;
        let container = client.create(&life, &pod).await?;
        client.start(&container).await?;
        held.push((life, pod, container));
    }
    let measured = in_turn(contenders, &held, bytes).await;
    // The pods go also when a stream failed.
    for (contender, (life, pod, _)) in contenders.iter_mut().zip(held) {
        contender.client.stop_pod(&pod).await?;
        contender.client.remove_pod(&pod).await?;
        drop(life);
    }
    measured
}

async fn in_turn(
    contenders: &mut [Contender<'_>],
    held: &[(Life, String, String)],
    bytes: u64,
) -> Result<()> {
    for _ in 0..STREAM_ROUNDS {
        for (contender, (_, pod, container)) in contenders.iter_mut().zip(held) {
            let target = Target {
                pod,
                container,
                net: contender.net,
                bytes,
            };
            let measured = streams::measure(&mut contender.client, &target, &mut contender.figures);
            let name = &contender.name;
            let measured = measured.await;
            measured.with_context(|| format!("streams of {name}"))?;
        }
    }
    Ok(())
}

/// Holds idle pods for as long as it takes to read everybody's memory.
async fn idle_memory(
    contender: &mut Contender<'_>,
    options: &Options,
    files: &Path,
) -> Result<Memory> {
    tokio::time::sleep(SETTLING).await;
    let mut memory = Memory::before(contender.daemon)?;
    let kind = format!("{}-idle", kind(&contender.name));
    let client = &mut contender.client;
    let mut pods = Vec::new();
    for number in 0..options.idle {
        let life = Life::prepare(files, &kind, number, &options.image)?;
        let pod = client.run_pod(&life).await?;
        let container = client.create(&life, &pod).await?;
        client.start(&container).await?;
        pods.push((life, pod));
    }
    tokio::time::sleep(SETTLING).await;
    memory.with_pods(contender.daemon)?;
    for (life, pod) in pods {
        client.stop_pod(&pod).await?;
        client.remove_pod(&pod).await?;
        drop(life);
    }
    Ok(memory)
}
