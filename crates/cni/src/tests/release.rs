//! Addresses of detached pods: released when the link is gone, and not before.

use std::time::{Duration, Instant};

use super::lab::{Lab, open};
use crate::PodNetwork;
use crate::netlink::{Batch, link};

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// How long it takes until a pod's addresses are released.
async fn released(lab: &Lab) -> Duration {
    let start = Instant::now();
    while lab.addresses_on_disk() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "never released");
        pause(5).await;
    }
    start.elapsed()
}

/// Runs a test on one thread: the worker does nothing while the test does not wait, so that
/// notifications can pile up.
fn on_one_thread<F: Future<Output = ()>>(lab: &Lab, f: impl FnOnce(PodNetwork) -> F + Send) {
    let pod = lab.pod("a");
    lab.inside("node", || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(f(pod));
    });
}

#[test]
fn privileged_an_address_is_released_with_its_link_and_not_before() {
    let lab = Lab::new();
    on_one_thread(&lab, |pod| async {
        let pod = pod;
        let network = open(lab.builtin());
        for _ in 0..3 {
            network.attach(&pod).await.unwrap();
            network.detach(&pod).await.unwrap();
            pause(300).await;
            assert_eq!(lab.addresses_on_disk(), 2, "the link is still there");
            lab.unpin("a");
            let took = released(&lab).await;
            assert!(took < Duration::from_secs(1), "{took:?}");
            lab.pin("a");
        }
    });
}

#[test]
fn privileged_a_link_that_stays_is_deleted() {
    let lab = Lab::new();
    on_one_thread(&lab, |pod| async {
        let pod = pod;
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap();
        let took = released(&lab).await;
        assert!(took > Duration::from_secs(2), "{took:?}");
        assert_eq!(lab.links("a"), Vec::<String>::new());
    });
}

#[test]
fn privileged_notifications_that_the_kernel_drops_lose_no_address() {
    let lab = Lab::new();
    on_one_thread(&lab, |pod| async {
        let pod = pod;
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap();
        pause(300).await;
        // These fill the worker's socket before the link is deleted, so that the kernel drops the
        // notification of that.
        let mut channel = link::open().unwrap();
        for _ in 0..20 {
            let mut batch = Batch::default();
            for number in 0..100 {
                link::push_alias(&mut batch, "world0", &format!("change {number}"));
            }
            channel.run(batch).unwrap();
        }
        lab.unpin("a");
        while lab.links("node").len() > 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = released(&lab).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn privileged_nothing_is_released_after_the_network_has_ended() {
    let lab = Lab::new();
    on_one_thread(&lab, |pod| async {
        let pod = pod;
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap();
        pause(300).await;
        drop(network);
        lab.unpin("a");
        pause(500).await;
        assert_eq!(lab.addresses_on_disk(), 2, "left to the next daemon");
        let network = open(lab.builtin());
        network
            .collect(&std::collections::BTreeSet::new())
            .await
            .unwrap();
        assert_eq!(lab.addresses_on_disk(), 0);
    });
}
