//! The command line, as runc's callers write it. Parsing touches nothing.

mod limits;
mod processes;

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub(crate) use limits::{LimitArgs, UpdateArgs};
pub(crate) use processes::{CreateArgs, ExecArgs, Making, Overrides, Plumbing, RunArgs};

/// runc's callers read the second line to learn which specs they may write.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Runs containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "crisp-oci", version = VERSION, disable_version_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// Flags before the subcommand.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory of the containers' state [default: /run/crisp-oci]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append messages to this file instead of printing them
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the messages
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log what is done, too
    #[arg(long)]
    pub debug: bool,
    #[command(flatten)]
    pub accepted: Accepted,
}

/// How cgroups are made, and flags of runc that change nothing here.
#[derive(Debug, Args)]
pub(crate) struct Accepted {
    /// Let systemd make the cgroups, as linux.cgroupsPath names them: SLICE:PREFIX:NAME
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Accepted for compatibility
    #[arg(long, value_name = "WHEN")]
    rootless: Option<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    criu: Option<PathBuf>,
}

/// Form of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `time="…" level=error msg="…"`
    Text,
    /// One JSON object a line.
    Json,
}

/// The command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container that waits for its start
    Create(CreateArgs),
    /// Start a container that was created
    Start(Named),
    /// Print the state of a container
    State(Named),
    /// Send a signal to a container's init
    Kill(KillArgs),
    /// Remove what is left of a container
    Delete(DeleteArgs),
    /// Create and start a container
    Run(RunArgs),
    /// Run a further process in a container
    Exec(Box<ExecArgs>),
    /// List the processes of a container
    Ps(PsArgs),
    /// Stop every process of a container where it is
    Pause(Named),
    /// Let a paused container go on
    Resume(Named),
    /// Change the limits of a container
    Update(Box<UpdateArgs>),
    /// Print the resources that a container uses
    Events(EventsArgs),
    /// Print what this runtime can do
    Features,
    /// Write a config.json to begin with
    Spec(SpecArgs),
    /// List the containers
    List(ListArgs),
}

impl Command {
    /// The caller's ties to the process that the command makes, if it makes one.
    pub(crate) fn plumbing(&self) -> Option<&Plumbing> {
        match self {
            Self::Create(create) => Some(&create.making.plumbing),
            Self::Run(run) => Some(&run.making.plumbing),
            Self::Exec(exec) => Some(&exec.plumbing),
            _ => None,
        }
    }

    /// The file with the process to run, if the command has one.
    pub(crate) fn process_file(&self) -> Option<&Path> {
        match self {
            Self::Exec(exec) => exec.process.as_deref(),
            _ => None,
        }
    }
}

/// A command about one container.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Id of the container
    pub id: String,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Send the signal to every process of the container
    #[arg(short, long)]
    pub all: bool,
    /// Id of the container
    pub id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM", allow_negative_numbers = true)]
    pub signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kill it first; fine if there is none
    #[arg(short, long)]
    pub force: bool,
    /// Id of the container
    pub id: String,
}

/// Form of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
    /// Id of the container
    pub id: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Print them once, which is all that is supported
    #[arg(long)]
    pub stats: bool,
    /// Accepted for compatibility
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// Id of the container
    pub id: String,
}

#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Directory that gets it
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a caller without privileges
    #[arg(long)]
    pub rootless: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: Format,
    /// Print ids alone
    #[arg(short, long)]
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        let words = std::iter::once("crisp-oci").chain(line.split(' '));
        Arguments::try_parse_from(words).unwrap().command
    }

    #[test]
    fn the_callers_lines_are_understood() {
        // As containerd, podman's conmon and people write them.
        for line in [
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s id",
            "--rootless=false create --no-pivot --no-new-keyring --preserve-fds 2 -b /b id",
            "--root /r --log-format=json exec --process /p --console-socket /s --detach --pid-file /f id",
            "exec --pid-file /p --process /q --detach --tty id",
            "kill --all id 9",
            "delete --force id",
            "run -d --keep id",
            "update --memory-swap -1 --pids-limit -1 --cpu-quota -1 id",
            "update -r - id",
            "events --stats id",
        ] {
            parse(line);
        }
    }

    #[test]
    fn what_follows_the_id_is_the_programs() {
        let Command::Exec(exec) = parse("exec -t -e A=1 -e B=2 id ls -l --tty") else {
            panic!("another command");
        };
        assert_eq!(exec.command, ["ls", "-l", "--tty"]);
        assert_eq!(exec.overrides.env, ["A=1", "B=2"]);
        let Command::Ps(ps) = parse("ps --format json id -ef") else {
            panic!("another command");
        };
        assert_eq!(ps.options, ["-ef"]);
    }
}
