//! A pod life is one pod with one container, configured as a kubelet configures a Burstable pod.
//!
//! This file builds the requests and does what a kubelet does on the node before it sends them:
//! the pod's own cgroup with its limits, the log directory, the files that are mounted into the
//! container. It sends nothing itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;

use crate::cgroup::PodCgroup;
use crate::limits::{CPU_PERIOD, CPU_QUOTA, CPU_SHARES, MEMORY_LIMIT};

/// The paths that kubelets ask to be masked for containers with the default proc mount.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The requests of one life, and what was made on the node for it. Dropped, its cgroup goes.
#[derive(Debug)]
pub struct Life {
    /// For RunPodSandbox and CreateContainer.
    pub pod: cri::PodSandboxConfig,
    /// For CreateContainer.
    pub container: cri::ContainerConfig,
    cgroup: PodCgroup,
}

impl Life {
    /// The `number`th life of a kind that keeps its files below `dir`. Its name is unique among
    /// runs of the bench on one node.
    pub fn prepare(dir: &Path, kind: &str, number: u32, image: &str) -> Result<Self> {
        let life = Self::named(dir, kind, number, image)?;
        life.cgroup.limit()?;
        Ok(life)
    }

    /// A life without limits, in which the container runs this command.
    pub fn unlimited(dir: &Path, kind: &str, image: &str, command: Vec<String>) -> Result<Self> {
        let mut life = Self::named(dir, kind, 0, image)?;
        life.container.command = command;
        life.container.linux.get_or_insert_default().resources = None;
        life.pod.linux.get_or_insert_default().resources = None;
        Ok(life)
    }

    fn named(dir: &Path, kind: &str, number: u32, image: &str) -> Result<Self> {
        let name = format!("{kind}-{}-{number}", std::process::id());
        let cgroup = PodCgroup::make(&name)?;
        let files = Files::make(&dir.join(&name))?;
        Ok(Self {
            pod: pod(&name, &files, cgroup.path()),
            container: container(&name, &files, image),
            cgroup,
        })
    }
}

/// The files of a pod, as they lie below `/var/log/pods` and `/var/lib/kubelet/pods`.
struct Files {
    logs: PathBuf,
    hosts: PathBuf,
    termination: PathBuf,
    account: PathBuf,
}

impl Files {
    fn make(dir: &Path) -> Result<Self> {
        let files = Self {
            logs: dir.join("logs"),
            hosts: dir.join("etc-hosts"),
            termination: dir.join("termination-log"),
            account: dir.join("serviceaccount"),
        };
        let make = || {
            // A kubelet makes the directory of a container's log, not the runtime.
            fs::create_dir_all(files.logs.join("main"))?;
            fs::create_dir_all(&files.account)?;
            fs::write(files.account.join("token"), "not a secret")?;
            fs::write(&files.hosts, "127.0.0.1 localhost\n")?;
            fs::write(&files.termination, "")
        };
        make().with_context(|| format!("make the files of a pod below {}", dir.display()))?;
        Ok(files)
    }

    fn mounts(&self) -> Vec<cri::Mount> {
        let mount = |host: &Path, container| configs::mount(&host.to_string_lossy(), container);
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        vec![
            cri::Mount {
                readonly: true,
                ..mount(&self.account, account)
            },
            mount(&self.hosts, "/etc/hosts"),
            mount(&self.termination, "/dev/termination-log"),
        ]
    }
}

fn runtime_default() -> Option<cri::SecurityProfile> {
    Some(cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    })
}

fn pod(name: &str, files: &Files, cgroup: &str) -> cri::PodSandboxConfig {
    let resources = resources();
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: cgroup.to_owned(),
        security_context: Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(configs::own_namespaces()),
            seccomp: runtime_default(),
            ..Default::default()
        }),
        overhead: Some(cri::LinuxContainerResources::default()),
        resources: Some(resources),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: name.to_owned(),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: files.logs.to_string_lossy().into_owned(),
        dns_config: Some(cri::DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["bench.svc.cluster.local".to_owned()],
            options: vec!["ndots:5".to_owned()],
        }),
        labels: labels(name),
        annotations: texts(&[
            (
                "kubernetes.io/config.seen",
                "2026-01-01T00:00:00.000000000Z",
            ),
            ("kubernetes.io/config.source", "api"),
        ]),
        linux: Some(linux),
        ..Default::default()
    }
}

fn container(name: &str, files: &Files, image: &str) -> cri::ContainerConfig {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let security = cri::LinuxContainerSecurityContext {
        namespace_options: Some(configs::own_namespaces()),
        seccomp: runtime_default(),
        masked_paths: owned(&MASKED),
        readonly_paths: owned(&READ_ONLY),
        ..Default::default()
    };
    let mut labels = labels(name);
    labels.insert("io.kubernetes.container.name".into(), "main".into());
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "main".to_owned(),
            attempt: 0,
        }),
        image: Some(cri::ImageSpec {
            image: image.to_owned(),
            user_specified_image: image.to_owned(),
            ..Default::default()
        }),
        command: owned(&["sleep", "1000000"]),
        envs: environment(),
        mounts: files.mounts(),
        labels,
        annotations: texts(&[
            ("io.kubernetes.container.hash", "5b3d5f0e"),
            ("io.kubernetes.container.restartCount", "0"),
            (
                "io.kubernetes.container.terminationMessagePath",
                "/dev/termination-log",
            ),
            ("io.kubernetes.container.terminationMessagePolicy", "File"),
            ("io.kubernetes.pod.terminationGracePeriod", "30"),
        ]),
        log_path: "main/0.log".to_owned(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(security),
            resources: Some(resources()),
        }),
        ..Default::default()
    }
}

fn resources() -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: CPU_QUOTA,
        cpu_shares: CPU_SHARES,
        memory_limit_in_bytes: MEMORY_LIMIT,
        oom_score_adj: 996,
        ..Default::default()
    }
}

type Texts = std::collections::BTreeMap<String, String>;

fn texts(pairs: &[(&str, &str)]) -> Texts {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()));
    owned.collect()
}

fn labels(name: &str) -> Texts {
    texts(&[
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.namespace", "bench"),
        ("io.kubernetes.pod.uid", name),
    ])
}

/// The addresses of the API server that every container of a cluster is told.
fn environment() -> Vec<cri::KeyValue> {
    let pairs = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
        ("KUBERNETES_PORT_443_TCP_PORT", "443"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
    ];
    let pair = |(key, value): &(&str, &str)| cri::KeyValue {
        key: (*key).to_owned(),
        value: value.as_bytes().to_vec(),
    };
    pairs.iter().map(pair).collect()
}
