//! The order of a container's mounts, and what of them may reach the host.

use super::*;

/// Where mounts are, in their order, but for those of `/dev` and `/proc`.
fn order(case: &Case) -> Vec<String> {
    let spec = case.build().unwrap();
    let mounts = spec.mounts().clone().unwrap();
    let paths = mounts
        .iter()
        .map(|mount| mount.destination().to_string_lossy().into_owned());
    paths
        .filter(|path| !path.starts_with("/dev") && !path.starts_with("/proc"))
        .collect()
}

#[test]
fn what_was_asked_for_is_not_covered_by_defaults() {
    let mut case = case();
    let files = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let expected = |first: &[&str]| {
        [first, &files[..]]
            .concat()
            .iter()
            .map(|path| (*path).to_owned())
            .collect::<Vec<_>>()
    };
    case.mounts = vec![bound("/sys")];
    assert_eq!(order(&case), expected(&["/sys"]));
    case.mounts = vec![bound("/a")];
    assert_eq!(order(&case), expected(&["/sys", "/sys/fs/cgroup", "/a"]));
    case.mounts = vec![bound("/sys/fs/cgroup/x"), bound("/sys/fs"), bound("/etc")];
    let all = [
        &["/sys", "/etc"],
        &files[..],
        &["/sys/fs", "/sys/fs/cgroup/x"],
    ]
    .concat();
    assert_eq!(order(&case), all);
}

#[test]
fn files_of_the_pod_do_not_reach_the_host() {
    for (mounts, refused) in [
        (vec![("/etc", Propagation::Bidirectional)], true),
        (vec![("/etc", Propagation::HostToContainer)], false),
        (vec![("/etc/hosts", Propagation::Bidirectional)], false),
        (vec![("/sys", Propagation::Bidirectional)], false),
    ] {
        let mut case = case();
        let asked = mounts.iter().map(|(path, propagation)| ResolvedMount {
            propagation: *propagation,
            ..bound(path)
        });
        case.mounts = asked.collect();
        match refused {
            true => assert_eq!(case.refused(), Field::MountPropagation, "{mounts:?}"),
            false => drop(case.build().unwrap()),
        }
    }
}

#[test]
fn mounts_replace_the_defaults_they_cover() {
    let mut case = case();
    case.mounts = vec![
        bound("/dev/shm/"),
        bound("/etc/hosts"),
        bound("/a/b"),
        bound("/a"),
    ];
    let spec = case.build().unwrap();
    let mounts = spec.mounts().clone().unwrap();
    let sources = |path: &str| {
        let at = mounts
            .iter()
            .filter(|mount| mount.destination() == Path::new(path));
        at.filter_map(|mount| mount.source().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(sources("/dev/shm"), [Path::new("/src")]);
    assert_eq!(sources("/etc/hosts"), [Path::new("/src")]);
    let place = |path: &str| {
        mounts
            .iter()
            .position(|m| m.destination() == Path::new(path))
    };
    assert!(place("/a") < place("/a/b"));
    case.mounts = vec![ResolvedMount {
        root_of_procfs: true,
        ..bound("/proc")
    }];
    let spec = case.build().unwrap();
    assert_eq!(options_at(&spec, "/proc").unwrap()[0], "rbind");
    case.mounts = vec![bound("/dev")];
    let spec = case.build().unwrap();
    assert!(options_at(&spec, "/dev/pts").is_none());
}

fn shown(destination: &str, lower: &[&str]) -> crate::ImageView {
    crate::ImageView {
        destination: destination.into(),
        lower: lower.iter().map(Into::into).collect(),
        sub_path: String::new(),
        options: vec!["noexec".to_owned()],
    }
}

#[test]
fn images_are_shown_read_only_whatever_is_asked_for() {
    let mut case = case();
    let part = crate::ImageView {
        sub_path: "a/b".to_owned(),
        ..shown("/part", &["/2", "/1"])
    };
    case.views = vec![shown("/whole", &["/2", "/1"]), part, shown("/empty", &[])];
    let spec = case.build().unwrap();
    let options = |path: &str| options_at(&spec, path).unwrap();
    assert_eq!(options("/whole"), ["ro", "noexec", "lower=/2", "lower=/1"]);
    assert_eq!(
        options("/part")[2..],
        ["lower=/2", "lower=/1", "sub_path=a/b"]
    );
    assert_eq!(options("/empty"), ["ro", "noexec", "mode=755"]);
}

#[test]
fn images_hide_no_files_of_the_kernel_and_do_not_reach_the_host() {
    for (view, host, field) in [
        ("/", None, Field::MountDestination),
        ("/proc/sys", None, Field::MountDestination),
        ("/proc", None, Field::MountDestination),
        ("/host/x", Some("/host"), Field::MountPropagation),
    ] {
        let mut case = case();
        case.mounts = Vec::from_iter(host.map(|path| ResolvedMount {
            propagation: Propagation::Bidirectional,
            ..bound(path)
        }));
        case.views = vec![shown(view, &["/2", "/1"])];
        assert_eq!(case.refused(), field, "{view}");
    }
}

#[test]
fn a_user_namespace_gets_what_its_root_may_mount() {
    let range = |container, length| crisp_model::IdRange {
        container,
        host: 100_000,
        length,
    };
    let ids = |length| crisp_model::IdMap::new(vec![range(0, 10)], vec![range(0, length)]).ok();
    let mut case = case();
    case.namespaces.user = Some("/ns/user".into());
    case.pod.namespaces.users = ids(10);
    let mut volume = bound("/data");
    volume.id_map = ids(1);
    case.mounts = vec![volume];
    let spec = case.build().unwrap();
    assert!(has(options_at(&spec, "/dev/pts"), "gid=5"));
    assert!(!has(options_at(&spec, "/sys"), "bind"));
    let linux = spec.linux().as_ref().unwrap();
    let groups = linux.gid_mappings().as_ref().unwrap();
    assert_eq!((groups[0].host_id(), groups[0].size()), (100_000, 10));
    let mut mounts = spec.mounts().iter().flatten();
    let mount = mounts.find(|m| m.destination() == Path::new("/data"));
    let mount = mount.unwrap();
    let groups = mount.gid_mappings().as_ref().unwrap();
    assert_eq!((groups[0].host_id(), groups[0].size()), (100_000, 1));
    let mut namespaces = linux.namespaces().iter().flatten();
    let users = namespaces.find(|n| n.typ() == Kind::User).unwrap();
    assert_eq!(users.path().as_deref(), Some(Path::new("/ns/user")));
    // Mounts in a volume are mapped as the volume is.
    assert!(has(
        options_at(&spec, "/data"),
        crisp_model::MAPPED_WHERE_POSSIBLE
    ));
    // Without the group of terminals, and on the node's network.
    case.pod.namespaces.users = ids(5);
    case.pod.namespaces.network = crisp_model::NamespaceMode::Node;
    let spec = case.build().unwrap();
    assert!(!has(options_at(&spec, "/dev/pts"), "gid=5"));
    let sys = options_at(&spec, "/sys");
    assert!(has(sys.clone(), "bind") && has(sys, "ro"));
    // The kernel lets no process become a user who is not mapped.
    case.user.uid = 10;
    assert_eq!(case.refused(), Field::UserId);
    case.user.uid = 9;
    case.user.gid = 5;
    assert_eq!(case.refused(), Field::GroupId);
    case.user.gid = 4;
    case.user.additional_gids = vec![0, 7];
    assert_eq!(case.refused(), Field::Groups);
}

#[test]
fn a_user_namespace_is_lent_devices_and_shown_images() {
    let device = |path: &str| ResolvedDevice {
        path: path.into(),
        source: "/dev/fuse".into(),
        kind: DeviceKind::Char,
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        permissions: String::new(),
    };
    // The runtime finds a node that is the host's at the same path.
    let moved = |case: &Case| -> Vec<PathBuf> {
        let spec = case.build().unwrap();
        let mounts = spec.mounts().iter().flatten();
        let lent = mounts.filter(|m| m.source().as_deref() == Some(Path::new("/dev/fuse")));
        lent.map(|m| m.destination().clone()).collect()
    };
    let mut case = case();
    case.mounts = vec![bound("/data")];
    case.devices = ["/dev/fuse", "/dev/moved", "/data"].map(device).into();
    assert!(moved(&case).is_empty(), "its nodes are made");
    let ids = crisp_model::IdRange {
        container: 0,
        host: 100_000,
        length: 10,
    };
    case.pod.namespaces.users = crisp_model::IdMap::new(vec![ids], vec![ids]).ok();
    case.namespaces.user = Some("/ns/user".into());
    assert_eq!(moved(&case), [Path::new("/dev/moved")]);
    assert!(has(options_at(&case.build().unwrap(), "/dev/moved"), "ro"));
    case.views = vec![shown("/image", &["/2", "/1"])];
    assert!(has(
        options_at(&case.build().unwrap(), "/image"),
        "lower=/1"
    ));
    case.mounts = vec![bound("/dev")];
    assert!(moved(&case).is_empty(), "a /dev of the caller's own");
    case.mounts.clear();
    case.devices = vec![device("/proc/x")];
    assert_eq!(case.refused(), Field::MountDestination);
}
