//! Tests of whole specs: one request a case, and the parts of the spec that it changes.

use std::collections::BTreeMap;

use crisp_model::container::{Access, ContainerName};
use crisp_model::{
    ContainerConfig, ContainerId, Field, ImageConfig, ImageSpec, Limit, PodConfig, PodId, PodName,
    PodNamespaces, Profile, Propagation, Resources, SecurityContext,
};
use oci_spec::runtime::Capability;

use super::*;
use crate::{
    DeviceKind, Error, HostFacts, NamespacePaths, PodFiles, ResolvedDevice, ResolvedMount,
    ResolvedUser,
};

#[path = "environment_tests.rs"]
mod environment;
#[path = "mounts_tests.rs"]
mod mounts;
#[path = "selinux_tests.rs"]
mod selinux;

/// Every capability of capabilities(7).
const CAPABILITIES: &str = "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN \
    DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE \
    MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON \
    SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE \
    SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";

/// A host that has it all.
pub(crate) fn host() -> HostFacts {
    let names = CAPABILITIES.split_whitespace();
    HostFacts {
        cgroup_v2: true,
        capabilities: names.map(|name| format!("CAP_{name}")).collect(),
        apparmor: true,
        apparmor_default: Some("crisp-default".to_owned()),
        selinux: false,
        hostname: "node".to_owned(),
    }
}

/// The inputs that a case may change.
struct Case {
    pod: PodConfig,
    selinux_level: Option<crisp_model::SelinuxLevel>,
    container: ContainerConfig,
    image: ImageConfig,
    user: ResolvedUser,
    host: HostFacts,
    mounts: Vec<ResolvedMount>,
    views: Vec<crate::ImageView>,
    devices: Vec<ResolvedDevice>,
    namespaces: NamespacePaths,
    files: PodFiles,
    seccomp: Option<Vec<u8>>,
    cgroup_namespaces: CgroupNamespaces,
}

impl Case {
    fn build(&self) -> Result<Spec> {
        self.with(build)
    }

    fn with<T>(&self, look: impl FnOnce(&Input<'_>) -> T) -> T {
        look(&Input {
            pod: &self.pod,
            pod_id: &PodId::from_entropy([1; 32]),
            selinux_level: self.selinux_level,
            container: &self.container,
            container_id: &ContainerId::from_entropy([2; 32]),
            image: &self.image,
            user: &self.user,
            host: &self.host,
            mounts: &self.mounts,
            views: &self.views,
            devices: &self.devices,
            namespaces: &self.namespaces,
            files: &self.files,
            cgroup_path: "crisp/c",
            cgroup_namespaces: self.cgroup_namespaces,
            seccomp: self.seccomp.as_deref(),
        })
    }

    /// The field that is refused.
    fn refused(&self) -> Field {
        match self.build() {
            Err(Error::Invalid { field, .. }) => field,
            Ok(_) => panic!("it was taken"),
        }
    }
}

fn case() -> Case {
    Case {
        pod: pod(),
        selinux_level: None,
        container: container(),
        image: ImageConfig {
            entrypoint: vec!["/entry".to_owned()],
            cmd: vec!["default".to_owned()],
            env: vec![
                "A=image".to_owned(),
                "B=image=".to_owned(),
                "broken".to_owned(),
            ],
            ..ImageConfig::default()
        },
        user: ResolvedUser::default(),
        host: host(),
        mounts: Vec::new(),
        views: Vec::new(),
        devices: Vec::new(),
        namespaces: NamespacePaths {
            net: Some("/ns/net".into()),
            ipc: Some("/ns/ipc".into()),
            uts: Some("/ns/uts".into()),
            pid: PidNamespace::New,
            user: None,
        },
        files: PodFiles {
            hosts: Some("/pod/hosts".into()),
            resolv_conf: Some("/pod/resolv.conf".into()),
            hostname: Some("/pod/hostname".into()),
            shm: Some("/pod/shm".into()),
        },
        seccomp: None,
        cgroup_namespaces: CgroupNamespaces::Unprivileged,
    }
}

fn pod() -> PodConfig {
    PodConfig {
        name: PodName {
            name: "web".to_owned(),
            uid: "u".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        },
        hostname: "web".to_owned(),
        log_directory: None,
        dns: crisp_model::DnsConfig::default(),
        port_mappings: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        cgroup_parent: String::new(),
        namespaces: PodNamespaces::default(),
        security: crisp_model::pod::PodSecurity::default(),
        sysctls: BTreeMap::new(),
        overhead: None,
        resources: None,
        runtime_handler: String::new(),
    }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        volatile_mounts: Vec::new(),
        name: ContainerName {
            name: "c".to_owned(),
            attempt: 0,
        },
        image: ImageSpec::default(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: String::new(),
        env: Vec::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: String::new(),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        namespaces: PodNamespaces::default(),
        security: SecurityContext::default(),
        stop_signal: None,
    }
}

fn bound(destination: &str) -> ResolvedMount {
    ResolvedMount {
        root_of_procfs: false,
        destination: destination.into(),
        source: "/src".into(),
        propagation: Propagation::Private,
        access: Access::ReadWrite,
        options: Vec::new(),
        id_map: None,
    }
}

fn options_at(spec: &Spec, path: &str) -> Option<Vec<String>> {
    let mounts = spec.mounts().as_ref()?;
    let mount = mounts
        .iter()
        .find(|mount| mount.destination() == Path::new(path))?;
    mount.options().clone()
}

fn has(options: Option<Vec<String>>, option: &str) -> bool {
    options.is_some_and(|options| options.iter().any(|known| known == option))
}

#[test]
fn commands_of_request_and_image_combine() {
    let words = |text: &str| -> Vec<String> {
        let words = text.split_whitespace();
        words.map(str::to_owned).collect()
    };
    let table = [
        ("", "", "/entry default"),
        ("", "x y", "/entry x y"),
        ("/bin/a", "", "/bin/a"),
        ("/bin/a b", "c", "/bin/a b c"),
    ];
    for (command, arguments, expected) in table {
        let mut case = case();
        case.container.command = words(command);
        case.container.args = words(arguments);
        let spec = case.build().unwrap();
        let found = spec.process().as_ref().unwrap().args().clone().unwrap();
        assert_eq!(found, words(expected), "{command:?} {arguments:?}");
    }
    let mut case = case();
    case.image = ImageConfig::default();
    assert_eq!(case.refused(), Field::Command);
    case.container.command = vec!["a\0b".to_owned()];
    assert_eq!(case.refused(), Field::Command);
}

#[test]
fn working_directories_are_absolute() {
    let table = [
        ("", "", "/"),
        ("", "srv", "/srv"),
        ("/a", "/srv", "/a"),
        ("/a/../../b/.", "", "/b"),
    ];
    for (request, image, expected) in table {
        let mut case = case();
        case.container.working_dir = request.to_owned();
        case.image.working_dir = image.to_owned();
        let spec = case.build().unwrap();
        assert_eq!(spec.process().as_ref().unwrap().cwd(), Path::new(expected));
    }
}

#[test]
fn privileged_is_all_of_it_and_nothing_masked() {
    let mut case = case();
    case.container.security.privileged = true;
    case.container.security.seccomp = Profile::RuntimeDefault;
    let spec = case.build().unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.seccomp(), &None);
    assert_eq!(linux.masked_paths().as_deref(), Some(&[][..]));
    assert_eq!(linux.readonly_paths().as_deref(), Some(&[][..]));
    assert!(has(options_at(&spec, "/sys"), "rw"));
    assert!(has(options_at(&spec, "/sys/fs/cgroup"), "rw"));
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.apparmor_profile(), &None);
    let bounding = process
        .capabilities()
        .as_ref()
        .unwrap()
        .bounding()
        .clone()
        .unwrap();
    assert!(bounding.contains(&Capability::SysAdmin));
    let rules = linux
        .resources()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    assert!(rules.len() == 1 && rules[0].allow());
}

#[test]
fn a_plain_container_is_confined() {
    let mut case = case();
    case.container.security.seccomp = Profile::RuntimeDefault;
    let spec = case.build().unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_some());
    let masked = linux.masked_paths().clone().unwrap();
    assert!(masked.contains(&"/proc/kcore".to_owned()));
    assert!(has(options_at(&spec, "/sys/fs/cgroup"), "ro"));
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.apparmor_profile().as_deref(), Some("crisp-default"));
    let rules = linux
        .resources()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    assert!(!rules[0].allow(), "nothing first");
    let kinds: Vec<Kind> = linux
        .namespaces()
        .as_ref()
        .unwrap()
        .iter()
        .map(|n| n.typ())
        .collect();
    let expected = [
        Kind::Mount,
        Kind::Network,
        Kind::Ipc,
        Kind::Uts,
        Kind::Pid,
        Kind::Cgroup,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn a_cgroup_namespace_is_for_whom_the_handler_says() {
    use CgroupNamespaces::{Private, Unprivileged};
    // The handler's word, cgroup v2, privileged; whether there is one.
    let rows = [
        (Unprivileged, true, false, true),
        (Unprivileged, true, true, false),
        (Unprivileged, false, false, false),
        (Private, true, true, true),
        (Private, false, false, true),
        (Private, false, true, true),
    ];
    for (word, v2, privileged, expected) in rows {
        let mut case = case();
        case.cgroup_namespaces = word;
        case.host.cgroup_v2 = v2;
        case.container.security.privileged = privileged;
        let linux = case.build().unwrap().linux().clone().unwrap();
        let namespaces = linux.namespaces().clone().unwrap();
        let has_one = namespaces.iter().any(|one| one.typ() == Kind::Cgroup);
        assert_eq!(has_one, expected, "{word:?} {v2} {privileged}");
    }
}

#[test]
fn access_and_propagation_become_options() {
    let mut case = case();
    case.container.security.readonly_rootfs = true;
    case.mounts = vec![ResolvedMount {
        access: Access::RecursiveReadOnly,
        propagation: Propagation::HostToContainer,
        options: vec!["noexec".to_owned()],
        id_map: None,
        ..bound("/a")
    }];
    let spec = case.build().unwrap();
    assert_eq!(
        options_at(&spec, "/a").unwrap(),
        ["rbind", "rslave", "ro", "rro", "noexec"]
    );
    assert!(has(options_at(&spec, "/etc/resolv.conf"), "ro"));
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    let root = |spec: &Spec| spec.linux().as_ref().unwrap().rootfs_propagation().clone();
    assert_eq!(root(&spec), None);
    case.mounts[0].propagation = Propagation::Bidirectional;
    let shared = root(&case.build().unwrap());
    assert_eq!(shared.as_deref(), Some("rshared"), "else nothing goes out");
}

#[test]
fn what_cannot_be_met_names_its_field() {
    let refused = |change: fn(&mut Case)| {
        let mut case = case();
        change(&mut case);
        case.refused()
    };
    for path in [
        "/",
        "relative",
        "/a/../b",
        "/proc",
        "/proc/sys/kernel",
        "/.",
        "/proc/./",
    ] {
        let mut case = case();
        case.mounts = vec![bound(path)];
        assert_eq!(case.refused(), Field::MountDestination, "{path}");
    }
    let device = |permissions: &str| ResolvedDevice {
        path: "/dev/x".into(),
        source: "/dev/null".into(),
        kind: DeviceKind::Char,
        major: 1,
        minor: 3,
        mode: 0o666,
        uid: 0,
        gid: 0,
        permissions: permissions.to_owned(),
    };
    let mut bad_device = case();
    bad_device.devices = vec![device("rwx")];
    assert_eq!(bad_device.refused(), Field::DevicePermissions);
    bad_device.devices = vec![ResolvedDevice {
        path: "/".into(),
        ..device("r")
    }];
    assert_eq!(bad_device.refused(), Field::DeviceDestination);
    let oom = refused(|case| case.container.resources.oom_score_adj = Some(1001));
    assert_eq!(oom, Field::Limit(Limit::OomScoreAdj));
    let apparmor = refused(|case| {
        case.host.apparmor = false;
        case.container.security.apparmor = Profile::Localhost("mine".to_owned());
    });
    assert_eq!(apparmor, Field::Apparmor);
    let default = refused(|case| {
        case.host.apparmor_default = None;
        case.container.security.apparmor = Profile::RuntimeDefault;
    });
    assert_eq!(default, Field::Apparmor);
    let seccomp = refused(|case| {
        case.container.security.seccomp = Profile::Localhost("mine.json".to_owned());
        case.seccomp = Some(b"{".to_vec());
    });
    assert_eq!(seccomp, Field::Seccomp);
}

#[test]
fn what_is_not_met_is_told() {
    let told = |change: fn(&mut Case)| {
        let mut case = case();
        case.host.apparmor_default = None;
        change(&mut case);
        case.build().unwrap();
        case.with(crate::unmet).len()
    };
    assert_eq!(told(|_| {}), 1, "no default profile");
    assert_eq!(
        told(|case| case.host.apparmor_default = Some("d".to_owned())),
        0
    );
    assert_eq!(told(|case| case.host.apparmor = false), 0);
    assert_eq!(told(|case| case.container.security.privileged = true), 0);
    assert_eq!(
        told(|case| case.container.security.apparmor = Profile::Unconfined),
        0
    );
    assert_eq!(
        told(|case| case.pod.security.selinux.level = "s0:c1".to_owned()),
        2
    );
    assert_eq!(
        told(|case| case.container.security.selinux.kind = "spc_t".to_owned()),
        2
    );
}
