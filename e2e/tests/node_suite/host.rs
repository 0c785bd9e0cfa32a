//! The machine as the suite wants it: what its kubelet reads, runs and writes to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crisp_e2e::netns::{NEIGHBOUR, NODE};
use crisp_e2e::node::{Node, cgroup_driver};
use crisp_e2e::registry::write_hosts;
use crisp_e2e::suite::images::HOST;
use crisp_e2e::tools;
use serde_json::json;

use crate::runtime::Runtime;

/// The suite's program.
pub(crate) const PROGRAM: &str = "e2e_node.test";
/// The suite has its kubelet's files here, whatever it is told.
const KUBELET: &str = "/var/lib/kubelet";

/// Files and mounts that the suite needs; dropped, they go.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    node: &'a Node,
    runtime: &'a Runtime,
    dir: PathBuf,
}

impl<'a> Host<'a> {
    /// Makes it for a runtime of a node, whose network the kubelet joins.
    pub(crate) fn prepare(
        node: &'a Node,
        runtime: &'a Runtime,
        kubernetes: &Path,
        registry: &str,
    ) -> Self {
        let host = Self {
            node,
            runtime,
            dir: node.path("suite"),
        };
        fs::create_dir_all(host.path("bin")).unwrap();
        fs::create_dir_all(host.path("programs")).unwrap();
        // An API server takes the address that the default route leaves from.
        node.net.ip(&format!("route add default via {NEIGHBOUR}"));
        fs::create_dir_all(KUBELET).unwrap();
        drop(tools::run("mount", &["-t", "tmpfs", "kubelet", KUBELET]));
        drop(tools::run("mount", &["--make-shared", KUBELET]));
        write_hosts(&node.certs(), HOST, &[registry]);
        host.write_programs(kubernetes);
        host.write_settings();
        host
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path among its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The suite's program, which has its kubelet beside it.
    pub(crate) fn program(&self) -> PathBuf {
        self.path("bin").join(PROGRAM)
    }

    /// The suite starts its kubelet by systemd, in the machine's network: that one has no other pods. It
    /// calls `sudo`, as root, on machines that may have none.
    fn write_programs(&self, kubernetes: &Path) {
        let kubelet = kubernetes.join("kubelet");
        let (net, kubelet) = (self.node.net.path(), kubelet.display());
        let enter = format!("#!/bin/sh\nexec nsenter --net={net} {kubelet} \"$@\"\n");
        let programs = [
            ("bin/kubelet", enter.as_str()),
            ("programs/sudo", "#!/bin/sh\nexec \"$@\"\n"),
        ];
        for (name, text) in programs {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), Permissions::from_mode(0o755)).unwrap();
        }
        symlink(kubernetes.join(PROGRAM), self.program()).unwrap();
    }

    /// As the suite has them by itself, but for the range of pods, which the daemon has already, and for
    /// what a test machine lacks: swap that is off, iptables, disks with room.
    fn write_settings(&self) {
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": cgroup_driver(),
            "cgroupRoot": "/",
            "volumeStatsAggPeriod": "10s",
            "fileCheckFrequency": "10s",
            "serializeImagePulls": false,
            "evictionPressureTransitionPeriod": "30s",
            "evictionHard": {"memory.available": "10Mi"},
            "failSwapOn": false,
            "makeIPTablesUtilChains": false,
        });
        fs::write(self.path("kubelet.json"), kubelet.to_string()).unwrap();
        // Where a kernel's configuration is to be found differs: the rest of the suite's own look at the
        // machine.
        let system = json!({
            "os": "Linux",
            "kernelSpec": {"versions": [r"^[6-9]\..*$", r"^[1-9][0-9]+\..*$"]},
            "cgroupsV2": ["cpu", "cpuset", "devices", "freezer", "memory", "pids"],
        });
        fs::write(self.path("system.json"), system.to_string()).unwrap();
    }

    /// The suite's words for all of it.
    pub(crate) fn options(&self, report: &Path) -> Vec<String> {
        let runtime = self.runtime;
        let socket = format!("unix://{}", runtime.socket().display());
        let cgroup = runtime.cgroup();
        let path = |name: &str| self.path(name).display().to_string();
        let mut options = [
            format!("--container-runtime-endpoint={socket}"),
            format!("--image-service-endpoint={socket}"),
            format!("--kubelet-config-file={}", path("kubelet.json")),
            format!("--system-spec-file={}", path("system.json")),
            format!("--report-dir={}", report.display()),
            // With its address it asks nobody for that: there is no server of names, and it would wait.
            format!("--kubelet-flags=--runtime-cgroups={cgroup} --node-ip={NODE}"),
            format!("--container-runtime-process-name={}", runtime.name()),
            "--container-runtime-pid-file=".to_owned(),
            "--node-name=node".to_owned(),
            "--prepull-images=false".to_owned(),
            "--server-start-timeout=600s".to_owned(),
        ]
        .to_vec();
        options.extend(
            runtime
                .gates()
                .map(|gates| format!("--feature-gates={gates}")),
        );
        options
    }
}

impl Drop for Host<'_> {
    /// The kubelet has ended with the suite: what its pods left goes with them.
    fn drop(&mut self) {
        let calls: [&[&str]; 2] = [
            &["systemctl", "stop", "kubepods.slice"],
            &["umount", "--recursive", KUBELET],
        ];
        drop(self.runtime.crictl().output(&["rmp", "--force", "--all"]));
        for call in calls {
            drop(Command::new(call[0]).args(&call[1..]).output());
        }
        self.node
            .net
            .ip(&format!("route del default via {NEIGHBOUR}"));
    }
}
