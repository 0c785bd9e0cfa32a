//! A node as kubeadm makes them moves from containerd to Crisp and back, by the commands of `docs/migrate.md`:
//! systemd runs it and makes its cgroups, containerd and crispd are units with sockets of their own, and it
//! boots once. Static pods and those of DaemonSets stay when it is drained.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crisp_e2e::cluster::{Cluster, kubernetes};
use crisp_e2e::containerd_node::{self, PROGRAMS, Settings, dir_of, plugins};
use crisp_e2e::moving::{self, Moving, Runtime};
use crisp_e2e::tools;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::page::{self, WITH_OTHER_ENDPOINT};

/// The files of such a node that are the same for each.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mixed/kubeadm");
/// The unit that the README has people install.
const CRISPD: &str = include_str!("../../../hack/crispd.service");
/// All that its crispd is told: containerd's `SystemdCgroup = true`, as the page has it.
const CONFIG: &str = "[cgroup]\ndriver = \"systemd\"\n";
/// Kinds of things that pods have with either runtime.
const KINDS: [&str; 5] = ["cgroup", "network", "address", "link", "shim"];

/// The node.
pub struct Kubeadm<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    machine: Machine,
}

impl<'a> Kubeadm<'a> {
    /// Boots it in the place of a node that is stopped. Its programs are not started yet.
    pub fn boot(cluster: &'a Cluster, name: &'a str, boot: Command) -> Self {
        write_files(&dir_of(cluster, name));
        Self {
            cluster,
            name,
            machine: Machine::in_place_of(cluster, name, boot),
        }
    }

    /// Does what the page has people type: on the node, or where kubectl works.
    fn type_in(&self, line: &str) {
        eprintln!("# {line}");
        let said = match line.contains("kubectl ") {
            true => self.administrator(line),
            false => self.machine.run(line),
        };
        eprint!("{said}");
    }

    fn administrator(&self, line: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", kubernetes().unwrap().display());
        let mut shell = Command::new("timeout");
        shell.args(["600", "sh", "-c", line]);
        shell
            .env("PATH", path)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("KUBECACHEDIR", self.cluster.file("kubectl"))
            .stdin(Stdio::null());
        let output = self.cluster.net.run(|| shell.output().unwrap());
        tools::succeeded(line, &output)
    }

    /// The step that the page tells in words.
    fn give_endpoint(&self, to: Runtime) {
        let file = "/var/lib/kubelet/config.yaml";
        let (from, to) = match to {
            Runtime::Crisp => (socket(Runtime::Containerd), socket(Runtime::Crisp)),
            Runtime::Containerd => (socket(Runtime::Crisp), socket(Runtime::Containerd)),
        };
        self.machine.run(&format!(
            "sed -i 's|{from}|{to}|' {file}; grep -q '{to}' {file}"
        ));
    }

    fn things_of_pods(&self) -> String {
        self.machine.run("things_of_pods; true")
    }

    /// The pods of the node, but for those that end.
    fn pods(&self) -> Vec<Value> {
        let chosen = format!("spec.nodeName={}", self.name);
        let mut pods = self
            .cluster
            .get(&["pods", "-A", "--field-selector", &chosen]);
        let pods = pods["items"].as_array_mut().unwrap();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        std::mem::take(pods)
    }

    /// The pods that a drain leaves run with a runtime, from images that were there, and nothing is left of those
    /// that ran before.
    fn has_pods_with(&self, runtime: Runtime) {
        let is_on = |pod: &Value| {
            let status = &pod["status"]["containerStatuses"][0];
            let id = status["containerID"].as_str();
            status["ready"] == true && id.is_some_and(|id| id.starts_with(runtime.scheme()))
        };
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
        let still = format!("still-{}", self.name);
        self.cluster.until("pods that stay are ready", |_| {
            let pods = self.pods();
            let on: Vec<String> = pods.iter().filter(|pod| is_on(pod)).map(name).collect();
            on.contains(&still) && on.iter().any(|name| name.starts_with("each-"))
        });
        self.cluster.until("all others have gone", |_| {
            let count = |what: &str| self.machine.run(what).lines().count();
            let pods = self.pods().len();
            (count("slices"), count("addresses")) == (pods, pods)
        });
        let pulls = ["get", "events", "-A", "-o", "name", "--field-selector"];
        let pulls = self
            .cluster
            .kubectl(&[&pulls[..], &["reason=Pulling"]].concat());
        assert_eq!(pulls, "", "a registry was asked");
    }
}

impl Moving for Kubeadm<'_> {
    fn begin(&self) {
        let programs = PROGRAMS.map(|program| tools::tool(program).display().to_string());
        let ours = ["crisp", "crispd"].map(|program| format!("/opt/crisp/{program}"));
        let programs = [&programs[..], &ours].concat().join(" ");
        self.machine
            .run(&format!(". {OWN}/node.sh && become_node {programs}"));
        for archive in moving::ARCHIVES {
            self.machine.run(&format!(
                "ctr --namespace k8s.io images import /node/{archive}"
            ));
        }
        self.machine.run("crispd config check");
        self.machine.run("systemctl enable --now kubelet");
        self.cluster.apply("../mixed/kubeadm/each.yaml");
        self.has_pods_with(Runtime::Containerd);
    }

    fn change(&self, to: Runtime) {
        let things = self.things_of_pods();
        eprint!("{things}");
        for kind in KINDS {
            let mut kinds = things.lines().filter_map(|line| line.split(' ').next());
            assert!(kinds.any(|there| there == kind), "no {kind}: {things}");
        }
        for line in page::commands(to, self.name) {
            if line == WITH_OTHER_ENDPOINT {
                self.give_endpoint(to);
            }
            self.type_in(&line);
            if line.starts_with("systemctl disable --now") {
                assert_eq!(self.things_of_pods(), "", "left after `{line}`");
            }
        }
        moving::until_ready(self.cluster, self.name, to);
        self.has_pods_with(to);
    }

    fn page(&self, url: &str) -> String {
        self.machine.page(url)
    }
}

/// The place where a runtime answers.
fn socket(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Containerd => "unix:///run/containerd/containerd.sock",
        Runtime::Crisp => "unix:///run/crisp/crisp.sock",
    }
}

/// Writes what the node has in `/etc` and `/var/lib` into its directory.
fn write_files(dir: &Path) {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
    };
    let units = [
        "containerd.service",
        "kubelet.service",
        "kube-proxy.service",
    ];
    for unit in units {
        let text = fs::read_to_string(Path::new(OWN).join(unit)).unwrap();
        write(&format!("etc/systemd/system/{unit}"), &text);
    }
    write("etc/systemd/system/crispd.service", CRISPD);
    let log = "[Service]\nStandardError=append:/var/log/crispd.log\n";
    write("etc/systemd/system/crispd.service.d/log.conf", log);
    write("etc/crisp/config.toml", CONFIG);
    write("etc/containerd/config.toml", &containerd().text());
    let mut range = read("net.d/10-crisp.conflist");
    let range = range["plugins"][0]["subnets"][0].take();
    let network = plugins(&range, "/var/lib/cni/networks");
    write("etc/cni/net.d/10-pods.conflist", &network.to_string());
    let still = fs::read_to_string(Path::new(OWN).join("still.yaml")).unwrap();
    write("etc/kubernetes/manifests/still.yaml", &still);
    // The kubelet that the node had as a container keeps a state that is none of this one's.
    fs::remove_dir_all(dir.join("var/kubelet")).unwrap();
    let mut kubelet = read("kubelet.json");
    kubelet["containerRuntimeEndpoint"] = json!(socket(Runtime::Containerd));
    kubelet["cgroupDriver"] = json!("systemd");
    kubelet["staticPodPath"] = json!("/etc/kubernetes/manifests");
    write("var/kubelet/config.yaml", &kubelet.to_string());
    let flags = flags(&read("init.json")).join(" ");
    let line = format!("KUBELET_KUBEADM_ARGS=\"{flags}\"\n");
    write("var/kubelet/kubeadm-flags.env", &line);
}

/// The words of a node's kubelet, but for its configuration.
fn flags(init: &Value) -> Vec<String> {
    let programs = init["programs"].as_array().unwrap();
    let kubelet = programs.iter().find(|it| it["name"] == "kubelet").unwrap();
    let words = kubelet["command"].as_array().unwrap().iter().skip(1);
    let words = words.map(|word| word.as_str().unwrap().to_owned());
    words
        .filter(|word| !word.starts_with("--config="))
        .collect()
}

/// A containerd at its usual places, with the cgroup driver that kubeadm wants.
fn containerd() -> Settings<'static> {
    Settings {
        root: "/var/lib/containerd",
        state: "/run/containerd",
        socket: "/run/containerd/containerd.sock",
        certs: "/etc/containerd/certs.d",
        networks: "/etc/cni/net.d",
        runc: "/usr/local/bin/runc",
        machine: containerd_node::Machine::Systemd,
        pause: moving::PAUSE,
        handlers: &[],
    }
}
