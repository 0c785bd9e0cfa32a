//! The command line of `crisp`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::names::ClusterName;
use crate::network::Ranges;
use crate::versions::Version;

/// Crisp's tool for people: Kubernetes clusters on this machine, and the way from containerd.
#[derive(Debug, Parser)]
#[command(name = "crisp", version)]
pub struct Arguments {
    /// The first word.
    #[command(subcommand)]
    pub command: Command,
}

/// The first word.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Kubernetes clusters on this machine, whose nodes are Crisp containers
    Cluster(ClusterArguments),
    /// Bring the images of a containerd that is stopped to a crispd, without any registry. Images and
    /// tags that are there already stay, and containerd's own files are only read
    Import(Import),
}

/// Whose images go where.
#[derive(Debug, Args)]
pub struct Import {
    /// The directory of containerd's that its configuration calls root
    #[arg(long, value_name = "DIR", default_value = "/var/lib/containerd")]
    pub from: PathBuf,
    /// Which of containerd's namespaces: k8s.io is that of kubelets, default that of ctr, moby Docker's
    #[arg(long, value_name = "NAME", default_value = "k8s.io")]
    pub namespace: String,
    /// The socket of the crispd that gets them
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "unix:///run/crisp/crisp.sock"
    )]
    pub socket: String,
    /// The directory where that crispd looks for HOST/hosts.toml, which its configuration calls
    /// images.registry_config. Files in it give way for the time of the import
    #[arg(long, value_name = "DIR", default_value = "/etc/crisp/certs.d")]
    pub registry_config: PathBuf,
    /// Lead tags that crispd has already where they led in containerd. Without it they stay, and are told
    #[arg(long)]
    pub move_tags: bool,
}

/// A command about clusters.
#[derive(Debug, Args)]
pub struct ClusterArguments {
    /// Flags that all of them have.
    #[command(flatten)]
    pub common: Common,
    /// Which of them.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// The name of a cluster that is given none.
pub const USUAL_NAME: &str = "crisp";
/// The directory of clusters, where none is named.
pub const USUAL_DIR: &str = "/var/lib/crisp-clusters";

/// Flags of all commands about clusters.
#[derive(Debug, Args)]
pub struct Common {
    /// Name of the cluster
    #[arg(long, global = true, default_value = USUAL_NAME)]
    pub name: ClusterName,
    /// The directory that everything is below, clusters and the daemon that runs their nodes
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = USUAL_DIR
    )]
    pub dir: PathBuf,
}

/// The commands about clusters.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster, or bring one up again that is there, also after a reboot of the machine
    Up(Up),
    /// List the clusters with their nodes
    List,
    /// Bring an image to all nodes: from an archive (`docker save`, OCI), or by its name from its registry
    Load {
        /// A file, else the name of an image
        image: String,
        /// The image's name, for an archive that tells none, or that has one image alone
        #[arg(long = "as", value_name = "NAME")]
        renamed: Option<String>,
    },
    /// Print the path of the file that `kubectl --kubeconfig` takes
    Kubeconfig,
    /// Print what the programs of a node have logged
    Logs {
        /// control, node-1, node-2 …
        node: String,
        /// One program alone, as kubelet or etcd
        program: Option<String>,
        /// Go on with what is logged from now on
        #[arg(long, short)]
        follow: bool,
    },
    /// Run a command in a node
    Exec {
        /// control, node-1, node-2 …
        node: String,
        /// The command and its arguments; a shell when there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Stop a node, as if its power were cut
    Stop {
        /// control, node-1, node-2 …
        node: String,
    },
    /// Start a node that is stopped
    Start {
        /// control, node-1, node-2 …
        node: String,
    },
    /// Remove a cluster and all that belongs to it
    Delete,
    /// The first process of a node
    #[command(hide = true)]
    Init {
        /// The node's description
        file: PathBuf,
    },
}

/// How a cluster is to be.
#[derive(Debug, Args)]
pub struct Up {
    /// Nodes for pods, beside the one with the control plane; 3 for a new cluster
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub nodes: Option<u8>,
    /// The directory with Kubernetes' programs, etcd and coredns; without it, what `hack/tools cluster` built
    #[arg(long, value_name = "DIR")]
    pub kubernetes: Option<PathBuf>,
    /// Which of the versions that `hack/tools cluster` built, as v1.37.1; without it, the latest for a new
    /// cluster, and its own for one that is there
    #[arg(long, value_name = "VERSION", conflicts_with = "kubernetes")]
    pub kubernetes_version: Option<Version>,
    /// Server of names for nodes and pods, in place of those of this machine; may be repeated. Kept for the
    /// cluster
    #[arg(long, value_name = "IP")]
    pub resolver: Vec<Ipv4Addr>,
    /// Port of 127.0.0.1 that leads to a port of node-1, as a NodePort or a hostPort; may be repeated
    #[arg(long, value_name = "PORT:NODE_PORT")]
    pub publish: Vec<Publish>,
    /// Ranges of 16 bits for nodes, pods and services, as 10.213.0.0/16,10.244.0.0/16,10.96.0.0/16. Without it,
    /// ranges that this machine does not use. All clusters of a directory share them
    #[arg(long, value_name = "NODES,PODS,SERVICES")]
    pub ranges: Option<Ranges>,
    /// Configuration for the crispd in each node, as `crispd config default` explains it; paths are the nodes',
    /// which see /usr of this machine. Kept for the cluster
    #[arg(long, value_name = "FILE")]
    pub runtime_config: Option<PathBuf>,
    /// HOST/hosts.toml files for the crispd in each node: mirrors, certificates, headers. Kept for the cluster,
    /// and replaced when it is given again
    #[arg(long, value_name = "DIR")]
    pub registry_config: Option<PathBuf>,
}

/// A port of this machine's loopback that leads to one of the first node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// On 127.0.0.1.
    pub host: u16,
    /// On the node.
    pub node: u16,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
        let ports = text.split_once(':');
        let ports = ports.and_then(|(host, node)| port(host).zip(port(node)));
        let (host, node) = ports.ok_or("two ports from 1 to 65535 with a colon, as 8080:30080")?;
        Ok(Self { host, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn published_ports_are_two() {
        let both = Publish {
            host: 80,
            node: 30080,
        };
        assert_eq!("80:30080".parse(), Ok(both));
        for wrong in ["", "80", "0:1", "1:0", "1:65536", "a:b", "1:2:3"] {
            assert!(wrong.parse::<Publish>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_commands_can_be_given_with_their_flags() {
        for line in [
            "up --ranges 10.1.0.0/16,10.2.0.0/16,10.3.0.0/16",
            "up --runtime-config f --registry-config d",
            "up --kubernetes-version 1.37.1 --resolver 192.0.2.1 --resolver 192.0.2.2",
            "up --nodes 2 --kubernetes /k --publish 80:30080 --publish 81:30081",
            "list --dir /d",
            "load a.tar --as b:1 --name x",
            "kubeconfig",
            "logs node-1 kubelet",
            "logs -f node-1",
            "exec control",
            "stop node-1",
            "start node-1",
            "delete --name x",
        ] {
            let words = ["crisp", "cluster"].into_iter().chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_version_and_a_directory_are_not_both_taken() {
        for wrong in [
            "--kubernetes /k --kubernetes-version v1.37.1",
            "--kubernetes-version latest",
            "--resolver ::1",
        ] {
            let words = ["crisp", "cluster", "up"].into_iter();
            let words = words.chain(wrong.split(' '));
            assert!(Arguments::try_parse_from(words).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_in_a_node_keeps_its_flags() {
        let words = ["crisp", "cluster", "exec", "node-1", "ls", "-l", "--name"];
        let Command::Cluster(cluster) = Arguments::parse_from(words).command else {
            panic!("another first word")
        };
        let ClusterCommand::Exec { command, .. } = cluster.command else {
            panic!("{:?}", cluster.command)
        };
        assert_eq!(command, ["ls", "-l", "--name"]);
    }
}
