//! The waits of `up`: each ends as soon as a node has ended, and a wait in vain tells which programs end
//! again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cri::Cri;
use crate::failure::{Failure, Result};
use crate::init;
use crate::kubectl::{self, Kubectl};
use crate::manifests::{COREDNS_READY, PROXY_HEALTH};
use crate::names::CONTROL;
use crate::node::{Node, Nodes};
use crate::progress::Progress;

/// How long the API server may take to answer.
const API: Duration = Duration::from_secs(300);
/// How long the nodes may take to be Ready, and their services to lead to pods.
const READY: Duration = Duration::from_secs(300);
/// Between two looks whether all nodes run.
const WATCH: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(250);
/// How long a program may take to tell how it is.
const ANSWER: Duration = Duration::from_secs(5);
/// Lines of a log that are shown.
const SHOWN: usize = 5;

/// Waits for a cluster.
#[derive(Debug)]
pub struct Ready<'a> {
    /// The node of the control plane.
    pub control: &'a Node,
    nodes: &'a Nodes<'a>,
    all: &'a [Node],
    kubectl: Kubectl,
}

impl<'a> Ready<'a> {
    /// Of all nodes of a cluster.
    pub fn of(nodes: &'a Nodes<'a>, all: &'a [Node]) -> Result<Self> {
        let control = all.iter().find(|node| node.name == CONTROL);
        Ok(Self {
            control: control.ok_or_else(|| Failure::new("control: it has no pod"))?,
            nodes,
            all,
            kubectl: Kubectl {
                program: nodes.programs.kubernetes.join("kubectl"),
                kubeconfig: nodes.dir.kubeconfig(),
                whose: format!("cluster {}", nodes.record.name),
            },
        })
    }

    /// The API server answers.
    pub async fn api(&self) -> Result<()> {
        let answers = |kubectl: &Kubectl| kubectl.run(&["get", "--raw", "/readyz"], b"").map(Some);
        let control = [self.control];
        let come = self.kubectl.until("the API server answers", API, answers);
        self.watched(&control, come).await.map(drop)
    }

    /// The cluster's first objects are made.
    pub async fn objects(&self, objects: &[Value]) -> Result<()> {
        let make = |kubectl: &Kubectl| kubectl.apply(objects).map(Some);
        let come = self.kubectl.until("its first objects are made", API, make);
        self.watched(&[self.control], come).await
    }

    /// Its nodes, as the API server lists them.
    pub async fn listed(&self) -> Result<Value> {
        let list = |kubectl: &Kubectl| kubectl.get(&["nodes"]).map(Some);
        let come = self.kubectl.until("its nodes are listed", API, list);
        self.watched(&[self.control], come).await
    }

    /// All nodes are Ready by a newer word than this, and pods are not refused.
    pub async fn nodes(
        &self,
        former: &BTreeMap<String, String>,
        progress: &Progress,
    ) -> Result<()> {
        let workers = self.nodes.record.workers();
        let everywhere: Vec<&Node> = self.all.iter().collect();
        let expected = workers.map(|(_, name)| name).collect();
        let come = self.told_ready("all nodes are Ready", expected, former, progress);
        self.watched(&everywhere, come).await?;
        // The controller manager makes it, in its own time; without it the API server refuses pods.
        let can_have_pods = |kubectl: &Kubectl| {
            let words = ["--namespace=default", "serviceaccounts", "default"];
            kubectl.get(&words).map(Some)
        };
        let what = "the service account of pods is made";
        let come = self.kubectl.until(what, READY, can_have_pods);
        self.watched(&everywhere, come).await.map(drop)
    }

    /// Some nodes are Ready by a newer word than this.
    async fn told_ready(
        &self,
        what: &str,
        expected: BTreeSet<String>,
        former: &BTreeMap<String, String>,
        progress: &Progress,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        let look = |kubectl: &Kubectl| {
            for name in kubectl::ready(&kubectl.get(&["nodes"])?, former) {
                if expected.contains(&name) && seen.insert(name.clone()) {
                    progress.done(&format!("{name} Ready"));
                }
            }
            Ok((seen == expected).then_some(()))
        };
        self.kubectl.until(what, READY, look).await
    }

    /// When the kubelets last told whether they are Ready; nothing where the API server does not say.
    pub fn heartbeats(&self) -> Option<BTreeMap<String, String>> {
        let listed = self.kubectl.get(&["nodes"]);
        listed.ok().map(|nodes| kubectl::heartbeats(&nodes))
    }

    /// A node that was started does its part. Its own crispd is all that can be asked of a worker without
    /// an API server.
    pub async fn started(
        &self,
        node: &Node,
        former: Option<&BTreeMap<String, String>>,
        progress: &Progress,
    ) -> Result<()> {
        if node.name == CONTROL {
            self.api().await?;
            return self.serves(node).await;
        }
        let cri = Cri::at(&self.nodes.dir.socket(&node.name), &node.name)?;
        let answers = async || cri.answers().await;
        self.asked(node, "crispd", answers).await?;
        let Some(former) = former else {
            return Ok(());
        };
        let expected = BTreeSet::from([node.name.clone()]);
        let come = self.told_ready("the node is Ready", expected, former, progress);
        self.watched(&[node], come).await?;
        self.serves(node).await
    }

    /// The addresses of services lead to pods on each node, and names are known.
    pub async fn services(&self) -> Result<()> {
        for node in self.all {
            self.serves(node).await?;
        }
        Ok(())
    }

    /// The addresses of services lead to pods on a node, or names are known by the one of the control plane.
    async fn serves(&self, node: &Node) -> Result<()> {
        let (program, port, path) = match node.name.as_str() {
            CONTROL => ("coredns", COREDNS_READY, "/ready"),
            _ => ("kube-proxy", PROXY_HEALTH, "/healthz"),
        };
        let is_well = async || is_well(node, port, path).await;
        self.asked(node, program, is_well).await
    }

    /// Asks a program of a node until it is ready.
    async fn asked(
        &self,
        node: &Node,
        program: &str,
        is_ready: impl AsyncFn() -> bool,
    ) -> Result<()> {
        let come = async {
            let deadline = Instant::now() + READY;
            while !is_ready().await {
                if Instant::now() > deadline {
                    let (name, seconds) = (&node.name, READY.as_secs());
                    let text = format!("node {name}: {program} is not ready in {seconds} s");
                    return Err(Failure::new(text));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        self.watched(&[node], come).await
    }

    /// Waits for what has to come as long as these nodes run, and tells what their logs tell where it does
    /// not come.
    async fn watched<T>(
        &self,
        watched: &[&Node],
        come: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let outcome = tokio::select! {
            outcome = come => outcome,
            failure = self.ended(watched) => return Err(failure),
        };
        outcome.map_err(|failure| {
            let told = watched.iter().filter_map(|node| self.restarts(node));
            match told.collect::<Vec<_>>() {
                told if told.is_empty() => failure,
                told => Failure::because(failure.to_string(), Failure::new(told.join("; "))),
            }
        })
    }

    /// Why a node has ended, once one has.
    async fn ended(&self, watched: &[&Node]) -> Failure {
        loop {
            tokio::time::sleep(WATCH).await;
            for node in watched {
                // A daemon that is busy is asked again.
                let Ok(containers) = self.nodes.cri.containers(&node.pod).await else {
                    continue;
                };
                if !containers.iter().any(|container| container.runs) {
                    let log = self.log(node, "node");
                    let shown = last_lines(&log);
                    return Failure::new(format!("node {}: it has ended:\n{shown}", node.name));
                }
            }
        }
    }

    /// Which program of a node ends again and again, or does not even start, with the last that was said of it.
    fn restarts(&self, node: &Node) -> Option<String> {
        let first = self.log(node, "node");
        let counts = ends(&first);
        let (program, count) = counts.iter().max_by_key(|(_, count)| **count)?;
        let own = self.log(node, program);
        let shown = last_lines(if own.is_empty() { &first } else { &own });
        let name = &node.name;
        Some(format!(
            "{program} of {name} has ended, or did not start, {count} times:\n{shown}"
        ))
    }

    fn log(&self, node: &Node, program: &str) -> String {
        let path = self.nodes.dir.node(&node.name).join("log");
        read_log(&path.join(format!("{program}.log")))
    }
}

/// A log may have bytes that are no text.
fn read_log(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// How often each program has ended, or did not start, since its node began, by the log of that one's first
/// process.
fn ends(log: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let this_life = log.rsplit(init::BEGINS).next().unwrap_or_default();
    for line in this_life.lines() {
        let ended = line.split_once(init::ENDED);
        let told = ended.or_else(|| line.split_once(init::NOT_STARTED));
        let program = told.and_then(|(before, _)| before.trim_end().rsplit(' ').next());
        if let Some(program) = program {
            *counts.entry(program.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Whether a program of a node says over HTTP that it is well.
async fn is_well(node: &Node, port: u16, path: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect((node.address, port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(1 << 16).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => says_well(&answer),
        _ => false,
    }
}

fn says_well(answer: &[u8]) -> bool {
    let mut words = answer.split(|byte| *byte == b' ');
    words
        .next()
        .is_some_and(|word| word.starts_with(b"HTTP/1."))
        && words.next() == Some(b"200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_end_again_and_again_are_counted() {
        let log = "2026-01-01T00:00:00Z stderr F kubelet ended with Code(1) and is started again\n\
                   2026-01-01T00:00:01Z stderr F etcd ended with Signal(9) and is started again\n\
                   2026-01-01T00:00:02Z stderr F kubelet ended with Code(1) and is started again\n\
                   2026-01-01T00:00:03Z stderr F something else\n\
                   2026-01-01T00:00:04Z stderr F etcd: start it: Permission denied; it is tried again\n";
        let counts = ends(log);
        assert_eq!((counts["kubelet"], counts["etcd"], counts.len()), (2, 2, 2));
        assert!(ends("").is_empty());
    }

    #[test]
    fn only_an_answer_that_says_so_is_well() {
        assert!(says_well(b"HTTP/1.0 200 OK\r\n\r\n{}"));
        for other in [
            &b"HTTP/1.1 503 Service Unavailable\r\n"[..],
            b"",
            b"200",
            b"x 200 y",
        ] {
            assert!(!says_well(other));
        }
    }

    #[test]
    fn ends_of_former_lives_are_not_counted() {
        let begins = init::BEGINS;
        let log = format!(
            "1 stderr F kubelet ended with Code(1) and is started again\n2 stderr F {begins}\n\
             3 stderr F kubelet ended with Code(1) and is started again\n"
        );
        assert_eq!(ends(&log)["kubelet"], 1);
        assert!(ends(&format!("{log}4 stderr F {begins}\n")).is_empty());
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\n7\n"), "3\n4\n5\n6\n7");
        assert_eq!(last_lines(""), "");
    }
}
