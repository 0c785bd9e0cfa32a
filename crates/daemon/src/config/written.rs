//! The configuration as it is written: the one table of its keys, their defaults, and the words
//! that explain them. The default file, `--help` and the README's table are made of it.

use std::collections::BTreeMap;

use clap::ValueEnum;
use crisp_cgroups::CgroupDriver;
use crisp_model::CgroupNamespaces;
use crisp_telemetry::Filter;
use serde::{Deserialize, Serialize};

use super::values::{
    AbsolutePath, Endpoint, MaybeBaseUrl, MaybeCollector, MaybePath, MaybeSocketAddress,
    RelativePath, SocketAddress, Subnet, Within,
};

/// The words of a table of the file.
#[derive(Debug)]
pub struct Words {
    /// About the table.
    pub about: &'static str,
    /// Each key and what it is for.
    pub keys: &'static [(&'static str, &'static str)],
}

/// Declares a table of the file: each key with its words, type and default. A key that is not
/// declared is an error in a file.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $($(#[doc = $words:literal])* $key:ident: $type:ty = $default:expr;)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $words])* pub $key: $type,)*
        }

        impl $name {
            /// The words of this table.
            pub const WORDS: Words = Words {
                about: concat!($($about),*),
                keys: &[$((stringify!($key), concat!($($words),*))),*],
            };
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default),* }
            }
        }
    };
}

table! {
    /// Configuration of crispd.
    Written {
        /// Images, layers and records: survives a reboot. On a file system that overlayfs takes as
        /// upper layer (ext4, xfs with ftype=1, btrfs).
        root: AbsolutePath = constant("/var/lib/crisp");
        /// Sockets, pins of namespaces and bundles: a tmpfs.
        state: AbsolutePath = constant("/run/crisp");
        /// CRI endpoint, unix:///PATH; empty means crisp.sock in the state directory. The socket
        /// gets mode 0600.
        listen: Endpoint = Endpoint::default();
        /// Handler of pods that name none: one of [runtimes.NAME].
        default_runtime: String = "native".to_owned();
        log: Log = Log::default();
        telemetry: Telemetry = Telemetry::default();
        metrics: Metrics = Metrics::default();
        daemon: Daemon = Daemon::default();
        cgroup: Cgroup = Cgroup::default();
        network: NetworkTable = NetworkTable::default();
        streaming: Streaming = Streaming::default();
        images: ImagesTable = ImagesTable::default();
        security: Security = Security::default();
        cdi: Cdi = Cdi::default();
        runtimes: BTreeMap<String, Runtime> =
            BTreeMap::from([("native".to_owned(), Runtime::default())]);
    }
}

table! {
    /// Logs go to standard error.
    Log {
        /// off, error, warn, info, debug or trace; by target as "info,crisp::pod=debug".
        level: Filter = constant("info");
        /// text (in colour on a terminal) or json (one flat object a line).
        format: LogFormat = LogFormat::Text;
    }
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

table! {
    /// Traces of calls.
    Telemetry {
        /// OpenTelemetry collector for traces (OTLP over gRPC), http://HOST:PORT; empty means the
        /// environment's OTEL_EXPORTER_OTLP_ENDPOINT, and without that there are none. The kubelet's
        /// traces go on in them. While the collector is gone spans are dropped, and no call waits.
        otlp_endpoint: MaybeCollector = MaybeCollector::default();
    }
}

table! {
    /// The daemon's figures about itself, for Prometheus.
    Metrics {
        /// IP:PORT where http://IP:PORT/metrics shows figures of the daemon; empty means nowhere.
        /// They are for everyone who reaches the address, without TLS and without a password: counts
        /// and times, no names and no ids.
        listen: MaybeSocketAddress = MaybeSocketAddress::default();
    }
}

table! {
    /// Size and helpers of the daemon.
    Daemon {
        /// Threads that serve calls, 1 to 64.
        workers: Within<1, 64> = Within::clamped(2);
        /// Threads at most for work that blocks (disk, kernel), 4 to 512; idle ones end.
        blocking_threads: Within<4, 512> = Within::clamped(64);
        /// crisp-shim; empty means beside crispd, then in /usr/libexec/crisp.
        shim: MaybePath = MaybePath::default();
        /// crisp-holder, the init of pods that share their PID namespace and the keeper of scopes;
        /// empty as above.
        holder: MaybePath = MaybePath::default();
    }
}

table! {
    /// Control groups, version 1, hybrid or 2: what the machine has is used.
    Cgroup {
        /// cgroupfs or systemd: who makes cgroups. cgroupfs: Crisp makes them itself. systemd (needs
        /// version 2 and the system bus): a delegated scope for each container, made over D-Bus;
        /// cgroup parents are slices. The kubelet asks which it is.
        driver: CgroupDriver = CgroupDriver::Cgroupfs;
        /// Parent of pods that name no cgroup parent, below the root of each hierarchy; with systemd
        /// the name of a slice.
        parent: RelativePath = constant("crisp");
    }
}

table! {
    /// The pod network.
    NetworkTable {
        /// cni or builtin: where the pod network comes from. cni: the first valid file of conf_dir;
        /// while there is none, the node is not ready. builtin: a bridge with addresses,
        /// masquerading and host ports, without any plugin.
        mode: NetworkMode = NetworkMode::Cni;
        /// Where CNI configurations are; watched.
        conf_dir: AbsolutePath = constant("/etc/cni/net.d");
        /// Where CNI plugins are, in order. The plugin "crisp" is built in.
        bin_dirs: Vec<AbsolutePath> = vec![constant("/opt/cni/bin"), constant("/usr/lib/cni")];
        /// A plugin that takes longer is killed and named, 1 to 600.
        timeout_seconds: Within<1, 600> = Within::clamped(60);
        builtin: Builtin = Builtin::default();
    }
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

table! {
    /// Used when mode is builtin.
    Builtin {
        /// Name of the bridge; empty means the first of crisp0, crisp1, … that is free.
        bridge: String = String::new();
        /// Pods get an address of each, as ["10.88.0.0/16", "fd00:88::/64"]; empty means the pod CIDR
        /// that the kubelet tells while no pod has an address, and until then those of the bridge.
        subnets: Vec<Subnet> = Vec::new();
        /// Whether the network is ready only once pods get addresses of the pod CIDR, as it is to be on a
        /// node of a cluster: a pod that came before would have an address that no other node has a
        /// route to. Of no effect where subnets are named.
        wait_for_pod_cidr: bool = false;
        /// Whether a pod may choose its address and MAC by the annotation
        /// v1.multus-cni.io/default-network. Any pod could then take a neighbour's.
        allow_annotations: bool = false;
        /// Whether a pod may send from addresses that are not its own, as a router or a VPN without
        /// NAT in a pod does. A pod with CAP_NET_RAW, which is the default, could then take its
        /// neighbours' traffic by forged ARP.
        allow_foreign_sources: bool = false;
        /// Networks where the pods' own addresses are seen, as ["10.244.0.0/16"], which has the pods of
        /// all nodes; packets to all others that leave the node have the node's address.
        masquerade_except: Vec<Subnet> = Vec::new();
        /// MTU of the bridge and of the pods' interfaces, 1280 to 65535; 0 means the kernel's, 1500.
        mtu: Within<0, 65535> = Within::clamped(0);
    }
}

table! {
    /// The server of exec, attach and port-forward: those calls answer with a URL there, which is good
    /// once and for a minute.
    Streaming {
        /// IP:PORT of the server of exec, attach and port-forward; port 0 takes a free one. The kubelet
        /// comes there itself for its clients, so loopback is enough.
        listen: SocketAddress = constant("127.0.0.1:0");
        /// Beginning of the URLs, as "https://10.0.0.7:10010", where clients reach the server by another
        /// address; empty means the one that it listens on.
        base_url: MaybeBaseUrl = MaybeBaseUrl::default();
        /// Certificate with its chain, in PEM; empty means no TLS. It is read anew when it changes.
        certificate: MaybePath = MaybePath::default();
        /// Its private key, in PEM.
        key: MaybePath = MaybePath::default();
        /// A session on which nothing moves ends after this time, 1 to 604800.
        idle_timeout_seconds: Within<1, 604_800> = Within::clamped(4 * 60 * 60);
    }
}

table! {
    /// Images and registries.
    ImagesTable {
        /// HOST/hosts.toml files, the layout that containerd uses: mirrors, certificates, headers.
        registry_config: AbsolutePath = constant("/etc/crisp/certs.d");
        /// Docker's config.json with credentials for registries; empty means none.
        docker_config: MaybePath = MaybePath::default();
        /// Layers fetched from one registry at the same time, and unpacked over all pulls, 1 to 64.
        parallel_layers: Within<1, 64> = Within::clamped(4);
        /// Percent of the disk, at most 1 GiB, that unpacking leaves free, 0 to 50: a layer that would
        /// take more is refused. 0 leaves nothing.
        keep_free_percent: Within<0, 50> = Within::clamped(5);
        /// Images that the kubelet must not collect, as full names.
        pinned: Vec<String> = Vec::new();
    }
}

table! {
    /// Confinement.
    Security {
        /// Localhost seccomp profiles that are named by a relative path.
        seccomp_dir: AbsolutePath = constant("/var/lib/kubelet/seccomp");
    }
}

table! {
    /// Devices by name (Container Device Interface).
    Cdi {
        /// Directories of device specs, read whenever a container names a device. Of two that
        /// describe the same device the later one wins.
        spec_dirs: Vec<AbsolutePath> = vec![constant("/etc/cdi"), constant("/var/run/cdi")];
    }
}

table! {
    /// Handlers, by the names that RuntimeClasses use.
    Runtime {
        /// native or oci: who starts the containers. native: Crisp itself. oci: another OCI runtime,
        /// as runc or crun, whose program path names; it is asked for its features at the start.
        kind: HandlerKind = HandlerKind::Native;
        /// The program of a handler of kind oci, as /usr/sbin/runc; empty for native.
        path: MaybePath = MaybePath::default();
        /// unprivileged: containers that are not privileged get a cgroup namespace, on cgroup v2.
        /// private: all containers do, on cgroup v1 too. A systemd in a privileged container then
        /// leaves the node's own cgroup mounts alone.
        cgroup_namespaces: CgroupNamespaces = CgroupNamespaces::Unprivileged;
    }
}

/// The program that starts the containers of a handler.
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
