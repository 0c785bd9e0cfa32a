//! Subnets that the cluster gives to a node some time after its daemon has started, and those that it
//! gives to others.

use crisp_sys::process::command;

use super::lab::{Lab, NODE_V4, OUTSIDE_V4, eventually, open};
use crate::netlink::link;
use crate::{Builtin, Error, Mode, Need, PodCidr};

fn gateways(lab: &Lab) -> Vec<String> {
    lab.inside("node", || {
        let mut channel = link::open().unwrap();
        let all = link::addresses(&mut channel).unwrap();
        let all = all.into_iter().map(|net| net.to_string());
        all.filter(|net| !net.starts_with("192.0.2.") && !net.starts_with("2001:db8:"))
            .filter(|net| !net.starts_with("127.") && !net.starts_with("::1/"))
            .collect()
    })
}

#[test]
fn privileged_a_pod_cidr_is_taken_while_no_pod_has_an_address() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    let cidr = |networks: &[&str]| networks.iter().map(|net| (*net).to_owned()).collect();
    lab.serve("outside", 81);
    lab.on_node(|| async {
        let network = open(lab.builtin());
        let take = async |networks: &[&str]| network.take_pod_cidr(cidr(networks)).await;
        assert_eq!(take(&["10.99.1.0/24"]).await.unwrap(), PodCidr::InForce);
        assert_eq!(gateways(&lab), ["10.99.1.1/24"]);
        let attached = network.attach(&pod).await.unwrap();
        assert_eq!(attached.ips.len(), 1);
        assert!(attached.ips[0].to_string().starts_with("10.99.1."));
        lab.tcp("a", (super::lab::OUTSIDE_V4, 81)).unwrap();
        assert_eq!(take(&["10.99.1.0/24"]).await.unwrap(), PodCidr::InForce);
        assert_eq!(take(&["10.99.2.0/24"]).await.unwrap(), PodCidr::InUse);
        take(&["10.99.2.1/24"]).await.unwrap_err();
        // The next daemon begins with it, and what was put off ends with the last.
        drop(network);
        let next = open(lab.builtin());
        next.check(&pod.pod_id).await.unwrap();
        assert_eq!(gateways(&lab), ["10.99.1.1/24"]);
        next.detach(&pod).await.unwrap();
        lab.unpin("a");
        eventually("the address is free", || lab.addresses_on_disk() == 0);
        lab.pin("a");
        let both = ["10.99.2.0/24", "fd00:99::/64"];
        assert_eq!(
            next.take_pod_cidr(cidr(&both)).await.unwrap(),
            PodCidr::InForce
        );
        let attached = next.attach(&pod).await.unwrap();
        assert_eq!(attached.ips.len(), 2);
        assert_eq!(gateways(&lab), ["10.99.2.1/24", "fd00:99::1/64"]);
        // Subnets that have to wait come by themselves: the last of them.
        for waits in ["10.99.3.0/24", "10.99.4.0/24"] {
            let taken = next.take_pod_cidr(cidr(&[waits])).await;
            assert_eq!(taken.unwrap(), PodCidr::InUse);
        }
        next.take_pod_cidr(cidr(&["10.99.4.1/24"]))
            .await
            .unwrap_err();
        // Also after the daemon was replaced, once more.
        drop(next);
        drop(open(lab.builtin()));
        let next = open(lab.builtin());
        assert_eq!(gateways(&lab), ["10.99.2.1/24", "fd00:99::1/64"]);
        next.detach(&pod).await.unwrap();
        lab.unpin("a");
        for _ in 0..100 {
            if gateways(&lab) == ["10.99.4.1/24"] {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{:?}", gateways(&lab));
    });
}

#[test]
fn privileged_pods_wait_for_the_pod_cidr_where_that_is_asked_for() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    let waits = |subnets: &[&str]| {
        lab.config(Mode::Builtin(Builtin {
            subnets: subnets.iter().map(|net| (*net).to_owned()).collect(),
            pod_cidr: Need::Required,
            ..Builtin::default()
        }))
    };
    lab.on_node(|| async {
        let network = open(waits(&[]));
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("spec.podCIDR"),
            "{status:?}"
        );
        let error = network.attach(&pod).await.unwrap_err();
        assert!(matches!(error, Error::NotReady(_)), "{error:?}");
        // Also where it is what the bridge has without one.
        for net in ["10.88.0.0/16", "10.99.1.0/24"] {
            let taken = network.take_pod_cidr(vec![net.to_owned()]).await;
            assert_eq!(taken.unwrap(), PodCidr::InForce);
            assert!(network.status().ready, "{:?}", network.status());
        }
        let attached = network.attach(&pod).await.unwrap();
        assert!(attached.ips[0].to_string().starts_with("10.99.1."));
        // One more pod would keep the next range waiting.
        let other = vec!["10.99.2.0/24".to_owned()];
        let taken = network.take_pod_cidr(other).await;
        assert_eq!(taken.unwrap(), PodCidr::InUse);
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("drain"),
            "{status:?}"
        );
        let taken = network.take_pod_cidr(vec!["10.99.1.0/24".to_owned()]).await;
        assert_eq!(taken.unwrap(), PodCidr::InForce);
        assert!(network.status().ready, "{:?}", network.status());
        drop(network);
        // The next daemon knows it, and one whose subnets are named needs none.
        assert!(open(waits(&[])).status().ready);
        assert!(open(waits(&["10.77.0.0/24"])).status().ready);
    });
}

#[test]
fn privileged_configured_subnets_stay() {
    let lab = Lab::new();
    let mode = Mode::Builtin(Builtin {
        subnets: vec!["10.77.0.0/24".to_owned()],
        ..Builtin::default()
    });
    lab.on_node(|| async {
        let network = open(lab.config(mode));
        let taken = network.take_pod_cidr(vec!["10.99.1.0/24".to_owned()]).await;
        assert_eq!(taken.unwrap(), PodCidr::Configured);
        assert_eq!(gateways(&lab), ["10.77.0.1/24"]);
    });
}

#[test]
fn privileged_pods_of_other_nodes_see_the_pods_own_addresses() {
    let lab = Lab::new();
    let a = lab.pod("a");
    let way_back = ["route", "add", "10.88.0.0/16", "via", NODE_V4];
    let routed = lab.inside("outside", || command("ip").args(way_back).status());
    assert!(routed.unwrap().success());
    lab.serve("outside", 81);
    let seen_with = |except: &[&str]| {
        let config = lab.config(Mode::Builtin(Builtin {
            masquerade_except: except.iter().map(ToString::to_string).collect(),
            ..Builtin::default()
        }));
        lab.on_node(|| async {
            let network = open(config);
            let own = network.attach(&a).await.unwrap().ips[0].to_string();
            let seen = lab.tcp("a", (OUTSIDE_V4, 81)).unwrap();
            network.detach(&a).await.unwrap();
            (seen, own)
        })
    };
    let (seen, own) = seen_with(&["fd00::/8", "192.0.2.0/24"]);
    assert_eq!(seen, own);
    let (seen, _) = seen_with(&["198.51.100.0/24"]);
    assert_eq!(seen, NODE_V4);
}
