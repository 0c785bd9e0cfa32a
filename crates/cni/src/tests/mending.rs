//! Other programs that change the node's network: what they take away comes back.

use std::net::IpAddr;

use super::lab::{Lab, NODE_V4, OUTSIDE_V4, eventually, open, port};
use crate::PodNetwork;
use crate::builtin::set_sysctl;
use crate::netlink::{Batch, link};

const NFT: &str = "/usr/sbin/nft";

fn nft(lab: &Lab, rules: &str) -> String {
    lab.inside("node", || {
        let output = crisp_sys::process::command(NFT)
            .arg(rules)
            .output()
            .unwrap();
        assert!(output.status.success(), "{rules}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

fn delete_address(lab: &Lab, name: &str) {
    lab.inside("node", || {
        let mut channel = link::open().unwrap();
        let found = link::by_name(&mut channel, name).unwrap().unwrap();
        let mut batch = Batch::default();
        // A link that goes down loses its IPv6 addresses.
        link::push_down(&mut batch, found.index);
        channel.run(batch).unwrap();
    });
}

/// Whether a pod's addresses are those that it may send from.
fn checks_sources(lab: &Lab, pod: &PodNetwork) -> bool {
    let recorded = lab.recorded(&pod.pod_id).unwrap();
    let link = &recorded.interfaces[1].name;
    let rules = nft(lab, "list ruleset");
    let is_there = |element: String| rules.contains(&element);
    let own = |ip: &IpAddr| is_there(format!("\"{link}\" . {ip}"));
    recorded.ips.iter().all(own) && is_there("@pods accept".to_owned())
}

#[test]
fn privileged_a_flushed_firewall_and_a_changed_bridge_come_back() {
    if !std::path::Path::new(NFT).exists() {
        return;
    }
    let lab = Lab::new();
    let mut pod = lab.pod("a");
    pod.port_mappings = vec![port(crisp_model::Protocol::Tcp, 8080, 80)];
    lab.serve("a", 80);
    lab.serve("outside", 81);
    let works =
        || lab.tcp("outside", (NODE_V4, 8080)).is_ok() && lab.tcp("a", (OUTSIDE_V4, 81)).is_ok();
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        assert!(works());
        for harm in [
            "flush ruleset",
            "flush table inet crisp-crisp0",
            "delete table inet crisp-crisp0",
            "flush table bridge crisp-crisp0",
            "delete table bridge crisp-crisp0",
            "flush set bridge crisp-crisp0 own4",
        ] {
            nft(&lab, harm);
            eventually(harm, || works() && checks_sources(&lab, &pod));
        }
        lab.inside("node", || set_sysctl("ipv4/ip_forward", "0").unwrap());
        eventually("forwarding", works);
        delete_address(&lab, "crisp0");
        eventually("the bridge is up again", works);
        assert!(network.status().ready, "{:?}", network.status());
    });
}

#[test]
fn privileged_looks_end_when_all_is_well() {
    let lab = Lab::new();
    lab.on_node(|| async {
        let network = open(lab.builtin());
        let notices = crate::netlink::Notices::open().unwrap();
        // The notices of what was just made come first; then a look must not cause another.
        let mut quiet = 0;
        for _ in 0..20 {
            let changed = notices.changed();
            let wait = std::time::Duration::from_millis(600);
            quiet = match tokio::time::timeout(wait, changed).await {
                Err(_) => quiet + 1,
                Ok(()) => 0,
            };
            if quiet == 3 {
                break;
            }
        }
        assert_eq!(quiet, 3, "each look changes something");
        assert!(network.status().ready);
    });
}

#[test]
fn privileged_foreign_chains_that_drop_are_opened_or_named() {
    if !std::path::Path::new(NFT).exists() {
        return;
    }
    let lab = Lab::new();
    let pod = lab.pod("a");
    lab.serve("outside", 81);
    let works = || lab.tcp("a", (OUTSIDE_V4, 81)).is_ok();
    let hook = "type filter hook forward priority 0; policy";
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.attach(&pod).await.unwrap();
        nft(&lab, &format!("add table inet mine; add chain inet mine passing {{ {hook} drop; }}"));
        eventually("a chain of another name is opened", works);
        assert_eq!(network.status().message, "");
        nft(&lab, &format!("add table inet late; add chain inet late passing {{ {hook} drop; }}; add rule inet late passing counter reject"));
        eventually("a chain that rejects is named", || {
            network.status().message.contains("chain inet late passing")
        });
        assert!(network.status().ready);
        nft(&lab, "delete table inet late; delete table inet mine");
        eventually("named no more", || network.status().message.is_empty());
        nft(&lab, &format!("add table ip filter; add chain ip filter FORWARD {{ {hook} accept; }}; add rule ip filter FORWARD reject"));
        eventually("a last rule of iptables is overruled", works);
        lab.unpin("a");
        network.detach(&pod).await.unwrap();
        drop(network.retire().await);
    });
    assert!(!nft(&lab, "list ruleset").contains("crisp "));
}

#[test]
fn privileged_what_pods_may_send_from_lives_as_long_as_their_addresses() {
    if !std::path::Path::new(NFT).exists() {
        return;
    }
    let lab = Lab::new();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let elements = || {
        let rules = nft(&lab, "list table bridge crisp-crisp0");
        rules.matches("\"cr").count()
    };
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.attach(&a).await.unwrap();
        network.attach(&b).await.unwrap();
        // Its name, an address of each family, the link-local one.
        assert_eq!(elements(), 2 * 4);
        network.detach(&a).await.unwrap();
        lab.unpin("a");
        eventually("the pod's elements are gone", || elements() == 4);
        eventually("and then its records", || lab.addresses_on_disk() == 2);
        drop(network);
        nft(&lab, "flush ruleset");
        let network = open(lab.builtin());
        assert_eq!(elements(), 4, "the next daemon knows them from the records");
        assert!(checks_sources(&lab, &b));
        drop(network);
        let network = open(lab.config(crate::Mode::Builtin(crate::Builtin {
            sources: crate::Sources::Any,
            ..crate::Builtin::default()
        })));
        assert!(network.status().ready);
        assert!(!nft(&lab, "list ruleset").contains("table bridge"));
    });
}
