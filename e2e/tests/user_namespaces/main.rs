//! Pods with a user namespace: whose ids their containers have, inside and on the host, and that
//! nothing of the host's own is theirs.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod foreign;
mod given;
mod mapped;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use cri::NamespaceMode as Mode;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs::users;
use crisp_e2e::forwarding::Forwarding;
use crisp_e2e::netns::Net;
use crisp_e2e::{Cri, Node, configs, owners, trial};
use tonic::Code;

use crate::mapped::{container, owner, pod, volume};

fn mapping(container: u32, host: u32, length: u32) -> cri::IdMapping {
    cri::IdMapping {
        host_id: host,
        container_id: container,
        length,
    }
}

/// The writable layer of a container, on the host.
fn layer(node: &Node, container: &str) -> PathBuf {
    let dir = node.root().join("snapshots/containers");
    dir.join(container).join("fs")
}

/// The namespace of the node.
fn own() -> String {
    let link = fs::read_link("/proc/self/ns/user").unwrap();
    link.to_str().unwrap().to_owned()
}

#[test]
fn privileged_ids_are_the_pods_inside_and_others_on_the_host() {
    trial(|node| {
        let features = node.cri().status(cri::StatusRequest::default()).unwrap();
        let handler = features.runtime_handlers[0].features.unwrap();
        assert!(handler.user_namespaces);
        assert!(features.features.unwrap().user_namespaces_host_network);

        let mut cri = node.cri();
        let data = node.path("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("seven"), "content").unwrap();
        chown(data.join("seven"), Some(7), Some(7)).unwrap();
        let ranges = [0x0100_0000, 0x0200_0000];
        let mut pods = Vec::new();
        for (name, first) in ["one", "two"].into_iter().zip(ranges) {
            let pod = pod(node, name, first);
            let id = cri.run_pod(&pod);
            let mut config = container(configs::idle("main"), first);
            config.mounts = vec![volume(&data, first)];
            let main = cri.run(&id, &pod, &config);
            look_inside(&mut cri, &main, first);
            let name = format!("/data/by-{first}");
            cri.shell(&main, &format!("touch {name} && chown 5:6 {name} /root"));
            // The volume has the ids that the container sees, the layer those of the namespace.
            assert_eq!(owner(&data.join(format!("by-{first}"))), (5, 6));
            assert_eq!(
                owner(&layer(node, &main).join("root")),
                (first + 5, first + 6)
            );
            assert_eq!(owner(&layer(node, &main)), (first, first));
            let status = cri.pod(&id).linux.unwrap().namespaces.unwrap();
            assert_eq!(status.options.unwrap().userns_options, Some(users(first)));
            assert_eq!(cri.look(&main).mounts[0].uid_mappings, users(first).uids);
            pods.push((id, pod));
        }
        // The image is shared with a pod that has the node's ids.
        let plain = node.pod("plain");
        let id = cri.run_pod(&plain);
        let main = cri.run(&id, &plain, &configs::idle("main"));
        assert_eq!(
            cri.shell(&main, "stat -c %u:%g /bin/sh /root"),
            "0:0\n0:0\n"
        );
        assert_eq!(
            cri.shell(&main, "readlink /proc/self/ns/user").trim(),
            own()
        );
        pods.push((id, plain));
        pods.iter().for_each(|(id, _)| cri.remove_pod(id));
    });
}

fn look_inside(cri: &mut Cri, container: &str, first: u32) {
    let map = cri.shell(container, "cat /proc/self/uid_map /proc/self/gid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    let first = first.to_string();
    let expected = ["0", &*first, "65536"];
    assert_eq!(map, [expected, expected].concat());
    for (line, said) in [
        ("id -u; id -g", "0\n0\n"),
        (
            "stat -c %u:%g / /bin/sh /etc/hosts /etc/resolv.conf /etc/hostname",
            &*"0:0\n".repeat(5),
        ),
        (
            "stat -c %u /dev/shm /dev/mqueue /dev/pts /proc/1",
            "0\n0\n0\n0\n",
        ),
        ("stat -c %u /data/seven; cat /data/seven", "7\ncontent"),
        (
            "touch /dev/shm/x /tmp/x && echo >/dev/null && echo yes",
            "yes\n",
        ),
        ("echo here >/dev/stdout", "here\n"),
        (
            "mknod /tmp/disk b 8 0 2>/dev/null || echo refused",
            "refused\n",
        ),
        ("cat /proc/sys/net/ipv4/ping_group_range", "0\t65535\n"),
        ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
        ("test -d /sys/class/net/eth0 && echo net", "net\n"),
        ("ls /sys/fs/cgroup >/dev/null && echo cgroups", "cgroups\n"),
    ] {
        assert_eq!(cri.shell(container, line), said, "{line}");
    }
    let namespace = cri.shell(container, "readlink /proc/self/ns/user");
    assert_ne!(namespace.trim(), own());
}

/// The ways into a container, over a restart of a daemon that was killed.
#[test]
fn privileged_all_goes_on_when_the_daemon_is_killed() {
    const FIRST: u32 = 0x0300_0000;
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = pod(node, "shared", FIRST);
        configs::namespaces(&mut pod).pid = Mode::Pod.into();
        let linux = pod.linux.as_mut().unwrap();
        linux.sysctls = [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "4096")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        pod.log_directory = node.path("logs").to_str().unwrap().to_owned();
        let id = cri.run_pod(&pod);
        let in_pod = |name: &str, line: &str| {
            let mut config = container(configs::shell(name, line), FIRST);
            let options = configs::security(&mut config).namespace_options.as_mut();
            options.unwrap().pid = Mode::Pod.into();
            config
        };
        let line = "echo begun >/dev/stderr; httpd -p 80 -h /etc; trap 'exit 7' TERM; \
                    while :; do sleep 1000 & wait; done";
        let main = cri.run(&id, &pod, &in_pod("main", line));
        for restarts in 0..2 {
            if restarts == 1 {
                node.kill();
                node.restart();
                cri = node.cri();
            }
            let lines =
                "id -u; cat /proc/1/comm; cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax";
            assert_eq!(cri.shell(&main, lines), "0\ncrisp-holder\n1\n4096\n");
            // The process that holds the pod together is none of its users.
            let ids = cri.shell(&main, "grep Uid /proc/1/status");
            let nobody = ["Uid:", "65534", "65534", "65534", "65534"];
            assert!(ids.split_whitespace().eq(nobody), "{ids}");
            cri.shell(&main, "kill -9 1; kill -15 1; test -d /proc/1");
            let forwarding = Forwarding::start(node, "spdy", &id, 80);
            let mut stream = forwarding.connect(node);
            std::io::Write::write_all(&mut stream, b"GET /hostname HTTP/1.0\r\n\r\n").unwrap();
            let mut page = String::new();
            std::io::Read::read_to_string(&mut stream, &mut page).unwrap();
            assert!(page.contains("shared"), "{page}");
            let name = format!("again-{restarts}");
            let again = cri.run(&id, &pod, &in_pod(&name, "id -u; exit 3"));
            assert_eq!(cri.wait_exit(&again).exit_code, 3);
            let log = fs::read_to_string(node.path("logs").join(format!("{name}.log"))).unwrap();
            assert!(log.contains(" 0"), "{log}");
        }
        assert!(owners::holder(&id).is_some());
        cri.stop(&main, 10);
        assert_eq!(cri.look(&main).exit_code, 7);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_on_the_nodes_network_the_ids_are_the_pods() {
    const FIRST: u32 = 0x0400_0000;
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = pod(node, "host", FIRST);
        pod.hostname.clear();
        configs::namespaces(&mut pod).network = Mode::Node.into();
        let id = cri.run_pod(&pod);
        let mut config = container(configs::idle("main"), FIRST);
        let options = configs::security(&mut config).namespace_options.as_mut();
        options.unwrap().network = Mode::Node.into();
        let main = cri.run(&id, &pod, &config);
        let net: &Net = &node.net;
        let theirs = net.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
        let seen = cri.shell(&main, "readlink /proc/self/ns/net");
        assert_eq!(seen.trim(), theirs.to_str().unwrap());
        assert_eq!(cri.shell(&main, "id -u; stat -c %u / /bin/sh"), "0\n0\n0\n");
        // The node's sysfs is there to be read.
        let line = "test -d /sys/class/net && ls /sys/fs/cgroup >/dev/null && \
                    ! touch /sys/class/x 2>/dev/null && echo shown";
        assert_eq!(cri.shell(&main, line), "shown\n");
        let line = "ip link add dummy0 type dummy 2>/dev/null || echo refused";
        assert_eq!(cri.shell(&main, line), "refused\n");
        cri.remove_pod(&id);
    });
}

type Change = fn(&mut cri::NamespaceOption);

/// Each with the field that the answer names.
const REFUSED: [(&str, Change); 10] = [
    ("userns_options.mode", |o| {
        options(o).mode = Mode::Container.into()
    }),
    ("userns_options.mode", |o| {
        options(o).mode = Mode::Target.into()
    }),
    ("userns_options", |o| options(o).mode = Mode::Node.into()),
    ("userns_options.uids", |o| options(o).uids.clear()),
    ("userns_options.gids", |o| options(o).gids.clear()),
    ("userns_options.uids", |o| options(o).uids[0].length = 0),
    ("userns_options.gids", |o| {
        options(o).gids[0].container_id = 1
    }),
    ("userns_options.uids", |o| {
        options(o).uids.push(mapping(100, 1, 1))
    }),
    ("namespace_options.pid", |o| o.pid = Mode::Node.into()),
    ("namespace_options.ipc", |o| o.ipc = Mode::Node.into()),
];

fn options(options: &mut cri::NamespaceOption) -> &mut cri::UserNamespace {
    options.userns_options.as_mut().unwrap()
}

#[test]
fn privileged_what_cannot_be_mapped_is_refused_by_name() {
    const FIRST: u32 = 0x0500_0000;
    trial(|node| {
        let mut cri = node.cri();
        for (field, change) in REFUSED {
            let mut pod = pod(node, "odd", FIRST);
            change(configs::namespaces(&mut pod));
            let error = cri.try_run_pod(&pod).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
        }
        assert!(cri.pod_ids().is_empty());
        let pod = pod(node, "good", FIRST);
        let id = cri.run_pod(&pod);
        let good = container(configs::idle("main"), FIRST);
        let other = container(configs::idle("main"), FIRST + 1);
        let mut stranger = good.clone();
        configs::security(&mut stranger).run_as_user = Some(cri::Int64Value { value: 70_000 });
        let mut half = good.clone();
        half.mounts = vec![volume(Path::new("/tmp"), FIRST)];
        half.mounts[0].gid_mappings.clear();
        let mut shown = good.clone();
        shown.mounts = vec![volume(Path::new(""), FIRST + 1)];
        shown.mounts[0].image = shown.image.clone();
        for (field, config) in [
            ("the image at /data", shown),
            ("namespace_options.userns_options", other),
            ("run_as_user", stranger),
            ("mounts[0].gidMappings", half),
        ] {
            let error = cri.create(&id, &pod, &config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
            assert!(error.message().contains(field), "{field}: {error:?}");
        }
        // A file system that cannot be mapped is named, and its container does not start.
        let mut config = good;
        config.mounts = vec![volume(Path::new("/proc/self"), FIRST)];
        config.mounts[0].host_path = "/sys".to_owned();
        let main = cri.create(&id, &pod, &config).unwrap();
        let error = cri.start(&main).unwrap_err();
        assert!(error.message().contains("sysfs"), "{error:?}");
        cri.remove_pod(&id);
    });
}

/// Several ranges, and a container that says nothing of them.
#[test]
fn privileged_several_ranges_make_one_namespace() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("ranges");
        configs::namespaces(&mut pod).userns_options = Some(cri::UserNamespace {
            mode: Mode::Pod.into(),
            uids: vec![
                mapping(0, 0x0600_0000, 1000),
                mapping(1000, 0x0700_0000, 10),
            ],
            gids: vec![mapping(0, 0x0600_0000, 60_000)],
        });
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        configs::security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
        let main = cri.run(&id, &pod, &config);
        cri.shell(&main, "touch /tmp/own && echo out >/dev/stdout");
        assert_eq!(
            cri.shell(&main, "id -u; stat -c %u /tmp/own"),
            "1000\n1000\n"
        );
        let own = layer(node, &main).join("tmp/own");
        assert_eq!(own.metadata().unwrap().uid(), 0x0700_0000);
        cri.remove_pod(&id);
    });
}
