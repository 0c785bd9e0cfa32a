//! Resolves the written configuration into the one that the daemon runs with: fills in defaults
//! that follow from other values, and refuses combinations that cannot work, with the alternative.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crisp_cgroups::{CgroupConfig, CgroupDriver};
use crisp_model::CgroupNamespaces;
use crisp_streaming::TlsFiles;
use crisp_telemetry::Filter;

use super::error::Error;
use super::values::Subnet;
use super::written::{
    Cgroup, HandlerKind, LogFormat, NetworkMode, NetworkTable, Runtime, Streaming, Written,
};

/// The handler that needs no other program.
const NATIVE: &str = "native";

/// The daemon's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Images, layers and records.
    pub root: PathBuf,
    /// Sockets, pins and bundles.
    pub state: PathBuf,
    /// The CRI socket.
    pub socket: PathBuf,
    /// The events that are logged.
    pub log_filter: Filter,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The collector of traces.
    pub otlp_endpoint: Option<String>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Threads that serve calls.
    pub workers: usize,
    /// Threads at most for work that blocks.
    pub blocking_threads: usize,
    /// `crisp-shim`, when its place was written.
    pub shim: Option<PathBuf>,
    /// `crisp-holder`, when its place was written.
    pub holder: Option<PathBuf>,
    /// The maker of cgroups, and their parents.
    pub cgroups: CgroupConfig,
    /// The pod network.
    pub network: Network,
    /// The server of exec, attach and port-forward.
    pub streaming: crisp_streaming::Config,
    /// Images and registries.
    pub images: Images,
    /// Where Localhost seccomp profiles are that are named by a relative path.
    pub seccomp_dir: PathBuf,
    /// Directories of specs of devices by name.
    pub cdi_dirs: Vec<PathBuf>,
    /// The handlers. The one without a name is for pods that name none.
    pub handlers: Vec<Handler>,
    /// The written configuration, for the verbose status.
    pub written: Written,
}

impl Config {
    /// The configuration for the verbose status. The directories are told once more under containerd's
    /// names: clients of both, as critest, ask by them what the disk of root file systems can do.
    #[must_use]
    pub fn shown(&self) -> serde_json::Value {
        let mut shown = serde_json::to_value(&self.written).unwrap_or_default();
        for (name, path) in [("rootDir", &self.root), ("stateDir", &self.state)] {
            shown[name] = path.to_string_lossy().into();
        }
        shown
    }
}

/// A way to start containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Its name; empty for the one of pods that name none.
    pub name: String,
    /// Which of its containers get a cgroup namespace.
    pub cgroup_namespaces: CgroupNamespaces,
    /// The program that starts them, and the name that it was written under; `None` for Crisp
    /// itself.
    pub program: Option<(String, PathBuf)>,
}

/// The pod network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Where it comes from.
    pub source: Source,
    /// Where plugins are.
    pub bin_dirs: Vec<PathBuf>,
    /// How long one plugin may take.
    pub timeout: Duration,
}

/// Where the pod network comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The compiled-in network.
    Builtin {
        /// Bridge; empty means the first that is free.
        bridge: String,
        /// Networks of the pods.
        subnets: Vec<String>,
        /// Whether pods wait for the pod CIDR.
        wait_for_pod_cidr: bool,
        /// Whether annotations choose addresses and MACs.
        allow_annotations: bool,
        /// Whether pods send from addresses that are not their own.
        allow_foreign_sources: bool,
        /// Networks that see the pods' own addresses.
        masquerade_except: Vec<String>,
        /// MTU of bridge and pods; `None` is the kernel's.
        mtu: Option<u32>,
    },
    /// Configurations in a directory.
    Conf(PathBuf),
}

/// Images and registries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// `HOST/hosts.toml` files.
    pub hosts_dir: PathBuf,
    /// Docker's `config.json`.
    pub docker_config: Option<PathBuf>,
    /// Layers fetched and unpacked at the same time.
    pub parallel_layers: usize,
    /// Percent of the disk that unpacking leaves free.
    pub keep_free_percent: u32,
    /// Images that are never collected.
    pub pinned: Vec<String>,
}

/// Resolves a written configuration.
///
/// # Errors
/// When values do not work together, or need a feature that this version does not have.
pub fn resolve(written: Written) -> Result<Config, Error> {
    check_runtimes(&written)?;
    let state = written.state.as_path().to_owned();
    Ok(Config {
        root: written.root.as_path().to_owned(),
        socket: written
            .listen
            .to_path()
            .unwrap_or_else(|| state.join("crisp.sock")),
        state,
        log_filter: written.log.level.clone(),
        log_format: written.log.format,
        otlp_endpoint: otlp_endpoint(&written)?,
        metrics: written.metrics.listen.to_option(),
        workers: count(written.daemon.workers.get()),
        blocking_threads: count(written.daemon.blocking_threads.get()),
        shim: written.daemon.shim.to_path(),
        holder: written.daemon.holder.to_path(),
        cgroups: cgroups(&written.cgroup)?,
        network: network(&written.network)?,
        streaming: streaming(&written.streaming)?,
        images: Images {
            hosts_dir: written.images.registry_config.as_path().to_owned(),
            docker_config: written.images.docker_config.to_path(),
            parallel_layers: count(written.images.parallel_layers.get()),
            keep_free_percent: written.images.keep_free_percent.get(),
            pinned: written.images.pinned.clone(),
        },
        seccomp_dir: written.security.seccomp_dir.as_path().to_owned(),
        cdi_dirs: cdi_dirs(&written),
        handlers: handlers(&written)?,
        written,
    })
}

fn cdi_dirs(written: &Written) -> Vec<PathBuf> {
    let dirs = written.cdi.spec_dirs.iter();
    dirs.map(|dir| dir.as_path().to_owned()).collect()
}

/// The handlers; the native one is there whether it is written or not.
fn handlers(written: &Written) -> Result<Vec<Handler>, Error> {
    let mut runtimes = written.runtimes.clone();
    runtimes.entry(NATIVE.to_owned()).or_default();
    let default = &written.default_runtime;
    if !runtimes.contains_key(default) {
        let known: Vec<_> = runtimes.into_keys().collect();
        let known = known.join(", ");
        let why = format!("{default:?} is none of the handlers: {known}");
        return Err(value("default_runtime", why));
    }
    let handler = |(name, runtime): (&String, &Runtime)| Handler {
        name: name.clone(),
        cgroup_namespaces: runtime.cgroup_namespaces,
        program: runtime.path.to_path().map(|path| (name.clone(), path)),
    };
    let mut handlers: Vec<_> = runtimes.iter().map(handler).collect();
    let unnamed = handlers.iter().find(|handler| handler.name == *default);
    let unnamed = unnamed.cloned().map(|handler| Handler {
        name: String::new(),
        ..handler
    });
    handlers.extend(unnamed);
    handlers.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(handlers)
}

fn value(key: &str, why: impl Into<String>) -> Error {
    Error::Value {
        key: key.to_owned(),
        why: why.into(),
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn check_runtimes(written: &Written) -> Result<(), Error> {
    for (name, runtime) in &written.runtimes {
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_word = !name.is_empty() && name.chars().all(word) && !name.starts_with('.');
        if !is_word {
            let why = "a handler's name is made of letters, digits, \"-\", \"_\" and \".\", and \
                       begins with no \".\"";
            return Err(value(&format!("runtimes.{name:?}"), why));
        }
        let at = format!("runtimes.{name}.path");
        match (runtime.kind, runtime.path.to_path()) {
            (HandlerKind::Oci, None) => {
                let why = "a handler of kind \"oci\" needs the path of its program, as \
                           \"/usr/sbin/runc\"";
                return Err(value(&at, why));
            }
            (HandlerKind::Native, Some(_)) => {
                let why = "a handler of kind \"native\" has no program: leave it out, or set kind to \
                           \"oci\"";
                return Err(value(&at, why));
            }
            _ => {}
        }
        if name == NATIVE && runtime.kind == HandlerKind::Oci {
            let why = "this handler is Crisp's own: give the other runtime a name of its own, and make \
                       it the default_runtime if that is meant";
            return Err(value(&format!("runtimes.{name}.kind"), why));
        }
    }
    Ok(())
}

fn otlp_endpoint(written: &Written) -> Result<Option<String>, Error> {
    let endpoint = written.telemetry.otlp_endpoint.to_option();
    if endpoint.is_some() && !crisp_telemetry::HAS_OTLP {
        let why =
            "this build cannot send traces: leave it empty, or build crispd with --features otlp";
        return Err(value("telemetry.otlp_endpoint", why));
    }
    Ok(endpoint)
}

fn cgroups(table: &Cgroup) -> Result<CgroupConfig, Error> {
    let parent = table.parent.to_string();
    match table.driver {
        CgroupDriver::Cgroupfs => Ok(CgroupConfig::cgroupfs(&parent)),
        CgroupDriver::Systemd => {
            CgroupConfig::systemd(&parent).map_err(|why| value("cgroup.parent", why))
        }
    }
}

fn streaming(table: &Streaming) -> Result<crisp_streaming::Config, Error> {
    let listen = table.listen.get();
    let base = table.base_url.to_option();
    if listen.ip().is_unspecified() && base.is_none() {
        let why = format!("{listen} is no address that a URL can name: set streaming.base_url too");
        return Err(value("streaming.listen", why));
    }
    let tls = match (table.certificate.to_path(), table.key.to_path()) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err(value("streaming.key", "the certificate needs its key")),
        (None, Some(_)) => {
            return Err(value(
                "streaming.certificate",
                "the key needs its certificate",
            ));
        }
    };
    Ok(crisp_streaming::Config {
        listen,
        base,
        tls,
        idle: Duration::from_secs(table.idle_timeout_seconds.get().into()),
        ..crisp_streaming::Config::default()
    })
}

/// IPv6 needs 1280, and the pods have IPv6 wherever the kernel has it.
fn mtu(written: u32) -> Result<Option<u32>, Error> {
    match written {
        0 => Ok(None),
        1..1280 => {
            let why = format!("{written} is less than IPv6 needs: 1280 to 65535, or 0");
            Err(value("network.builtin.mtu", why))
        }
        mtu => Ok(Some(mtu)),
    }
}

fn texts(networks: &[Subnet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn network(table: &NetworkTable) -> Result<Network, Error> {
    // IFNAMSIZ with its NUL is 16, and "/" and spaces are refused by the kernel (dev_valid_name).
    let bridge = &table.builtin.bridge;
    if bridge.len() > 15 || bridge.contains(['/', ':', '%']) || bridge.contains(char::is_whitespace)
    {
        let why = format!("{bridge:?} is not an interface name of at most 15 bytes");
        return Err(value("network.builtin.bridge", why));
    }
    // The last two stand for all interfaces in /proc/sys/net.
    if ["lo", "all", "default"].contains(&bridge.as_str()) {
        let why = format!("{bridge:?} can be no bridge; name one that is to be made");
        return Err(value("network.builtin.bridge", why));
    }
    Ok(Network {
        source: match table.mode {
            NetworkMode::Cni => Source::Conf(table.conf_dir.as_path().to_owned()),
            NetworkMode::Builtin => Source::Builtin {
                bridge: bridge.clone(),
                subnets: texts(&table.builtin.subnets),
                masquerade_except: texts(&table.builtin.masquerade_except),
                wait_for_pod_cidr: table.builtin.wait_for_pod_cidr,
                allow_annotations: table.builtin.allow_annotations,
                allow_foreign_sources: table.builtin.allow_foreign_sources,
                mtu: mtu(table.builtin.mtu.get())?,
            },
        },
        bin_dirs: table
            .bin_dirs
            .iter()
            .map(|dir| dir.as_path().to_owned())
            .collect(),
        timeout: Duration::from_secs(table.timeout_seconds.get().into()),
    })
}
