//! A systemd as the first process of a privileged container. Its handler gives cgroup namespaces also to
//! privileged containers, so it makes cgroups of units below its container's own, on both versions, and
//! none of the node's hierarchies has more than before.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::cgroups::{is_v2, path};
use crisp_e2e::{Node, Options, configs, eventually, tools, trial_with};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// A unit whose name nothing else on the machine has.
const UNIT: &str = "crisp-nested.service";
const TARGET: &str = "[Unit]\nDefaultDependencies=no\nRequires=crisp-nested.service\n";
const SERVICE: &str =
    "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/usr/bin/sleep 1000000\n";

/// How long a systemd may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// The hierarchies of the node, as this process is in them.
fn hierarchies() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap()
}

/// All cgroups of this machine with a name.
fn named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = dirs.pop() {
        // Others come and go meanwhile.
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for path in inner.map(|entry| entry.path()) {
            if path.ends_with(name) {
                found.push(path.clone());
            }
            dirs.push(path);
        }
    }
    found
}

/// Waits until the unit has a cgroup. A command in the container would take the time of an emulated processor
/// from the systemd that it asks.
fn has_begun() {
    let begun = Instant::now();
    while named(UNIT).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no {UNIT} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A container that the systemd of this machine leads, with units of the test's own.
fn container(node: &Node) -> cri::ContainerConfig {
    let units = node.path("units");
    fs::create_dir(&units).unwrap();
    fs::write(units.join("crisp-nested.target"), TARGET).unwrap();
    fs::write(units.join(UNIT), SERVICE).unwrap();
    // It raises the machine's limits of open files where it can.
    let line = format!(
        "mount -o bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
         exec {SYSTEMD} --unit=crisp-nested.target --log-target=console --show-status=no"
    );
    let mut config = configs::shell("main", &line);
    configs::security(&mut config).privileged = true;
    config.envs.push(cri::KeyValue {
        key: "container".to_owned(),
        value: b"crisp".to_vec(),
    });
    config.mounts = vec![
        configs::mount("/usr", "/usr"),
        configs::mount(units.to_str().unwrap(), "/etc/systemd/system"),
    ];
    for mount in &mut config.mounts {
        mount.readonly = true;
    }
    config
}

#[test]
fn privileged_a_systemd_in_a_container_has_no_hand_in_the_nodes_cgroups() {
    if !Path::new(SYSTEMD).is_file() {
        tools::say("SKIPPED: a systemd in a container: this machine has none");
        return;
    }
    let options = Options {
        config: "[runtimes.nested]\ncgroup_namespaces = \"private\"\n".to_owned(),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let mut pod = node.pod("nested");
        configs::pod_security(&mut pod).privileged = true;
        let request = cri::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: "nested".to_owned(),
        };
        let id = cri.run_pod_sandbox(request).unwrap().pod_sandbox_id;
        let before = hierarchies();
        let main = cri.run(&id, &pod, &container(node));
        has_begun();
        eventually("the unit runs", || {
            let reply = cri.execute(&main, &["systemctl", "is-active", UNIT]);
            reply.is_ok_and(|reply| reply.exit_code == 0)
        });
        let told = cri.shell(&main, &format!("systemctl show -p ControlGroup {UNIT}"));
        assert_eq!(told.trim(), format!("ControlGroup=/system.slice/{UNIT}"));
        let of_init = cri.shell(&main, "cat /proc/1/cgroup");
        assert!(of_init.contains(":/init.scope\n"), "{of_init}");
        let ours = format!("{}/system.slice/{UNIT}", path(&main));
        let made = named(UNIT);
        assert!(
            !made.is_empty() && (made.len() == 1 || !is_v2()),
            "{made:?}"
        );
        for cgroup in made {
            assert!(cgroup.ends_with(&ours), "{}", cgroup.display());
        }
        assert_eq!(hierarchies(), before);
        // Each hierarchy that it sees is one of the node's, of which it has its container's part.
        let seen = |text: &str| -> Vec<String> {
            let names = text.lines().filter_map(|line| line.split(':').nth(1));
            names.map(str::to_owned).collect()
        };
        assert_eq!(seen(&of_init), seen(&before));
        cri.remove_pod(&id);
        assert_eq!(named(UNIT), Vec::<PathBuf>::new());
        assert_eq!(hierarchies(), before);
    });
}
