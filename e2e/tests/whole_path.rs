//! The whole path of a pod with limits, from the pull to the removal: here, and the same again on
//! cgroup v2 nodes, without systemd and with its cgroup driver.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and read the tree directly"
)]

mod vm;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::is_v2;
use crisp_e2e::configs::{self, resources};
use crisp_e2e::{Cri, Node, cgroups, trial};
use crisp_oracles::Limits;

/// Which file has a limit, by controller, on version 2 and on version 1, and what it says there.
const LIMITS: &[(&str, [&str; 2], [&str; 2])] = &[
    (
        "memory",
        ["memory.max", "memory.limit_in_bytes"],
        ["67108864", "67108864"],
    ),
    (
        "cpu",
        ["cpu.max", "cpu.cfs_quota_us"],
        ["50000 100000", "50000"],
    ),
    ("cpu", ["cpu.weight", "cpu.shares"], ["59", "512"]),
    ("cpuset", ["cpuset.cpus", "cpuset.cpus"], ["0", "0"]),
];

/// A container's directory in a controller's hierarchy.
fn cgroup(controller: &str, id: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() {
        root.to_owned()
    } else {
        root.join(controller)
    };
    root.join(cgroups::path(id))
}

fn read(controller: &str, id: &str, files: [&str; 2]) -> String {
    let file = cgroup(controller, id).join(files[usize::from(!is_v2())]);
    let text = fs::read_to_string(&file);
    text.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .trim()
        .to_owned()
}

fn limited() -> cri::ContainerConfig {
    let mut config = configs::idle("limited");
    *resources(&mut config) = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        cpuset_cpus: "0".into(),
        ..Default::default()
    };
    config
}

#[test]
fn privileged_the_whole_path() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("whole");
        let id = cri.run_pod(&pod);
        limits(&mut cri, &id, &pod);
        out_of_memory(&mut cri, &id, &pod);
        pages(node, &mut cri, &id, &pod);
        cri.remove_pod(&id);
    });
}

/// Limits are in the kernel's files, can be changed, and figures are told.
fn limits(cri: &mut Cri, pod_id: &str, pod: &cri::PodSandboxConfig) {
    let id = cri.run(pod_id, pod, &limited());
    for (controller, files, values) in LIMITS {
        let want = values[usize::from(!is_v2())];
        assert_eq!(
            read(controller, &id, *files),
            want,
            "{controller} {files:?}"
        );
    }
    let witness = crisp_oracles::limits(&cgroups::path(&id)).unwrap();
    let expected = Limits {
        memory: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_weight: if is_v2() { 59 } else { 512 },
        cpus: vec![(0, 0)],
    };
    assert_eq!(witness, expected);
    cri.update_container_resources(cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(cri::LinuxContainerResources {
            memory_limit_in_bytes: 128 << 20,
            ..Default::default()
        }),
        ..Default::default()
    })
    .unwrap();
    let (controller, files, _) = LIMITS[0];
    assert_eq!(read(controller, &id, files), "134217728");
    let told = cri.look(&id).resources.unwrap().linux.unwrap();
    assert_eq!(
        (told.memory_limit_in_bytes, told.cpu_shares),
        (128 << 20, 512)
    );
    assert_eq!(cri.shell(&id, "echo hello"), "hello\n");
    let request = cri::ContainerStatsRequest {
        container_id: id.clone(),
    };
    let stats = cri.container_stats(request).unwrap().stats.unwrap();
    let usage = stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value;
    let memory = stats.memory.unwrap().working_set_bytes.unwrap().value;
    assert!(usage > 0 && memory > 0, "{usage} ns, {memory} bytes");
}

fn out_of_memory(cri: &mut Cri, pod_id: &str, pod: &cri::PodSandboxConfig) {
    let mut config = configs::shell(
        "greedy",
        "exec dd if=/dev/zero of=/dev/null bs=100M count=1",
    );
    resources(&mut config).memory_limit_in_bytes = 20 << 20;
    let id = cri.run(pod_id, pod, &config);
    let status = cri.wait_exit(&id);
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
}

fn get(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server in the pod answers at the pod's address and says goodbye at its stop.
fn pages(node: &Node, cri: &mut Cri, pod_id: &str, pod: &cri::PodSandboxConfig) {
    let line = "mkdir /www && echo page >/www/index.html && exec httpd -f -p 8080 -h /www";
    let id = cri.run(pod_id, pod, &configs::shell("server", line));
    let address = format!("{}:8080", cri.address(pod_id));
    let fetch = || node.net.run(|| get(&address)).unwrap_or_default();
    let answered = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        fetch().ends_with("\r\n\r\npage\n")
    });
    assert!(answered, "no page at {address}: {:?}", fetch());
    cri.stop(&id, 0);
    assert_eq!(cri.look(&id).exit_code, 137);
}

/// The same on a node of its own, which boots in a second.
#[test]
fn privileged_on_cgroup_v2() {
    // Else the test above was it.
    if !is_v2() {
        vm::run_tests("cgroupfs", "privileged_the_whole_path");
    }
}

#[test]
fn privileged_on_cgroup_v2_with_systemd() {
    if !is_v2() {
        vm::run_tests("systemd", "privileged_the_whole_path");
    }
}
