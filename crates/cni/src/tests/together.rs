//! Many calls at once: what hangs takes nothing from others, and what is attached while others
//! are collected stays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crisp_model::PodId;

use super::lab::{Lab, eventually, open};
use super::plugin_programs::{RESULT, list, log, put, script, wait_ready};
use crate::{Network, PodNetwork};

/// Another pod with the same namespace.
fn twin(pod: &PodNetwork, number: usize) -> PodNetwork {
    let mut twin = pod.clone();
    twin.pod_id = PodId::from_entropy(crisp_sys::rand::entropy32().unwrap());
    twin.name.name = format!("twin{number}");
    twin
}

fn begin(network: &Network, pod: &PodNetwork) -> tokio::task::JoinHandle<bool> {
    let (network, pod) = (network.clone(), pod.clone());
    tokio::spawn(async move { network.attach(&pod).await.is_ok() })
}

#[test]
fn privileged_plugins_that_hang_hold_neither_shared_threads_nor_a_del() {
    let lab = Lab::new();
    let go = lab.path().join("go").display().to_string();
    let body = format!(
        "{RESULT}\nif [ $CNI_COMMAND = ADD ]; then case $CNI_ARGS in *twin*) while [ ! -e {go} ]; do sleep 0.2; done;; esac; fi"
    );
    script(&lab, "slow", &body);
    list(&lab, "1.0.0", r#"{"type": "slow"}"#);
    let healthy = lab.pod("healthy");
    let hung: Vec<PodNetwork> = (0..70).map(|n| twin(&healthy, n)).collect();
    lab.inside("node", || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1);
        runtime.build().unwrap().block_on(async {
            let mut config = lab.conf();
            config.timeout = Duration::from_secs(60);
            let network = open(config);
            wait_ready(&network).await;
            network.attach(&healthy).await.unwrap();
            let mut adds: Vec<_> = hung.iter().map(|pod| begin(&network, pod)).collect();
            // Each DEL waits for the ADD of its pod, and takes no seat meanwhile.
            let dels: Vec<_> = hung
                .iter()
                .map(|pod| {
                    let (network, pod) = (network.clone(), pod.clone());
                    tokio::spawn(async move { network.detach(&pod).await.unwrap() })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let start = Instant::now();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            network.detach(&healthy).await.unwrap();
            assert!(start.elapsed() < Duration::from_secs(10));
            assert!(!dels[0].is_finished());
            // A caller that goes away stops nothing.
            adds.remove(0).abort();
            put(&lab, "go", "");
            for add in adds {
                assert!(add.await.unwrap());
            }
            for del in dels {
                del.await.unwrap();
            }
        });
    });
    let log = log(&lab);
    let dels = log.lines().filter(|l| l.starts_with("slow DEL")).count();
    assert_eq!(dels, 71, "one that was attached has one DEL");
}

#[test]
fn privileged_collection_by_older_knowledge_spares_who_came_since() {
    let lab = Lab::new();
    script(&lab, "good", RESULT);
    list(&lab, "1.0.0", r#"{"type": "good"}"#);
    let pod = lab.pod("a");
    let twins: Vec<PodNetwork> = (0..8).map(|n| twin(&pod, n)).collect();
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        network.attach(&pod).await.unwrap();
        network.collect(&BTreeSet::new()).await.unwrap();
        assert!(lab.recorded(&pod.pod_id).is_some());
        let adds: Vec<_> = twins.iter().map(|pod| begin(&network, pod)).collect();
        while adds.iter().any(|add| !add.is_finished()) {
            drop(network.collect(&BTreeSet::new()).await);
        }
        for twin in &twins {
            assert!(lab.recorded(&twin.pod_id).is_some());
        }
        network.detach(&pod).await.unwrap();
        drop(network);
        // The next daemon did not attach them, and collects them.
        let network = open(lab.conf());
        wait_ready(&network).await;
        network.collect(&BTreeSet::new()).await.unwrap();
        assert_eq!(lab.recorded(&twins[0].pod_id), None);
    });
}

#[test]
fn privileged_a_builtin_pod_outlives_collections_by_older_knowledge() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        network.collect(&BTreeSet::new()).await.unwrap();
        network.check(&pod.pod_id).await.unwrap();
        // A pod that this process attached is spared even when its record is lost.
        let record = format!("cache/results/{}.json", pod.pod_id);
        std::fs::remove_file(lab.path().join(record)).unwrap();
        network.collect(&BTreeSet::new()).await.unwrap();
        let addresses = lab.path().join("cache/crisp/crisp0/addresses");
        assert_eq!(std::fs::read_dir(&addresses).unwrap().count(), 2);
        assert_eq!(lab.links("a").len(), 1);
        network.detach(&pod).await.unwrap();
        network.collect(&BTreeSet::new()).await.unwrap();
        eventually("addresses freed", || {
            std::fs::read_dir(&addresses).unwrap().count() == 0
        });
    });
}
