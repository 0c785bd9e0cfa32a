//! A daemon after another one that was killed: what that one left running and what it left lost.

use std::collections::BTreeSet;

use super::lab::{Lab, eventually, open, port};
use super::plugin_programs::{
    lab_with_a_good_plugin, list, log, open_ready, script, verbs, wait_ready,
};
use crate::PodNetwork;

fn lose_record(lab: &Lab, pod: &PodNetwork) {
    let name = format!("cache/results/{}.json", pod.pod_id);
    std::fs::remove_file(lab.path().join(name)).unwrap();
}

#[test]
fn privileged_a_lost_record_leaves_a_live_pod_its_network() {
    let lab = Lab::new();
    let mut pod = lab.pod("a");
    pod.port_mappings = vec![port(crisp_model::Protocol::Tcp, 8080, 80)];
    lab.serve("a", 80);
    lab.on_node(|| async {
        open(lab.builtin()).attach(&pod).await.unwrap();
        lose_record(&lab, &pod);
        let network = open(lab.builtin());
        let live = BTreeSet::from([pod.pod_id.clone()]);
        network.take_over(&live).await.unwrap();
        network.collect(&live).await.unwrap();
        lab.tcp("outside", (super::lab::NODE_V4, 8080)).unwrap();
        assert_eq!(lab.links("node").len(), 3, "world0, bridge, the pod");
        network.detach(&pod).await.unwrap();
        lab.unpin("a");
        eventually("addresses freed", || lab.addresses_on_disk() == 0);
        lab.tcp("outside", (super::lab::NODE_V4, 8080)).unwrap_err();
    });
}

#[test]
fn privileged_a_pod_with_a_lost_record_is_detached_by_the_list_in_force() {
    let (lab, pod) = lab_with_a_good_plugin();
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        network.attach(&pod).await.unwrap();
        lose_record(&lab, &pod);
        let network = open_ready(&lab).await;
        let live = BTreeSet::from([pod.pod_id.clone()]);
        network.take_over(&live).await.unwrap();
        network.detach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap();
    });
    let log = log(&lab);
    assert_eq!(verbs(&log), ["ADD", "DEL"]);
}

#[test]
fn privileged_a_plugin_of_an_earlier_daemon_is_ended_with_its_children() {
    let lab = Lab::new();
    let late = lab.path().join("late");
    // The child would go on for long after its parent; while it lives it reads the pipe.
    let fifo = lab.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let body = format!(
        "[ $CNI_COMMAND = ADD ] || exit 0\n(exec 3<>{fifo}; sleep 60; echo late > {late}) &\nwait",
        fifo = fifo.display(),
        late = late.display()
    );
    script(&lab, "slow", &body);
    list(&lab, "1.0.0", r#"{"type": "slow"}"#);
    let pod = lab.pod("a");
    lab.on_node(|| async {
        let earlier = open(lab.conf());
        wait_ready(&earlier).await;
        let (network, adding) = (earlier.clone(), pod.clone());
        let add = tokio::spawn(async move { network.attach(&adding).await });
        eventually("the plugin runs", || log(&lab).contains("slow ADD"));
        earlier.take_over(&BTreeSet::new()).await.unwrap();
        assert!(!add.is_finished(), "its own plugins are spared");
        let network = open(lab.conf());
        network.take_over(&BTreeSet::new()).await.unwrap();
        let error = add.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("killed by signal 9"), "{error}");
        // A FIFO without a reader refuses writers: the plugin's child is gone too.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        eventually("the child is gone", || {
            rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty()).is_err()
        });
        assert!(!late.exists());
    });
}
