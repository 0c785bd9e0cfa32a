//! Arguments of the commands that make a process.

use std::path::PathBuf;

use clap::Args;

/// How a container is made.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Making {
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Move the root over the host's instead of pivot_root, for a host that runs from an initramfs
    #[arg(long)]
    pub no_pivot: bool,
    #[command(flatten)]
    pub plumbing: Plumbing,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Id of the container
    pub id: String,
}

/// How the caller stays in touch with a process.
#[derive(Debug, Args)]
pub(crate) struct Plumbing {
    /// Unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Unix socket that gets a descriptor of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Pass on this many descriptors after the standard streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub making: Making,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub making: Making,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the state of the container after its end
    #[arg(long)]
    pub keep: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct ExecArgs {
    /// File with the process, as config.json has it
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    pub detach: bool,
    /// Also in a paused container; it waits for the resume
    #[arg(long)]
    pub ignore_paused: bool,
    #[command(flatten)]
    pub plumbing: Plumbing,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Run it in a cgroup below the container's (not supported)
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Id of the container
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Options that differ from the process of the bundle.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Overrides {
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Its user and group, as numbers
    #[arg(short, long, value_name = "UID[:GID]", allow_hyphen_values = true)]
    pub user: Option<String>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Add to its environment
    #[arg(short, long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    pub env: Vec<String>,
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID", allow_hyphen_values = true)]
    pub additional_gids: Vec<String>,
    /// Add a capability
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// No execve may grant it privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
}
