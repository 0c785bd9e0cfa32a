//! Networks by configuration files: Debian's plugins, ours among them, and plugins that fail.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::netns::NODE;
use crisp_e2e::{Cri, Network, Node, Options, configs, eventually, owners, still, trial_with};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options {
        network: Network::Cni,
        config: "timeout_seconds = 2\n".to_owned(),
        ..Default::default()
    }
}

/// A bridge of Debian's plugin with addresses from a directory of the node's own.
fn bridge(node: &Path) -> Value {
    json!({
        "type": "bridge", "bridge": "br-test", "isGateway": true, "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": node.join("addresses"),
            "ranges": [[{"subnet": "10.99.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })
}

/// The bridge, and another plugin that opens the node's ports.
fn chain(node: &Path, mapper: &str) -> Value {
    let mapper = json!({"type": mapper, "capabilities": {"portMappings": true}});
    json!([bridge(node), mapper])
}

/// Puts a plugin where plugins are looked for whose ADD is a shell line. It has nothing to delete.
fn script(node: &Node, name: &str, add: &str) {
    let path = node.path("bin").join(name);
    let text = format!("#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] && exit 0\n{add}\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The condition NetworkReady, as status and message.
fn ready(cri: &mut Cri) -> (bool, String) {
    let status = cri
        .status(cri::StatusRequest::default())
        .unwrap()
        .status
        .unwrap();
    let network = status
        .conditions
        .into_iter()
        .find(|c| c.r#type == "NetworkReady");
    let network = network.unwrap();
    (
        network.status,
        format!("{} {}", network.reason, network.message),
    )
}

fn wait_ready(cri: &mut Cri, wanted: bool) {
    let deadline = Instant::now() + PATIENCE;
    while ready(cri).0 != wanted {
        assert!(Instant::now() < deadline, "{:?}", ready(cri));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn addresses_in_use(node: &Node) -> usize {
    let dir = fs::read_dir(node.path("addresses/test")).unwrap();
    let names = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("10.")).count()
}

#[test]
fn privileged_no_configuration_is_no_network_until_one_comes() {
    trial_with(&options(), |node| {
        let mut cri = node.cri();
        let (is_ready, text) = ready(&mut cri);
        assert!(
            !is_ready && text.contains("NetworkPluginNotReady"),
            "{text}"
        );
        let pod = node.pod("early");
        let error = cri.try_run_pod(&pod).unwrap_err();
        assert!(error.message().contains("network"), "{error:?}");
        assert!(cri.pod_ids().is_empty());
        // A pod on the node's own network needs none.
        let id = cri.run_pod(&configs::host_network("host"));
        cri.remove_pod(&id);

        fs::write(node.cni_dir().join("00-broken.conflist"), "{").unwrap();
        let time = Duration::from_millis(200);
        still("a broken one does not count", time, || !ready(&mut cri).0);
        node.write_plugins("10-test.conflist", &json!([bridge(&node.path(""))]));
        wait_ready(&mut cri, true);
        let id = cri.run_pod(&pod);
        assert!(cri.address(&id).starts_with("10.99.0."));

        // It works without the configuration too: what was done is on record.
        fs::remove_file(node.cni_dir().join("10-test.conflist")).unwrap();
        wait_ready(&mut cri, false);
        assert_eq!(addresses_in_use(node), 1);
        cri.remove_pod(&id);
        assert_eq!(addresses_in_use(node), 0);
        // This plugin leaves its state for good.
        node.net.ip("link del br-test");
    });
}

#[test]
fn privileged_plugins_of_debian_with_ours_among_them() {
    let chains: [fn(&Path) -> Value; 2] =
        [|node| chain(node, "portmap"), |node| chain(node, "crisp")];
    for plugins in chains {
        let options = Options {
            plugins: Some(plugins),
            ..options()
        };
        trial_with(&options, |node| {
            let mut cri = node.cri();
            wait_ready(&mut cri, true);
            let mut pod = node.pod("mapped");
            pod.port_mappings = vec![configs::port(cri::Protocol::Tcp, 8080, 7000)];
            let id = cri.run_pod(&pod);
            let line = "while :; do echo served | nc -l -p 7000 -w 5; done";
            let container = cri.run(&id, &pod, &configs::shell("main", line));
            let inside = cri.shell(&container, "ip -4 addr show eth0");
            assert!(inside.contains(&cri.address(&id)), "{inside}");
            let deadline = Instant::now() + PATIENCE;
            while fetch(node).as_deref() != Some("served\n") {
                assert!(Instant::now() < deadline, "{:?}", fetch(node));
            }
            cri.remove_pod(&id);
            assert_eq!(addresses_in_use(node), 0);
        });
    }
}

/// The answer of the node's port to the neighbour.
fn fetch(node: &Node) -> Option<String> {
    use std::io::Read as _;
    node.neighbour.run(|| {
        let address = format!("{NODE}:8080").parse().unwrap();
        let patience = Duration::from_millis(500);
        let mut stream = std::net::TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        let mut buffer = [0; 64];
        let length = stream.read(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

#[test]
fn privileged_plugins_that_fail_or_hang_are_named() {
    trial_with(&options(), |node| {
        let refusal = r#"{"cniVersion": "0.4.0", "code": 11, "msg": "the cable is cut"}"#;
        script(node, "failing", &format!("echo '{refusal}'; exit 1"));
        // The plugin hangs, its child holds the output open, and both ignore all signals they can.
        script(
            node,
            "hanging",
            "trap '' TERM INT; sleep 4711 & wait; sleep 4711",
        );
        script(node, "babbling", "echo this is no JSON");
        let mut cri = node.cri();
        for (plugin, cause) in [
            ("failing", "the cable is cut"),
            ("hanging", "hanging"),
            ("babbling", "babbling"),
            ("not-there", "not-there"),
        ] {
            node.write_plugins("10-test.conflist", &json!([{"type": plugin}]));
            let deadline = Instant::now() + PATIENCE;
            loop {
                let begun = Instant::now();
                let error = cri.try_run_pod(&node.pod(plugin)).unwrap_err();
                assert!(
                    begun.elapsed() < Duration::from_secs(15),
                    "{plugin}: {error:?}"
                );
                let text = error.message();
                if text.contains(plugin) && text.contains(cause) {
                    break;
                }
                // The watcher may not have seen the new file yet.
                assert!(Instant::now() < deadline, "{plugin}: {error:?}");
            }
            let left = std::process::Command::new("pgrep")
                .args(["-f", "sleep 4711"])
                .output();
            assert_eq!(
                left.unwrap().stdout,
                b"",
                "{plugin} was killed with its children"
            );
        }
        fs::remove_file(node.cni_dir().join("10-test.conflist")).unwrap();
        // Remains of a plugin that was missing are removed once it is there.
        script(node, "not-there", "exit 1");
        node.crictl().ok(&["rmp", "-fa"]);
    });
}

#[test]
fn privileged_a_plugin_does_not_outlive_the_daemon_that_is_killed() {
    let options = Options {
        config: "timeout_seconds = 60\n".to_owned(),
        ..options()
    };
    trial_with(&options, |node| {
        let begun = node.path("begun");
        let line = format!("touch {}; sleep 4712 & wait", begun.display());
        script(node, "late", &line);
        node.write_plugins("10-test.conflist", &json!([{"type": "late"}]));
        let (mut cri, pod) = (node.cri(), node.pod("late"));
        wait_ready(&mut cri, true);
        let call = std::thread::spawn(move || cri.try_run_pod(&pod));
        eventually("the plugin runs", || begun.exists());
        node.kill();
        call.join().unwrap().unwrap_err();
        node.restart();
        eventually("plugin and child are ended", || !owners::runs("sleep 4712"));
        fs::remove_file(node.cni_dir().join("10-test.conflist")).unwrap();
    });
}

#[test]
fn privileged_a_lost_network_record_leaves_a_running_pod_its_network() {
    trial_with(&Options::default(), |node| {
        let mut cri = node.cri();
        let pod = node.pod("lost");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        let address = cri.address(&id);
        node.kill();
        fs::remove_file(node.root().join(format!("cni/results/{id}.json"))).unwrap();
        node.restart();
        let mut cri = node.cri();
        let time = Duration::from_millis(500);
        still("the pod has its address", time, || {
            let inside = cri.shell(&container, "ip -4 addr show eth0");
            inside.contains(&address)
        });
        cri.remove_pod(&id);
    });
}

/// A plugin that is Debian's bridge, and whose DEL fails until there is a file `calm`.
fn fickle(node: &Node) {
    let calm = node.path("calm");
    let path = node.path("bin/fickle");
    let text = format!(
        "#!/bin/sh\n[ $CNI_COMMAND != DEL ] || [ -e {} ] || exit 1\nexec /usr/lib/cni/bridge\n",
        calm.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The pods that plugins have not deleted, as the verbose status tells.
fn owed_detachments(cri: &mut Cri) -> Vec<Value> {
    let status = cri.status(cri::StatusRequest { verbose: true }).unwrap();
    serde_json::from_str(&status.info["owedDetachments"]).unwrap()
}

#[test]
fn privileged_a_plugin_that_cannot_delete_keeps_no_pod_from_going() {
    trial_with(&options(), |node| {
        fickle(node);
        let mut conf = bridge(&node.path(""));
        conf["type"] = json!("fickle");
        node.write_plugins("10-test.conflist", &json!([conf]));
        let mut cri = node.cri();
        wait_ready(&mut cri, true);
        let pod = node.pod("stays");
        let id = cri.run_pod(&pod);
        cri.run(&id, &pod, &configs::idle("main"));
        let pod_sandbox_id = id.clone();
        cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
            .unwrap();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.clone(),
            verbose: false,
        };
        let state = cri
            .pod_sandbox_status(request)
            .unwrap()
            .status
            .unwrap()
            .state;
        assert_eq!(state, cri::PodSandboxState::SandboxNotready as i32);
        let owed = owed_detachments(&mut cri);
        assert_eq!((owed.len(), &owed[0]["pod"]), (1, &json!(id)), "{owed:?}");
        cri.remove_pod(&id);
        assert!(cri.pod_ids().is_empty());
        assert_eq!(addresses_in_use(node), 1, "it is owed, and not forgotten");

        // The program is gone, and the configuration, and the daemon that attached the pod.
        fs::remove_file(node.path("bin/fickle")).unwrap();
        fs::remove_file(node.cni_dir().join("10-test.conflist")).unwrap();
        node.kill();
        node.restart();
        let mut cri = node.cri();
        eventually("the next daemon tells of it", || {
            let owed = owed_detachments(&mut cri);
            owed.iter().any(|owed| {
                owed["why"]
                    .as_str()
                    .unwrap()
                    .contains("failed to find plugin")
            })
        });
        fs::write(node.path("calm"), "").unwrap();
        fickle(node);
        eventually("the address is given back", || addresses_in_use(node) == 0);
        eventually("nothing is owed", || owed_detachments(&mut cri).is_empty());
        node.net.ip("link del br-test");
    });
}

#[test]
fn privileged_boots_that_fail_and_cannot_be_undone_are_one_line_of_debts() {
    trial_with(&options(), |node| {
        let calm = node.path("calm");
        script(node, "broken", "exit 1");
        let path = node.path("bin/broken");
        let text = format!(
            "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] && [ -e {} ]\n",
            calm.display()
        );
        fs::write(&path, text).unwrap();
        node.write_plugins("10-test.conflist", &json!([{"type": "broken"}]));
        let mut cri = node.cri();
        wait_ready(&mut cri, true);
        let files = || {
            fs::read_dir(format!("/proc/{}/fd", node.pid()))
                .unwrap()
                .count()
        };
        let before = files();
        for number in 0..12 {
            cri.try_run_pod(&node.pod(&format!("broken-{number}")))
                .unwrap_err();
        }
        eventually("each is owed", || owed_detachments(&mut cri).len() == 12);
        eventually("and holds no file", || files() < before + 6);
        let warned = node.log().matches("a DEL failed").count();
        assert_eq!(warned, 1, "{}", node.log());
        fs::write(&calm, "").unwrap();
        eventually("nothing is owed", || owed_detachments(&mut cri).is_empty());
        fs::remove_file(node.cni_dir().join("10-test.conflist")).unwrap();
    });
}

#[test]
fn privileged_a_pod_that_boots_is_not_listed() {
    trial_with(&options(), |node| {
        let gate = node.path("gate");
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
        let answer =
            r#"{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.99.0.9/24"}]}"#;
        script(node, "waits", &format!("{wait}; echo '{answer}'"));
        node.write_plugins("10-test.conflist", &json!([{"type": "waits"}]));
        let mut cri = node.cri();
        wait_ready(&mut cri, true);
        let (mut other, pod) = (node.cri(), node.pod("slow"));
        let booting = std::thread::spawn(move || other.run_pod(&pod));
        let time = Duration::from_millis(500);
        still("it is not listed", time, || cri.pod_ids().is_empty());
        assert!(!booting.is_finished(), "the plugin did not wait");
        fs::write(&gate, "").unwrap();
        let id = booting.join().unwrap();
        assert_eq!(cri.pod_ids(), [id.as_str()]);
        cri.remove_pod(&id);
    });
}
