//! Limits that change while a container lives: down, up, below what it uses, refused half-way, and
//! before it is started. Status and kernel always say the same.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::{self, is_v2};
use crisp_e2e::{Cri, configs, in_pod, node, tools, trial};
use tonic::{Code, Status};

const MIB: i64 = 1 << 20;

/// Limits as a status tells them: memory, memory with swap, shares, quota.
type Told = [i64; 4];

fn told(cri: &mut Cri, id: &str) -> Told {
    let limits = cri.look(id).resources.unwrap().linux.unwrap();
    [
        limits.memory_limit_in_bytes,
        limits.memory_swap_limit_in_bytes,
        limits.cpu_shares,
        limits.cpu_quota,
    ]
}

fn read(id: &str, controller: &str, [v1, v2]: [&str; 2]) -> Option<String> {
    let root = Path::new("/sys/fs/cgroup");
    let (controller, file) = match root.join(controller).exists() {
        _ if is_v2() => ("", v2),
        true => (controller, v1),
        // A machine with both versions can have it in the tree of version 2.
        false => ("unified", v2),
    };
    let path = root.join(controller);
    let text = fs::read_to_string(path.join(cgroups::path(id)).join(file)).ok()?;
    Some(
        text.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    )
}

/// The same as the kernel has them. It counts swap alone on version 2, and weights instead of shares.
fn in_force([memory, both, shares, quota]: Told) -> Vec<Option<String>> {
    let limit = |value: i64, none: &str| match value {
        ..0 if is_v2() => "max".to_owned(),
        ..0 => none.to_owned(),
        value => value.to_string(),
    };
    const NONE: &str = "9223372036854771712";
    let swap = match (is_v2(), both) {
        (true, 0..) => both - memory,
        _ => both,
    };
    let weight = match shares {
        77 => 14,
        512 => 59,
        2048 => 174,
        other => other,
    };
    vec![
        Some(limit(memory, NONE)),
        Some(limit(swap, NONE)),
        Some(if is_v2() { weight } else { shares }.to_string()),
        Some(limit(quota, "-1")),
    ]
}

#[track_caller]
fn check(cri: &mut Cri, id: &str, expected: Told) {
    assert_eq!(told(cri, id), expected, "in the status");
    let files = [
        ("memory", ["memory.limit_in_bytes", "memory.max"]),
        ("memory", ["memory.memsw.limit_in_bytes", "memory.swap.max"]),
        ("cpu", ["cpu.shares", "cpu.weight"]),
        ("cpu", ["cpu.cfs_quota_us", "cpu.max"]),
    ];
    let mut wanted = in_force(expected);
    let found = files.map(|(controller, names)| read(id, controller, names));
    // A kernel without accounting of swap has no file for it.
    if found[1].is_none() {
        wanted[1] = None;
    }
    assert_eq!(found.to_vec(), wanted, "in the cgroup");
    if node::cgroup_driver() == "systemd" {
        let scope = format!("/sys/fs/cgroup/{}/../cpu.weight", cgroups::path(id));
        let weight = fs::read_to_string(scope).unwrap();
        assert_eq!(Some(weight.trim().to_owned()), wanted[2], "of the scope");
    }
}

fn update(
    cri: &mut Cri,
    id: &str,
    change: impl FnOnce(&mut cri::LinuxContainerResources),
) -> Result<(), Status> {
    let mut limits = cri::LinuxContainerResources::default();
    change(&mut limits);
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(limits),
        ..Default::default()
    };
    cri.update_container_resources(request).map(drop)
}

const MIDDLE: Told = [64 * MIB, 64 * MIB, 512, 50_000];

fn middle(name: &str) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    *configs::resources(&mut config) = cri::LinuxContainerResources {
        memory_limit_in_bytes: MIDDLE[0],
        memory_swap_limit_in_bytes: MIDDLE[1],
        cpu_shares: MIDDLE[2],
        cpu_quota: MIDDLE[3],
        cpu_period: 100_000,
        ..Default::default()
    };
    config
}

#[test]
fn privileged_limits_go_down_and_up_and_away() {
    in_pod("resized", |_, cri, pod, config| {
        let id = cri.run(pod, config, &middle("main"));
        check(cri, &id, MIDDLE);
        for step in [
            [32 * MIB, 32 * MIB, 77, 20_000],
            [128 * MIB, 160 * MIB, 2048, 150_000],
            [32 * MIB, 64 * MIB, 512, 20_000],
        ] {
            update(cri, &id, |limits| {
                [
                    limits.memory_limit_in_bytes,
                    limits.memory_swap_limit_in_bytes,
                    limits.cpu_shares,
                    limits.cpu_quota,
                ] = step;
            })
            .unwrap();
            check(cri, &id, step);
        }
        // Limits that are not named stay, and swap keeps its share beside memory.
        update(cri, &id, |limits| limits.memory_limit_in_bytes = 48 * MIB).unwrap();
        check(cri, &id, [48 * MIB, 80 * MIB, 512, 20_000]);
        update(cri, &id, |limits| {
            limits.memory_limit_in_bytes = -1;
            limits.cpu_quota = -1;
        })
        .unwrap();
        check(cri, &id, [-1, -1, 512, -1]);
        assert_eq!(cri.shell(&id, "echo well"), "well\n");
    });
}

/// The kernel of version 2 would take the limit, and kill.
#[test]
fn privileged_a_limit_below_what_is_used_is_refused_and_kills_nobody() {
    in_pod("full", |_, cri, pod, config| {
        let mut wanted = middle("main");
        let program = std::env::current_exe().unwrap();
        wanted.mounts = vec![configs::mount(program.to_str().unwrap(), "/program")];
        let id = cri.run(pod, config, &wanted);
        cri.shell(&id, "head -c 40m /dev/zero >/dev/shm/kept");
        let refused = update(cri, &id, |limits| {
            limits.cpu_shares = 77;
            limits.memory_limit_in_bytes = 16 * MIB;
        })
        .unwrap_err();
        assert!(refused.message().contains("memory"), "{refused}");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        check(cri, &id, MIDDLE);
        // Pages of files are given back for a lower limit: they do not count.
        cri.shell(&id, "rm /dev/shm/kept; cat /program >/dev/null");
        update(cri, &id, |limits| limits.memory_limit_in_bytes = 16 * MIB).unwrap();
        check(cri, &id, [16 * MIB, 16 * MIB, 512, 50_000]);
        assert_eq!(cri.shell(&id, "echo well"), "well\n");
    });
}

#[test]
fn privileged_an_update_that_is_refused_half_way_changes_nothing() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("halves");
        let pod_id = cri.run_pod(&pod);
        let id = cri.run(&pod_id, &pod, &middle("main"));
        let refused = update(&mut cri, &id, |limits| {
            limits.memory_limit_in_bytes = 32 * MIB;
            limits.cpu_shares = 77;
            limits.cpuset_cpus = "4095".to_owned();
        })
        .unwrap_err();
        let words = ["linux.resources", "cpuset.cpus", "4095"];
        assert!(
            words.iter().all(|word| refused.message().contains(word)),
            "{refused}"
        );
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        check(&mut cri, &id, MIDDLE);
        node.kill();
        node.restart();
        let mut cri = node.cri();
        check(&mut cri, &id, MIDDLE);
        update(&mut cri, &id, |limits| limits.cpu_shares = 77).unwrap();
        check(&mut cri, &id, [64 * MIB, 64 * MIB, 77, 50_000]);
        cri.stop(&id, 0);
        let late = update(&mut cri, &id, |limits| limits.cpu_shares = 512).unwrap_err();
        assert_eq!(late.code(), Code::FailedPrecondition, "{late}");
        assert_eq!(told(&mut cri, &id)[2], 77);
        cri.remove_pod(&pod_id);
    });
}

#[test]
fn privileged_limits_of_a_created_container_are_those_of_its_start() {
    in_pod("early", |_, cri, pod, config| {
        let mut wanted = middle("main");
        configs::resources(&mut wanted).oom_score_adj = 100;
        wanted.devices = vec![cri::Device {
            container_path: "/dev/kept".to_owned(),
            host_path: "/dev/kmsg".to_owned(),
            permissions: "w".to_owned(),
        }];
        let id = cri.create(pod, config, &wanted).unwrap();
        update(cri, &id, |limits| {
            limits.memory_limit_in_bytes = 32 * MIB;
            limits.cpu_shares = 77;
            limits.oom_score_adj = 300;
        })
        .unwrap();
        let expected = [32 * MIB, 32 * MIB, 77, 50_000];
        assert_eq!(told(cri, &id), expected);
        cri.start(&id).unwrap();
        check(cri, &id, expected);
        assert_eq!(score(cri, &id), (300, "300"));
        cri.shell(&id, "echo a test of crisp >/dev/kept");
        let read = cri.execute(&id, &["head", "-c", "1", "/dev/kept"]).unwrap();
        assert_ne!(read.exit_code, 0, "the rules of devices stay");
        // A kubelet names the score with every change of limits: processes keep theirs, and the
        // status says so.
        update(cri, &id, |limits| {
            limits.cpu_shares = 512;
            limits.oom_score_adj = 900;
        })
        .unwrap();
        check(cri, &id, [32 * MIB, 32 * MIB, 512, 50_000]);
        assert_eq!(score(cri, &id), (300, "300"));
    });
}

/// The score of the first process: as the status tells it, and as the kernel has it.
fn score(cri: &mut Cri, id: &str) -> (i64, &'static str) {
    let text = cri.shell(id, "cat /proc/1/oom_score_adj");
    let limits = cri.look(id).resources.unwrap().linux.unwrap();
    (limits.oom_score_adj, text.leak().trim())
}

#[test]
fn privileged_limits_that_are_named_by_the_kernels_files_are_in_them() {
    in_pod("files", |_, cri, pod, config| {
        let mut wanted = middle("main");
        let unified = [
            ("memory.low", "1048576"),
            ("memory.min", "524288"),
            ("memory.high", "50331648"),
            ("memory.oom.group", "1"),
            ("pids.max", "99"),
        ];
        let pairs = unified.map(|(file, value)| (file.to_owned(), value.to_owned()));
        configs::resources(&mut wanted).unified = pairs.clone().into();
        if !is_v2() {
            let refused = cri.create(pod, config, &wanted).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(refused.message().contains("unified"), "{refused}");
            return;
        }
        let id = cri.run(pod, config, &wanted);
        for (file, value) in unified {
            assert_eq!(read(&id, "", ["", file]).as_deref(), Some(value), "{file}");
        }
        // One of them changes, the others stay.
        update(cri, &id, |limits| {
            limits.unified = [("memory.high".to_owned(), "max".to_owned())].into();
        })
        .unwrap();
        assert_eq!(read(&id, "", ["", "memory.high"]).unwrap(), "max");
        assert_eq!(read(&id, "", ["", "memory.low"]).unwrap(), "1048576");
        let refused = update(cri, &id, |limits| {
            limits.cpu_shares = 77;
            limits.unified = [("memory.none".to_owned(), "1".to_owned())].into();
        })
        .unwrap_err();
        assert!(refused.message().contains("memory.none"), "{refused}");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        check(cri, &id, MIDDLE);
        let shown = cri.look(&id).resources.unwrap().linux.unwrap().unified;
        assert_eq!(shown.len(), unified.len(), "{shown:?}");
        assert_eq!(shown["memory.high"], "max");
    });
}

#[test]
fn privileged_limits_of_huge_pages_are_in_their_files() {
    in_pod("pages", |_, cri, pod, config| {
        let limit = |size: &str, limit: u64| cri::HugepageLimit {
            page_size: size.to_owned(),
            limit,
        };
        let mut wanted = middle("main");
        // A kubelet names each size that the node has, the others with 0.
        configs::resources(&mut wanted).hugepage_limits = vec![limit("2MB", 4 << 20)];
        let id = cri.run(pod, config, &wanted);
        let files = ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"];
        let Some(found) = read(&id, "hugetlb", files) else {
            tools::say("SKIPPED: limits of huge pages: the kernel has no controller of them");
            return;
        };
        assert_eq!(found, "4194304");
        update(cri, &id, |limits| {
            limits.hugepage_limits = vec![limit("2MB", 0)]
        })
        .unwrap();
        assert_eq!(read(&id, "hugetlb", files).unwrap(), "0");
        let shown = cri.look(&id).resources.unwrap().linux.unwrap();
        assert_eq!(shown.hugepage_limits, [limit("2MB", 0)]);
        check(cri, &id, MIDDLE);
    });
}

#[test]
fn privileged_the_sums_of_a_pod_are_told_and_last() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("sums");
        let sum = |shares: i64, memory: i64| cri::LinuxContainerResources {
            cpu_shares: shares,
            memory_limit_in_bytes: memory,
            ..Default::default()
        };
        pod.linux.as_mut().unwrap().overhead = Some(sum(10, MIB));
        pod.linux.as_mut().unwrap().resources = Some(sum(100, 64 * MIB));
        let id = cri.run_pod(&pod);
        let shown = |cri: &mut Cri| {
            let request = cri::PodSandboxStatusRequest {
                pod_sandbox_id: id.clone(),
                verbose: true,
            };
            let info = cri.pod_sandbox_status(request).unwrap().info;
            let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
            ["overhead", "resources"].map(|sum| {
                let sum = &info["config"]["linux"][sum];
                let number = |name: &str| sum[name].as_i64();
                (number("cpu_shares"), number("memory_limit_in_bytes"))
            })
        };
        let first = [(Some(10), Some(MIB)), (Some(100), Some(64 * MIB))];
        assert_eq!(shown(&mut cri), first);
        let mut request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.clone(),
            overhead: None,
            resources: Some(sum(-1, 0)),
        };
        let refused = cri.update_pod_sandbox_resources(request.clone());
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(shown(&mut cri), first);
        request.resources = Some(sum(200, 128 * MIB));
        cri.update_pod_sandbox_resources(request.clone()).unwrap();
        let second = [first[0], (Some(200), Some(128 * MIB))];
        assert_eq!(shown(&mut cri), second);
        node.kill();
        node.restart();
        let mut cri = node.cri();
        assert_eq!(shown(&mut cri), second);
        cri.remove_pod(&id);
        let gone = cri.update_pod_sandbox_resources(request).unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    });
}
