//! Chains of programs: Debian's reference plugins, and small scripts that misbehave.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::lab::{Lab, eventually, open};
use crate::{Error, Network, PodNetwork};

const REFERENCE: &str = "/usr/lib/cni";

pub(super) fn put(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
    path
}

/// A plugin that appends what it is told to a log, then runs a script.
pub(super) fn script(lab: &Lab, name: &str, body: &str) {
    let log = lab.path().join("log").display().to_string();
    let text = format!(
        "#!/bin/sh\nconf=$(cat)\necho \"{name} $CNI_COMMAND ns=$CNI_NETNS $CNI_ARGS $conf\" >> {log}\n{body}\n"
    );
    let path = put(lab, &format!("bin/{name}"), &text);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

pub(super) fn log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.path().join("log")).unwrap_or_default()
}

pub(super) fn list(lab: &Lab, version: &str, plugins: &str) {
    let text = format!(r#"{{"cniVersion": "{version}", "name": "net", "plugins": [{plugins}]}}"#);
    put(lab, "net.d/10-net.conflist", &text);
}

pub(super) async fn wait_ready(network: &Network) {
    for _ in 0..250 {
        if network.status().ready {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never ready: {:?}", network.status());
}

/// A lab whose one plugin attaches every pod, and a pod.
pub(super) fn lab_with_a_good_plugin() -> (Lab, PodNetwork) {
    let lab = Lab::new();
    script(&lab, "good", RESULT);
    list(&lab, "1.0.0", r#"{"type": "good"}"#);
    let pod = lab.pod("a");
    (lab, pod)
}

/// The network by a lab's configuration, once it is ready.
pub(super) async fn open_ready(lab: &Lab) -> Network {
    let network = open(lab.conf());
    wait_ready(&network).await;
    network
}

/// The verbs of all calls, in order.
pub(super) fn verbs(log: &str) -> Vec<&str> {
    log.lines().filter_map(|l| l.split(' ').nth(1)).collect()
}

pub(super) const RESULT: &str = r#"if [ $CNI_COMMAND = ADD ]; then
echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "x"}], "ips": [{"address": "10.1.0.5/24", "interface": 0}]}'
fi"#;

#[test]
fn privileged_reference_plugins_make_a_network() {
    if !PathBuf::from(REFERENCE).join("bridge").exists() {
        return;
    }
    let lab = Lab::new();
    let ipam = format!(
        r#"{{"type": "host-local", "dataDir": "{}/ipam", "ranges": [[{{"subnet": "10.77.0.0/24"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}"#,
        lab.path().display()
    );
    let plugins = format!(
        r#"{{"type": "bridge", "bridge": "br0", "isGateway": true, "hairpinMode": true, "ipam": {ipam}}},
           {{"type": "crisp", "bridge": "br0", "subnets": ["10.77.0.0/24"], "capabilities": {{"portMappings": true}}}},
           {{"type": "bandwidth", "capabilities": {{"bandwidth": true}}}},
           {{"type": "tuning", "sysctl": {{"net.core.somaxconn": "500"}}}}"#
    );
    list(&lab, "1.0.0", &plugins);
    let (mut a, b) = (lab.pod("a"), lab.pod("b"));
    a.port_mappings = vec![super::lab::port(crisp_model::Protocol::Tcp, 8080, 80)];
    a.annotations
        .insert("kubernetes.io/egress-bandwidth".into(), "100M".into());
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        let first = network.attach(&a).await.unwrap();
        network.check(&a.pod_id).await.unwrap();
        network.attach(&b).await.unwrap();
        lab.serve("a", 80);
        let address = first.ips[0].to_string();
        assert!(
            lab.tcp("b", (&address, 80))
                .unwrap()
                .starts_with("10.77.0.")
        );
        for from in ["outside", "node", "b", "a"] {
            lab.tcp(from, (super::lab::NODE_V4, 8080)).expect(from);
        }
        lab.tcp("node", ("127.0.0.1", 8080)).unwrap();
        // DEL works without the configuration and without the namespace.
        std::fs::remove_dir_all(lab.path().join("net.d")).unwrap();
        lab.unpin("b");
        network.detach(&a).await.unwrap();
        network.detach(&b).await.unwrap();
        lab.tcp("outside", (super::lab::NODE_V4, 8080)).unwrap_err();
    });
    lab.unpin("a");
    let held = std::fs::read_dir(lab.path().join("ipam/net")).unwrap();
    let held: Vec<_> = held.flatten().map(|e| e.file_name()).collect();
    assert!(
        !held.iter().any(|n| n.to_string_lossy().starts_with("10.")),
        "{held:?}"
    );
}

#[test]
fn privileged_a_crisp_plugin_feeds_the_next() {
    let lab = Lab::new();
    script(
        &lab,
        "last",
        "if [ $CNI_COMMAND = ADD ]; then echo \"$conf\" | sed 's/.*\"prevResult\"://; s/}$//' | sed 's/}$//' > /dev/null; echo '{\"ip4\": {\"ip\": \"10.1.0.9/24\"}}' | sed 's/{/{\"cniVersion\": \"0.2.0\", /'; fi",
    );
    list(&lab, "1.0.0", r#"{"type": "crisp"}, {"type": "last"}"#);
    let pod = lab.pod("a");
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        let attachment = network.attach(&pod).await.unwrap();
        assert_eq!(attachment.ips[0].to_string(), "10.1.0.9");
        network.detach(&pod).await.unwrap();
    });
    let log = log(&lab);
    assert!(
        log.contains("prevResult") && log.contains("10.88."),
        "{log}"
    );
    assert!(
        log.contains("K8S_POD_NAME=a;") && log.contains("K8S_POD_UID=u-1"),
        "{log}"
    );
}

#[test]
fn privileged_failures_name_plugin_network_and_pod_and_are_undone() {
    let lab = Lab::new();
    script(&lab, "good", RESULT);
    script(
        &lab,
        "bad",
        "echo noise >&2; if [ $CNI_COMMAND = ADD ]; then echo '{\"code\": 11, \"msg\": \"no luck\", \"details\": \"at all\"}'; exit 1; fi",
    );
    list(&lab, "1.0.0", r#"{"type": "good"}, {"type": "bad"}"#);
    let pod = lab.pod("a");
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        let error = network.attach(&pod).await.unwrap_err();
        assert!(matches!(error, Error::Plugin { code: 11, .. }), "{error:?}");
        let text = error.to_string();
        for word in [
            "bad",
            "\"net\"",
            "ADD",
            "default/a",
            "no luck: at all",
            "noise",
        ] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert_eq!(lab.recorded(&pod.pod_id), None);
    });
    let verbs: Vec<String> = log(&lab)
        .lines()
        .map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(verbs, ["good ADD", "bad ADD", "bad DEL", "good DEL"]);
}

#[test]
fn privileged_a_hung_plugin_is_killed_and_named() {
    let lab = Lab::new();
    script(&lab, "slow", "if [ $CNI_COMMAND = ADD ]; then sleep 60; fi");
    list(&lab, "1.0.0", r#"{"type": "slow"}"#);
    let pod = lab.pod("a");
    let mut config = lab.conf();
    config.timeout = Duration::from_millis(500);
    let error = lab.on_node(|| async {
        let network = open(config);
        wait_ready(&network).await;
        network.attach(&pod).await.unwrap_err()
    });
    assert!(matches!(error, Error::Hung { .. }), "{error:?}");
    assert!(error.to_string().contains("slow"), "{error}");
}

#[test]
fn privileged_a_failed_del_is_kept_and_tried_again() {
    let lab = Lab::new();
    script(
        &lab,
        "moody",
        &format!(
            "{RESULT}\n[ $CNI_COMMAND != DEL ] || [ -e {}/calm ]",
            lab.path().display()
        ),
    );
    list(&lab, "1.0.0", r#"{"type": "moody"}"#);
    let pod = lab.pod("a");
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        network.attach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap_err();
        assert!(lab.recorded(&pod.pod_id).is_some());
        put(&lab, "calm", "");
        lab.unpin("a");
        network.collect(&BTreeSet::new()).await.unwrap();
        assert_eq!(lab.recorded(&pod.pod_id), None);
    });
    assert!(
        log(&lab).lines().last().unwrap().contains("moody DEL ns= "),
        "{}",
        log(&lab)
    );
}

#[test]
fn privileged_readiness_follows_the_directory_and_the_plugins() {
    let lab = Lab::new();
    let flag = lab.path().join("up");
    let body = format!(
        "{RESULT}\nif [ $CNI_COMMAND = STATUS ] && [ ! -e {} ]; then echo '{{\"code\": 50, \"msg\": \"still starting\"}}'; exit 1; fi",
        flag.display()
    );
    script(&lab, "p", &body);
    lab.on_node(|| async {
        let network = open(lab.conf());
        let status = network.status();
        assert!(!status.ready && status.reason == "NetworkPluginNotReady");
        assert!(
            status.message.contains("cni config uninitialized"),
            "{}",
            status.message
        );
        put(&lab, "net.d/05-broken.conf", "{");
        eventually("broken file told", || {
            network.status().message.contains("05-broken.conf")
        });
        list(&lab, "1.1.0", r#"{"type": "p"}"#);
        eventually("plugin's word told", || {
            network.status().message.contains("still starting")
        });
        put(&lab, "up", "");
        wait_ready(&network).await;
        network.collect(&BTreeSet::new()).await.unwrap();
        std::fs::remove_file(lab.path().join("net.d/10-net.conflist")).unwrap();
        eventually("not ready again", || !network.status().ready);
        list(&lab, "1.0.0", r#"{"type": "absent"}"#);
        eventually("missing program told", || {
            network.status().message.contains("failed to find plugin")
        });
    });
    assert!(
        log(&lab).contains("cni.dev/valid-attachments"),
        "{}",
        log(&lab)
    );
}
