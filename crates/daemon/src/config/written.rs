//! The configuration as it is written, with its defaults. The printed default file is made of it.

use std::collections::BTreeMap;

use clap::ValueEnum;
use crisp_telemetry::Filter;
use serde::{Deserialize, Serialize};

use super::values::{AbsolutePath, Endpoint, MaybePath, RelativePath, Subnet, Within};

/// Everything that a file can say. A key that is not here is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    /// Images, layers and records.
    pub root: AbsolutePath,
    /// Sockets, pins and bundles.
    pub state: AbsolutePath,
    /// CRI endpoint.
    pub listen: Endpoint,
    /// Handler of pods that name none.
    pub default_runtime: String,
    /// What is logged, and how.
    pub log: Log,
    /// Size and helpers of the daemon.
    pub daemon: Daemon,
    /// Control groups.
    pub cgroup: Cgroup,
    /// The pod network.
    pub network: NetworkTable,
    /// Images and registries.
    pub images: ImagesTable,
    /// Confinement.
    pub security: Security,
    /// Handlers by name.
    pub runtimes: BTreeMap<String, Runtime>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Level, or levels by module.
    pub level: Filter,
    /// Text or JSON.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    Text,
    /// One object a line.
    Json,
}

impl From<LogFormat> for crisp_telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// `[daemon]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Daemon {
    /// Threads that serve calls.
    pub workers: Within<1, 64>,
    /// Threads at most for work that blocks.
    pub blocking_threads: Within<4, 512>,
    /// Path of `crisp-shim`.
    pub shim: MaybePath,
    /// Path of `crisp-holder`.
    pub holder: MaybePath,
}

/// `[cgroup]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cgroup {
    /// Who makes cgroups.
    pub driver: CgroupDriver,
    /// Parent of pods that name none.
    pub parent: RelativePath,
}

/// Who makes cgroups, and how their parents are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// Crisp writes to the cgroup file system; parents are paths.
    Cgroupfs,
    /// systemd makes scopes; parents are slices.
    Systemd,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkTable {
    /// Plugins of the node, or the built-in network.
    pub mode: NetworkMode,
    /// Where CNI configurations are.
    pub conf_dir: AbsolutePath,
    /// Where CNI plugins are, in order.
    pub bin_dirs: Vec<AbsolutePath>,
    /// How long one plugin may take.
    pub timeout_seconds: Within<1, 600>,
    /// The built-in network.
    pub builtin: Builtin,
}

/// Where the pod network comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The first configuration in the CNI directory; not ready until there is one.
    Cni,
    /// The compiled-in bridge network.
    Builtin,
}

/// `[network.builtin]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Builtin {
    /// Name of the bridge.
    pub bridge: String,
    /// Networks that pods get addresses from.
    pub subnets: Vec<Subnet>,
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesTable {
    /// `HOST/hosts.toml` files.
    pub registry_config: AbsolutePath,
    /// Docker's `config.json`.
    pub docker_config: MaybePath,
    /// Layers fetched and unpacked at the same time.
    pub parallel_layers: Within<1, 64>,
    /// Names of images that are never collected.
    pub pinned: Vec<String>,
}

/// `[security]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Localhost seccomp profiles.
    pub seccomp_dir: AbsolutePath,
}

/// `[runtimes.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// What stands behind the handler.
    pub kind: HandlerKind,
}

/// What starts the containers of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerKind {
    /// Crisp itself.
    Native,
    /// An OCI runtime's command.
    Oci,
}

/// A default that is a constant of this file and parses.
fn constant<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    #[expect(
        clippy::expect_used,
        reason = "constants of this file; a test makes each of them"
    )]
    text.parse().expect("a default parses")
}

impl Default for Written {
    fn default() -> Self {
        Self {
            root: constant("/var/lib/crisp"),
            state: constant("/run/crisp"),
            listen: Endpoint::default(),
            default_runtime: "native".to_owned(),
            log: Log::default(),
            daemon: Daemon::default(),
            cgroup: Cgroup::default(),
            network: NetworkTable::default(),
            images: ImagesTable::default(),
            security: Security::default(),
            runtimes: BTreeMap::from([("native".to_owned(), Runtime::default())]),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: constant("info"),
            format: LogFormat::Text,
        }
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            workers: Within::clamped(2),
            blocking_threads: Within::clamped(64),
            shim: MaybePath::default(),
            holder: MaybePath::default(),
        }
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            driver: CgroupDriver::Cgroupfs,
            parent: constant("crisp"),
        }
    }
}

impl Default for NetworkTable {
    fn default() -> Self {
        Self {
            mode: NetworkMode::Cni,
            conf_dir: constant("/etc/cni/net.d"),
            bin_dirs: vec![constant("/opt/cni/bin"), constant("/usr/lib/cni")],
            timeout_seconds: Within::clamped(60),
            builtin: Builtin::default(),
        }
    }
}

impl Default for ImagesTable {
    fn default() -> Self {
        Self {
            registry_config: constant("/etc/crisp/certs.d"),
            docker_config: MaybePath::default(),
            parallel_layers: Within::clamped(4),
            pinned: Vec::new(),
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            seccomp_dir: constant("/var/lib/kubelet/seccomp"),
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            kind: HandlerKind::Native,
        }
    }
}
