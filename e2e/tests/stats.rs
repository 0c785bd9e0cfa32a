//! Statistics of pods and containers beside what the kernel and the disk say, over time: interfaces,
//! inodes, pressure, swap, and a pod that is over.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::{self, are_made_by_the_daemon, is_v2};
use crisp_e2e::configs::{self, resources};
use crisp_e2e::{Cri, Node, in_pod, tools, trial};

/// Longest that a writable layer's measure may stand.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn of_container(cri: &mut Cri, id: &str) -> cri::ContainerStats {
    let request = cri::ContainerStatsRequest {
        container_id: id.to_owned(),
    };
    cri.container_stats(request).unwrap().stats.unwrap()
}

/// A pod's statistics, which are the same in the list.
fn of_pod(cri: &mut Cri, id: &str) -> cri::PodSandboxStats {
    let request = cri::PodSandboxStatsRequest {
        pod_sandbox_id: id.to_owned(),
    };
    cri.pod_sandbox_stats(request).unwrap().stats.unwrap()
}

fn in_list(cri: &mut Cri, id: &str) -> Vec<cri::PodSandboxStats> {
    let request = cri::ListPodSandboxStatsRequest {
        filter: Some(cri::PodSandboxStatsFilter {
            id: id.to_owned(),
            ..Default::default()
        }),
    };
    cri.list_pod_sandbox_stats(request).unwrap().stats
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// The times of all parts of a pod's figures and of its containers' but those of layers.
fn times(stats: &cri::PodSandboxStats) -> Vec<i64> {
    let linux = stats.linux.as_ref().unwrap();
    let mut times = vec![
        linux.cpu.as_ref().unwrap().timestamp,
        linux.memory.as_ref().unwrap().timestamp,
        linux.network.as_ref().unwrap().timestamp,
        linux.process.as_ref().unwrap().timestamp,
    ];
    for one in &linux.containers {
        times.push(one.cpu.as_ref().unwrap().timestamp);
        times.push(one.memory.as_ref().unwrap().timestamp);
        times.extend(one.swap.as_ref().map(|swap| swap.timestamp));
        times.extend(one.io.as_ref().map(|io| io.timestamp));
    }
    times
}

#[test]
fn privileged_each_look_has_its_own_time() {
    in_pod("times", |_, cri, pod, config| {
        let line = "while :; do :; done";
        let id = cri.run(pod, config, &configs::shell("main", line));
        let mut last = 0;
        let mut used = 0;
        for look in 0..3 {
            let before = now();
            let stats = of_pod(cri, pod);
            let listed = in_list(cri, pod);
            let after = now();
            assert_eq!(listed.len(), 1);
            let times = [times(&stats), times(&listed[0])].concat();
            for time in &times {
                assert!((before..=after).contains(time), "{before} {time} {after}");
                assert!(*time > last, "an earlier look's time: {time} {last}");
            }
            last = *times.iter().max().unwrap();
            let cpu = of_container(cri, &id).cpu.unwrap();
            let usage = cpu.usage_core_nano_seconds.unwrap().value;
            assert!(usage > used, "{usage} {used}");
            used = usage;
            if look > 0 {
                let rate = cpu.usage_nano_cores.unwrap().value;
                assert!(rate > 0, "a busy container");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
}

/// Files, directories and all else below a directory and itself, each inode once.
fn inodes(dir: &Path) -> u64 {
    let mut seen = std::collections::BTreeSet::from([fs::metadata(dir).unwrap().ino()]);
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            seen.insert(entry.ino());
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    u64::try_from(seen.len()).unwrap()
}

#[test]
fn privileged_inodes_of_a_layer_are_those_on_the_disk() {
    in_pod("inodes", |node, cri, pod, config| {
        let id = cri.run(pod, config, &configs::idle("main"));
        let dir = layer(node, &id);
        let first = of_container(cri, &id).writable_layer.unwrap();
        assert_eq!(first.inodes_used.unwrap().value, inodes(&dir));
        // A hard link is no inode more, a symbolic one is.
        let line = "mkdir /more && cd /more && for i in $(seq 50); do echo $i >$i; done && \
                    ln 1 hard && ln -s 1 soft && head -c 300k /dev/urandom >large";
        cri.shell(&id, line);
        let deadline = Instant::now() + PATIENCE;
        let later = loop {
            let now = of_container(cri, &id).writable_layer.unwrap();
            if now.timestamp > first.timestamp {
                break now;
            }
            assert!(Instant::now() < deadline, "the measure stays as it was");
            std::thread::sleep(Duration::from_millis(200));
        };
        let value = |of: Option<cri::UInt64Value>| of.unwrap().value;
        assert_eq!(value(later.inodes_used), inodes(&dir));
        assert_eq!(value(later.inodes_used), value(first.inodes_used) + 53);
        let grown = value(later.used_bytes) - value(first.used_bytes);
        assert!(grown >= 300 << 10, "{grown}");
        assert_eq!(later.fs_id, first.fs_id);
    });
}

/// The writable layer of a container, on the host.
fn layer(node: &Node, container: &str) -> PathBuf {
    let dir = node.root().join("snapshots/containers");
    dir.join(container).join("fs")
}

/// The host's pid of a container's first process.
fn pid(container: &str) -> String {
    let controller = if is_v2() { "" } else { "pids" };
    let root = Path::new("/sys/fs/cgroup").join(controller);
    let procs = root.join(cgroups::path(container)).join("cgroup.procs");
    let text = fs::read_to_string(procs).unwrap();
    text.lines().next().unwrap().to_owned()
}

#[test]
fn privileged_each_interface_of_a_pod_is_told() {
    in_pod("interfaces", |_, cri, pod, config| {
        let id = cri.run(pod, config, &configs::idle("main"));
        second_interface(&pid(&id));
        // A frame that nobody answers: one interface sends it, the other one receives it.
        cri.shell(&id, "arping -c 1 -w 1 -I aaa0 10.1.2.3 || true");
        let names = ["eth0", "aaa0", "aaa1"];
        let files = ["rx_bytes", "rx_errors", "tx_bytes", "tx_errors"];
        let line = |name: &str| {
            let each = files.map(|file| format!("/sys/class/net/{name}/statistics/{file}"));
            format!("cat {}", each.join(" "))
        };
        let look = |cri: &mut Cri| {
            names.map(|name| {
                let text = cri.shell(&id, &line(name));
                let each = text.split_whitespace().map(|word| word.parse().unwrap());
                each.collect::<Vec<u64>>()
            })
        };
        let before = look(cri);
        let stats = of_pod(cri, pod).linux.unwrap().network.unwrap();
        let after = look(cri);
        let default = stats.default_interface.unwrap();
        assert_eq!(default.name, "eth0");
        let mut found: Vec<_> = stats.interfaces.iter().map(|one| &*one.name).collect();
        assert_eq!(found[0], "eth0", "the default one is the first");
        found.sort_unstable();
        assert_eq!(found, ["aaa0", "aaa1", "eth0"]);
        for (index, name) in names.iter().enumerate() {
            let told = stats
                .interfaces
                .iter()
                .find(|one| one.name == *name)
                .unwrap();
            let value = |of: &Option<cri::UInt64Value>| of.as_ref().unwrap().value;
            let told = [
                &told.rx_bytes,
                &told.rx_errors,
                &told.tx_bytes,
                &told.tx_errors,
            ];
            for (number, told) in told.map(value).into_iter().enumerate() {
                let range = before[index][number]..=after[index][number];
                assert!(
                    range.contains(&told),
                    "{name} {}: {told} {range:?}",
                    files[number]
                );
            }
        }
        let sent = &before[1];
        assert!(sent[2] > 0, "{before:?}");
        metrics_name_each(cri, pod, &names);
    });
}

/// Gives a pod a pair of interfaces whose names come before the default one's.
fn second_interface(pid: &str) {
    let net = format!("--net=/proc/{pid}/ns/net");
    for words in [
        "link add aaa0 type veth peer name aaa1",
        "link set aaa0 up",
        "link set aaa1 up",
    ] {
        let line = format!("nsenter {net} ip {words}");
        told(&line.split(' ').collect::<Vec<_>>());
    }
}

/// Each interface has its row in the metrics, once.
fn metrics_name_each(cri: &mut Cri, pod: &str, names: &[&str]) {
    let all = cri.list_pod_sandbox_metrics(Default::default()).unwrap();
    let of_pod = all.pod_metrics.iter().find(|one| one.pod_sandbox_id == pod);
    let rows = of_pod.unwrap().metrics.iter();
    let rows = rows.filter(|one| one.name == "container_network_transmit_bytes_total");
    let mut found: Vec<_> = rows.map(|one| &*one.label_values[6]).collect();
    found.sort_unstable();
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

/// The lines of a pressure file: of each its total and three averages.
fn pressure(path: &Path) -> Option<Vec<(u64, [f64; 3])>> {
    let text = fs::read_to_string(path).ok()?;
    let line = |line: &str| {
        let value = |name: &str| {
            let mut pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).unwrap().1.to_owned()
        };
        let averages = ["avg10", "avg60", "avg300"].map(|name| value(name).parse().unwrap());
        (value("total").parse().unwrap(), averages)
    };
    Some(text.lines().map(line).collect())
}

/// The pressure that was told lies between two looks at its file, or there is no file.
#[track_caller]
fn check_pressure(file: &Path, before: Option<Vec<(u64, [f64; 3])>>, told: Option<cri::PsiStats>) {
    let name = file.display();
    let Some((before, after)) = before.zip(pressure(file)) else {
        assert_eq!(told, None, "{name}");
        return;
    };
    let told = told.unwrap_or_else(|| panic!("{name} is not told"));
    let lines = [told.some, told.full];
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let told = lines[index].as_ref().unwrap();
        let range = before.0..=after.0;
        assert!(
            range.contains(&told.total),
            "{name}: {} {range:?}",
            told.total
        );
        for (average, told) in [told.avg10, told.avg60, told.avg300].iter().enumerate() {
            let ends = [before.1[average], after.1[average]];
            let (least, most) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            assert!((least..=most).contains(told), "{name}: {told} {ends:?}");
        }
    }
}

#[test]
fn privileged_pressure_of_pods_and_containers_is_the_kernels() {
    if !are_made_by_the_daemon("pressure of pods and containers") {
        return;
    }
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("pressure");
        // As a kubelet names it: a cgroup of the pod's own.
        let parent = "kubepods-pressure/one";
        pod.linux.as_mut().unwrap().cgroup_parent = format!("/{parent}");
        let id = cri.run_pod(&pod);
        // Two that are busy and may use a tenth of a processor wait for it.
        let mut config = configs::shell("main", "while :; do :; done & while :; do :; done");
        resources(&mut config).cpu_period = 100_000;
        resources(&mut config).cpu_quota = 10_000;
        let container = cri.run(&id, &pod, &config);
        std::thread::sleep(Duration::from_millis(500));
        let root = match is_v2() {
            true => PathBuf::from("/sys/fs/cgroup"),
            false => PathBuf::from("/sys/fs/cgroup/unified"),
        };
        let of_pod_dir = root.join(parent);
        let of_container_dir = of_pod_dir.join(format!("crisp-{container}"));
        let files = ["cpu.pressure", "memory.pressure", "io.pressure"];
        let before = files.map(|file| pressure(&of_container_dir.join(file)));
        let stats = of_container(&mut cri, &container);
        let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
        let told = [cpu.psi, memory.psi, stats.io.and_then(|io| io.psi)];
        for ((file, before), told) in files.iter().zip(before).zip(told) {
            check_pressure(&of_container_dir.join(file), before, told);
        }
        let before = files.map(|file| pressure(&of_pod_dir.join(file)));
        if is_v2() {
            let cpu = before[0].as_ref().unwrap();
            assert!(cpu[0].0 > 0, "it waited for its processor: {cpu:?}");
        }
        let stats = of_pod(&mut cri, &id).linux.unwrap();
        let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
        let told = [cpu.psi, memory.psi, stats.io.and_then(|io| io.psi)];
        for ((file, before), told) in files.iter().zip(before).zip(told) {
            check_pressure(&of_pod_dir.join(file), before, told);
        }
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_pod_that_is_over_has_its_name_and_no_figures() {
    in_pod("over", |node, cri, pod, config| {
        let id = cri.run(pod, config, &configs::idle("main"));
        cri.shell(&id, "echo kept >/kept");
        assert!(of_pod(cri, pod).linux.unwrap().cpu.is_some());
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        cri.stop_pod_sandbox(request).unwrap();
        let state = cri.pod(pod).state;
        assert_eq!(state, i32::from(cri::PodSandboxState::SandboxNotready));
        let stats = of_pod(cri, pod);
        let named = stats.attributes.as_ref().unwrap();
        assert_eq!((&*named.id, &named.metadata), (pod, &config.metadata));
        let empty = cri::LinuxPodSandboxStats::default();
        assert_eq!(stats.linux, Some(empty));
        assert_eq!(in_list(cri, pod), [stats]);
        // A container that is over keeps what it wrote until it is removed.
        let stats = of_container(cri, &id);
        assert_eq!(stats.attributes.unwrap().id, id);
        assert_eq!((stats.cpu, stats.memory), (None, None));
        assert_eq!((stats.swap, stats.io), (None, None));
        let inodes_used = stats.writable_layer.unwrap().inodes_used.unwrap().value;
        assert_eq!(inodes_used, inodes(&layer(node, &id)));
        let all = cri.list_pod_sandbox_metrics(Default::default()).unwrap();
        let mut of_pod = all
            .pod_metrics
            .iter()
            .filter(|one| one.pod_sandbox_id == pod);
        let rows = of_pod
            .next()
            .map(|one| (&one.metrics, &one.container_metrics));
        let is_empty = rows.is_none_or(|(own, each)| own.is_empty() && each.is_empty());
        assert!(is_empty, "{rows:?}");
    });
}

/// A swap area of its own, on a node that lives for its tests alone.
struct Swap {
    device: String,
    _file: tempfile::NamedTempFile,
}

impl Swap {
    /// `None` where it would be the machine's own.
    fn on_a_node_of_tests() -> Option<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
        if !processor.contains("User Mode Linux") {
            tools::say("SKIPPED: swap: it is this machine's own; the cgroup v2 node has its own");
            return None;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(128 * MIB).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let device = told(&["losetup", "--find", "--show", &path]);
        told(&["mkswap", &device]);
        told(&["swapon", &device]);
        Some(Self {
            device,
            _file: file,
        })
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        told(&["swapoff", &self.device]);
        told(&["losetup", "--detach", &self.device]);
    }
}

#[track_caller]
fn told(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn privileged_swap_is_what_the_kernel_counts() {
    let Some(_swap) = Swap::on_a_node_of_tests() else {
        return;
    };
    in_pod("swap", |_, cri, pod, config| {
        let mut wanted = configs::idle("main");
        *resources(&mut wanted) = cri::LinuxContainerResources {
            memory_limit_in_bytes: 24 << 20,
            memory_swap_limit_in_bytes: 72 << 20,
            ..Default::default()
        };
        let id = cri.run(pod, config, &wanted);
        cri.shell(&id, "head -c 40m /dev/zero >/dev/shm/kept");
        let dir = Path::new("/sys/fs/cgroup").join(cgroups::path(&id));
        let number = |file: &str| -> u64 {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            text.trim().parse().unwrap()
        };
        let limit = number("memory.swap.max");
        assert_eq!(limit, 48 * MIB);
        let used = number("memory.swap.current");
        assert!(used > 8 * MIB, "{used}");
        let stats = of_container(cri, &id);
        let swap = stats.swap.unwrap();
        assert_eq!(swap.swap_usage_bytes.unwrap().value, used);
        assert_eq!(swap.swap_available_bytes.unwrap().value, limit - used);
        assert!(now() > swap.timestamp && swap.timestamp > 0);
        let all = cri.list_pod_sandbox_metrics(Default::default()).unwrap();
        let rows = all
            .pod_metrics
            .iter()
            .flat_map(|one| &one.container_metrics);
        let value = |name: &str| {
            let mut rows = rows.clone().flat_map(|one| &one.metrics);
            rows.find(|one| one.name == name).unwrap().value
        };
        let told = |name: &str| value(name).unwrap().value;
        assert_eq!(told("container_memory_swap"), used);
        assert_eq!(told("container_spec_memory_swap_limit_bytes"), limit);
        assert_eq!(number("memory.swap.current"), used, "nothing moved");
        // To get there the kernel has looked at pages and taken them away.
        let stolen = told("container_memory_pgsteal_total");
        assert!(stolen * 4096 >= used, "{stolen}");
        assert!(told("container_memory_pgscan_total") >= stolen);
        assert!(told("container_memory_events_max_total") > 0);
    });
}
