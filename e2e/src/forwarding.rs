//! `crictl port-forward` as a user leaves it running: connections to a port of the node's loopback
//! lead to a port of a pod.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use crate::crictl::Crictl;
use crate::node::Node;
use crate::patience::eventually;

/// Longest that a test waits for data of a pod.
const PATIENCE: Duration = Duration::from_secs(30);

/// A crictl that forwards one port; dropped, it is killed.
#[derive(Debug)]
pub struct Forwarding {
    crictl: Child,
    port: u16,
    complaints: PathBuf,
}

impl Forwarding {
    /// Starts it in the node's network, and waits until it listens.
    #[track_caller]
    #[must_use]
    pub fn start(node: &Node, transport: &str, pod: &str, port: u16) -> Self {
        Self::through(&node.crictl(), node, [transport, pod], port)
    }

    /// As [`Forwarding::start`], with a crictl that may ask another for `[TRANSPORT, POD]`.
    #[track_caller]
    #[must_use]
    pub fn through(crictl: &Crictl, node: &Node, [transport, pod]: [&str; 2], port: u16) -> Self {
        let complaints = node.path("port-forward.log");
        let wanted = format!(":{port}");
        let words = ["port-forward", "--transport", transport, pod, &wanted];
        let mut command = crictl.command(&words);
        command
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).unwrap());
        let mut crictl = node.net.run(|| command.spawn().unwrap());
        let mut said = String::new();
        let mut output = BufReader::new(crictl.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        // Forwarding from 127.0.0.1:40000 -> 80
        let local = said.split_whitespace().nth(2).unwrap_or_default();
        let local = local.rsplit(':').next().and_then(|port| port.parse().ok());
        let local = local.unwrap_or_else(|| {
            crictl.kill().ok();
            crictl.wait().ok();
            let why = fs::read_to_string(&complaints).unwrap();
            panic!("crictl forwards nothing: {said}{why}")
        });
        // It says more with each connection, and would wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self {
            crictl,
            port: local,
            complaints,
        }
    }

    /// Connects to the port of the pod.
    #[track_caller]
    #[must_use]
    pub fn connect(&self, node: &Node) -> TcpStream {
        let to = ("127.0.0.1", self.port);
        let stream = node.net.run(|| TcpStream::connect(to).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// All that it has complained of.
    #[must_use]
    pub fn complaints(&self) -> String {
        fs::read_to_string(&self.complaints).unwrap()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("crictl port-forward has ended", || {
            status = self.crictl.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Kills it, as a machine that goes away does.
    pub fn kill(&mut self) {
        self.crictl.kill().unwrap();
        self.crictl.wait().unwrap();
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.crictl.kill().ok();
        self.crictl.wait().ok();
    }
}
