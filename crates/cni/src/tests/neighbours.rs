//! Pods on one bridge: none takes another's frames, and all have the interface that was configured.

use super::lab::{Lab, eventually, open, port};
use crate::netlink::{Batch, fdb, link};
use crate::{Builtin, Error, Mode, PodNetwork};

fn mac_of(lab: &Lab, namespace: &str) -> [u8; 6] {
    let found = lab.inside(namespace, || {
        let mut channel = link::open().unwrap();
        link::by_name(&mut channel, "eth0").unwrap().unwrap()
    });
    found.mac.try_into().unwrap()
}

fn set_mac(lab: &Lab, namespace: &str, mac: [u8; 6]) {
    lab.inside(namespace, || {
        let mut channel = link::open().unwrap();
        let found = link::by_name(&mut channel, "eth0").unwrap().unwrap();
        let mut batch = Batch::default();
        link::push_mac(&mut batch, found.index, mac);
        channel.run(batch).unwrap();
    });
}

/// The port behind which the bridge believes a MAC to be.
fn port_of(lab: &Lab, mac: [u8; 6]) -> Option<fdb::Entry> {
    lab.inside("node", || {
        let mut channel = link::open().unwrap();
        let bridge = link::by_name(&mut channel, "crisp0").unwrap().unwrap();
        fdb::look_up(&mut channel, bridge.index, mac).unwrap()
    })
}

fn choosing(lab: &Lab, name: &str, mac: &str) -> PodNetwork {
    let mut pod = lab.pod(name);
    let chosen = format!(r#"[{{"name": "x", "mac": "{mac}"}}]"#);
    let annotation = "v1.multus-cni.io/default-network";
    pod.annotations.insert(annotation.into(), chosen);
    pod
}

#[test]
fn privileged_a_pod_that_sends_as_its_neighbour_gets_none_of_its_frames() {
    let lab = Lab::new();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    lab.serve("a", 80);
    lab.serve("node", 81);
    lab.on_node(|| async {
        let network = open(lab.builtin());
        let a_ip = network.attach(&a).await.unwrap().ips[0].to_string();
        network.attach(&b).await.unwrap();
        let (mac, own) = (mac_of(&lab, "a"), mac_of(&lab, "b"));
        let entry = port_of(&lab, mac).unwrap();
        assert!(!entry.is_learned);
        assert_ne!(Some(entry), port_of(&lab, own));
        set_mac(&lab, "b", mac);
        // A frame with the neighbour's MAC as its source; the answer goes to the neighbour.
        lab.udp("b", ("10.88.0.1", 81)).ok();
        assert_eq!(port_of(&lab, mac), Some(entry));
        lab.tcp("node", (&a_ip, 80)).unwrap();
        set_mac(&lab, "b", own);
        lab.tcp("b", (&a_ip, 80)).unwrap();
    });
}

#[test]
fn privileged_a_mac_is_given_once_on_a_bridge() {
    let lab = Lab::new();
    let allowing = || {
        lab.config(Mode::Builtin(Builtin {
            allow_annotations: true,
            ..Builtin::default()
        }))
    };
    let first = choosing(&lab, "first", "02:00:00:00:00:77");
    let second = choosing(&lab, "second", "02:00:00:00:00:77");
    lab.on_node(|| async {
        let network = open(allowing());
        network.attach(&first).await.unwrap();
        let error = network.attach(&second).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("MAC 02:00:00:00:00:77"), "{text}");
        assert!(matches!(error, Error::Builtin { .. }), "{error:?}");
        network.detach(&second).await.unwrap();
        lab.unpin("second");
        network.detach(&first).await.unwrap();
        lab.unpin("first");
        lab.pin("second");
        eventually("the MAC is free", || {
            port_of(&lab, [2, 0, 0, 0, 0, 0x77]).is_none()
        });
        network.attach(&second).await.unwrap();
    });
}

/// All of the node that a bridge would change: links, addresses and settings.
fn around(lab: &Lab, name: &str) -> String {
    let settings = ["route_localnet", "forwarding"].map(|file| format!("ipv4/conf/{name}/{file}"));
    let settings = settings.into_iter().chain(["ipv4/ip_forward".to_owned()]);
    lab.inside("node", || {
        let mut channel = link::open().unwrap();
        let found = link::by_name(&mut channel, name).unwrap();
        let addresses = link::addresses(&mut channel).unwrap();
        let read = |path| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap();
        let settings: Vec<String> = settings.map(read).collect();
        format!("{found:?} {addresses:?} {settings:?}")
    })
}

#[test]
fn privileged_a_link_that_is_no_bridge_is_refused_and_left_alone() {
    let lab = Lab::new();
    lab.inside("node", || {
        crate::builtin::set_sysctl("ipv4/ip_forward", "0").unwrap();
    });
    let a = lab.pod("a");
    let named = |bridge: &str| {
        lab.config(Mode::Builtin(Builtin {
            bridge: bridge.to_owned(),
            subnets: vec!["10.88.0.0/16".to_owned()],
            ..Builtin::default()
        }))
    };
    let (before, links) = (around(&lab, "world0"), lab.links("node"));
    lab.on_node(|| async {
        let network = open(named("world0"));
        let status = network.status();
        assert!(!status.ready, "{status:?}");
        let why = "bridge world0: the link of this name is no bridge but of type veth";
        assert!(status.message.contains(why), "{status:?}");
        let error = network.attach(&a).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        network.retire().await.unwrap();
        let error = crate::Network::open(named("lo")).unwrap_err();
        assert!(
            error.to_string().contains("loopback is no bridge"),
            "{error}"
        );
    });
    assert_eq!(around(&lab, "world0"), before);
    assert_eq!(lab.links("node"), links);
    assert!(lab.links("a").is_empty());
}

#[test]
fn privileged_bridge_and_pods_have_the_configured_mtu() {
    let lab = Lab::new();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let with = |mtu| {
        lab.config(Mode::Builtin(Builtin {
            mtu,
            ..Builtin::default()
        }))
    };
    let mtu_of = |namespace: &str, name: &str| {
        lab.inside(namespace, || {
            let mut channel = link::open().unwrap();
            link::by_name(&mut channel, name).unwrap().unwrap().mtu
        })
    };
    lab.on_node(|| async {
        open(with(None)).attach(&a).await.unwrap();
        assert_eq!(mtu_of("a", "eth0"), 1500);
        // The bridge is there already.
        open(with(Some(1600))).attach(&b).await.unwrap();
        assert_eq!(mtu_of("b", "eth0"), 1600);
        assert_eq!(mtu_of("node", "crisp0"), 1600);
    });
}

#[test]
fn privileged_a_closed_host_port_does_not_come_back() {
    use crate::builtin::{Crisp, LinkRemoval, Owner, Request, Settings};
    use crate::nft::Table;
    let lab = Lab::new();
    let data = lab.path().join("data");
    lab.on_node(|| async {
        let settings = Settings::parse(&serde_json::json!({}), &data).unwrap();
        let crisp = Crisp::open(settings, std::sync::Arc::default()).unwrap();
        crisp.prepare().unwrap();
        let netfilter =
            || crate::netlink::Channel::open(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
        let table = Table::of("crisp0");
        for round in 0..30_u16 {
            let owner = Owner {
                container: format!("c{round}"),
                interface: "eth0".into(),
            };
            lab.pin("pod");
            let request = Request {
                owner: owner.clone(),
                netns: Some(lab.netns("pod")),
                ports: vec![port(crisp_model::Protocol::Tcp, 9000 + round, 80)],
                addresses: Vec::new(),
                mac: None,
                previous: None,
            };
            crisp.add(&request).unwrap();
            lab.inside("node", || {
                std::thread::scope(|scope| {
                    let flush = scope.spawn(|| {
                        for _ in 0..20 {
                            table.remove(&mut netfilter()).unwrap();
                            crisp.prepare().unwrap();
                        }
                    });
                    crisp.del(&owner, LinkRemoval::Now).unwrap();
                    flush.join().unwrap();
                });
            });
            lab.unpin("pod");
            let left = table.elements(&mut netfilter()).unwrap();
            assert!(left.is_empty(), "round {round}: {left:?}");
        }
    });
}
