//! `crisp`, the tool for people. Its first word is `cluster`: a Kubernetes cluster on this machine,
//! whose nodes are privileged containers of a Crisp of their own; or `import`: the images of a
//! containerd become those of a crispd.
//!
//! ```text
//! arguments   the command line
//! advice      commands that an error or a warning tells to type
//! failure     what an error tells: object, step, cause, what to do
//! home        the one directory that all of it is below, and who may change it now
//! lock        locks by which commands wait for each other
//! record      what a cluster is, as it is kept
//! settings    what its owner says of the crispd in its nodes
//! room        room on the disk of clusters
//! names       names of clusters and nodes
//! disk        directories and files of ours
//! network/    the bridge of nodes, ranges of addresses, servers of names
//! programs    which programs are needed, and where they are
//! versions    versions of Kubernetes that were built here
//! daemon/     the outer crispd, whose containers the nodes are
//! machine     settings of this machine that nodes change
//! cri         calls to an outer or inner crispd
//! refusal     calls that came to nothing, with their codes
//! node/       a node: its pod, its container, its files
//! ports       ports of loopback that lead to nodes
//! pki/        keys and certificates of a cluster
//! kubeconfig  how clients reach the API server
//! manifests   configurations and objects of Kubernetes
//! images/     the node's image, archives of images, the registry that a crispd pulls them from
//! kubectl     the program by which the API server is asked
//! cluster/    what commands about clusters do
//! import/     images of a containerd
//! init        the first process of a node
//! interrupt   steps that their user ends
//! progress    lines that tell how far it is
//! ```

#![forbid(unsafe_code)]
// See progress::say.
#![deny(clippy::print_stderr)]

mod advice;
mod arguments;
mod cluster;
mod cri;
mod daemon;
mod disk;
mod failure;
mod home;
mod images;
mod import;
mod init;
mod interrupt;
mod kubeconfig;
mod kubectl;
mod lock;
mod machine;
mod manifests;
mod names;
mod network;
mod node;
mod pki;
mod ports;
mod programs;
mod progress;
mod record;
mod refusal;
mod room;
mod settings;
mod versions;
mod watches;

use std::process::ExitCode;

use arguments::{Arguments, ClusterCommand, Command};
use clap::Parser as _;
use failure::{Context as _, Result};

/// The first descriptor behind standard error.
const FIRST_FOREIGN: u32 = 3;

fn main() -> ExitCode {
    crisp_sys::process::set_umask(0o022);
    if let Err(error) = crisp_sys::signals::begin() {
        progress::say(format_args!("crisp: signals may stay blocked: {error}"));
    }
    // The daemon outlives this command: a lock or a pipe of who runs it is not held by that.
    if let Err(error) = crisp_sys::process::close_on_exec_from(FIRST_FOREIGN) {
        progress::say(format_args!(
            "crisp: open files may stay with the daemon: {error}"
        ));
    }
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            progress::say(format_args!("crisp: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    // The first process of a node, and one that enters a node, have one thread.
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "start the runtime of this program".to_owned())
    };
    let arguments = match arguments.command {
        Command::Import(arguments) => return runtime()?.block_on(import::import(&arguments)),
        Command::Cluster(arguments) => arguments,
    };
    match arguments.command {
        ClusterCommand::Init { file } => init::run(&file),
        command => {
            let runtime = runtime()?;
            let then = runtime.block_on(cluster::perform(&arguments.common, command))?;
            drop(runtime);
            then.finish()
        }
    }
}
