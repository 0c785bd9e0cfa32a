//! Records that a power cut or another version left: their pods go all the same.

use std::collections::BTreeSet;

use super::lab::{Lab, eventually, open, port};
use super::owed::until_paid;
use super::plugin_programs::{lab_with_a_good_plugin, list, log, open_ready, verbs};
use crate::PodNetwork;

const DAMAGED: [&str; 4] = [
    "",
    "{\"format\": 1, \"pod\"",
    "{\"format\": 99}",
    "\0\0\0\0",
];

fn results(lab: &Lab) -> BTreeSet<String> {
    let dir = std::fs::read_dir(lab.path().join("cache/results")).unwrap();
    dir.map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn spoil(lab: &Lab, pod: &PodNetwork, text: &str) {
    let path = lab
        .path()
        .join(format!("cache/results/{}.json", pod.pod_id));
    crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
}

#[test]
fn privileged_a_pod_with_a_damaged_record_leaves_the_builtin_network() {
    for (number, text) in DAMAGED.into_iter().enumerate() {
        let lab = Lab::new();
        let (mut asked, found) = (lab.pod("asked"), lab.pod("found"));
        asked.port_mappings = vec![port(crisp_model::Protocol::Tcp, 8080, 80)];
        lab.on_node(|| async {
            let network = open(lab.builtin());
            network.attach(&asked).await.unwrap();
            network.attach(&found).await.unwrap();
            spoil(&lab, &asked, text);
            spoil(&lab, &found, text);
            network.detach(&asked).await.unwrap();
            network.detach(&asked).await.unwrap();
            lab.unpin("asked");
            drop(network);
            // The next daemon finds the other record.
            let network = open(lab.builtin());
            lab.unpin("found");
            network.collect(&BTreeSet::new()).await.unwrap();
        });
        let addresses = lab.path().join("cache/crisp/crisp0/addresses");
        eventually("addresses freed", || {
            std::fs::read_dir(&addresses).unwrap().count() == 0
        });
        let kept = |pod: &PodNetwork| format!("{}.json.damaged", pod.pod_id);
        let want = BTreeSet::from([kept(&asked), kept(&found)]);
        assert_eq!(results(&lab), want, "case {number}");
    }
}

#[test]
fn privileged_a_damaged_record_means_del_by_the_list_in_force() {
    let (lab, pod) = lab_with_a_good_plugin();
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        network.attach(&pod).await.unwrap();
        spoil(&lab, &pod, "");
        assert_eq!(lab.recorded(&pod.pod_id), None);
        network.check(&pod.pod_id).await.unwrap_err();
        network.attach(&pod).await.expect("the kubelet tries again");
        spoil(&lab, &pod, "");
        network.detach(&pod).await.unwrap();
        network.attach(&pod).await.unwrap();
        spoil(&lab, &pod, "");
        std::fs::remove_dir_all(lab.path().join("net.d")).unwrap();
        eventually("the list is gone", || !network.status().ready);
        network.detach(&pod).await.expect_err("nobody to call");
        list(&lab, "1.0.0", r#"{"type": "good"}"#);
        until_paid(&network).await;
    });
    let log = log(&lab);
    assert_eq!(verbs(&log), ["ADD", "DEL", "ADD", "DEL", "ADD", "DEL"]);
    let named = log.lines().filter(|l| l.contains("K8S_POD_NAME=a;"));
    assert_eq!(named.count(), 6, "{log}");
}
