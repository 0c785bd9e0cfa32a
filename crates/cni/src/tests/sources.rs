//! Pods that send as their neighbours: nobody believes them, unless the configuration lets them.

use std::net::UdpSocket;
use std::sync::Arc;

use crisp_tasks::Worker;

use super::lab::{Lab, eventually, open};
use crate::builtin::{AddressRelease, Crisp, LinkRemoval, Owner, Request, Settings};
use crate::netlink::Channel;
use crate::nft::SourceTable;
use crate::{Builtin, Mode, Sources};

const PYTHON: &str = "python3";
const FORGE: &str = include_str!("forge.py");
/// Each with the address of the neighbour whose entry in the victim's table it is after.
const KINDS: [(&str, Option<Claimed>); 11] = [
    ("reply", Some(Claimed::V4)),
    ("request", Some(Claimed::V4)),
    ("gratuitous", Some(Claimed::V4)),
    ("tagged", Some(Claimed::V4)),
    ("tagged twice", Some(Claimed::V4)),
    ("advertisement", Some(Claimed::V6)),
    ("options ahead", Some(Claimed::V6)),
    ("tagged advertisement", Some(Claimed::V6)),
    ("solicitation", Some(Claimed::V6)),
    ("link-local", Some(Claimed::LinkLocal)),
    ("datagram", None),
];

#[derive(Debug, Clone, Copy)]
enum Claimed {
    V4,
    V6,
    LinkLocal,
}

fn run(lab: &Lab, namespace: &str, program: &str, arguments: &[&str]) -> String {
    lab.inside(namespace, || {
        let mut command = crisp_sys::process::command(program);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

/// A pod's MAC and addresses.
struct Pod {
    mac: String,
    v4: String,
    v6: String,
    link_local: String,
}

impl Pod {
    fn claimed(&self, claimed: Claimed) -> &str {
        match claimed {
            Claimed::V4 => &self.v4,
            Claimed::V6 => &self.v6,
            Claimed::LinkLocal => &self.link_local,
        }
    }
}

async fn attach(lab: &Lab, network: &crate::Network, name: &str) -> Pod {
    let attachment = network.attach(&lab.pod(name)).await.unwrap();
    let mut link_local = None;
    eventually("the interface has a link-local address", || {
        let wanted = ["-6", "-o", "addr", "show", "scope", "link"];
        let shown = run(lab, name, "ip", &wanted);
        let mut words = shown.split(['/', ' ']);
        link_local = words
            .find(|word| word.starts_with("fe80:"))
            .map(str::to_owned);
        link_local.is_some()
    });
    Pod {
        mac: attachment.interfaces[2].mac.clone(),
        v4: attachment.ips[0].to_string(),
        v6: attachment.ips[1].to_string(),
        link_local: link_local.unwrap(),
    }
}

/// The MAC that the victim believes an address to have.
fn believed(lab: &Lab, address: &str) -> Option<String> {
    let shown = run(
        lab,
        "victim",
        "ip",
        &["neigh", "show", "to", address, "dev", "eth0"],
    );
    let mut words = shown
        .split_whitespace()
        .skip_while(|word| *word != "lladdr");
    words.nth(1).map(str::to_owned)
}

/// Sends a forged frame from the third pod, and waits until the victim has had it.
fn forge(lab: &Lab, kind: &str, number: usize, [evil, victim, neighbour]: [&Pod; 3]) {
    let marker = format!("02:00:00:00:01:{number:02x}");
    let arguments = [
        "-c",
        FORGE,
        kind,
        &marker,
        &evil.mac,
        &evil.v4,
        &victim.mac,
        &victim.v4,
        &victim.v6,
        &neighbour.v4,
        &neighbour.v6,
        &neighbour.link_local,
    ];
    run(lab, "evil", PYTHON, &arguments);
    eventually("the frames have come", || {
        believed(lab, &evil.v4).as_ref() == Some(&marker)
    });
}

/// The kinds of frames that the victim believed.
async fn successes(lab: &Lab, network: &crate::Network) -> Vec<&'static str> {
    let evil = attach(lab, network, "evil").await;
    let victim = attach(lab, network, "victim").await;
    let neighbour = attach(lab, network, "neighbour").await;
    lab.inside("victim", || {
        crate::builtin::set_sysctl("ipv4/neigh/eth0/locktime", "0").unwrap();
        for dad in ["eth0", "all"] {
            crate::builtin::set_sysctl(&format!("ipv6/conf/{dad}/accept_dad"), "0").unwrap();
        }
    });
    let socket = lab.inside("victim", || UdpSocket::bind(("0.0.0.0", 4000)).unwrap());
    socket.set_nonblocking(true).unwrap();
    let mut believed_kinds = Vec::new();
    for (number, (kind, claimed)) in KINDS.into_iter().enumerate() {
        if let Some(claimed) = claimed {
            let honest = [
                "neigh",
                "replace",
                neighbour.claimed(claimed),
                "lladdr",
                &neighbour.mac,
                "dev",
                "eth0",
                "nud",
                "stale",
            ];
            run(lab, "victim", "ip", &honest);
        }
        forge(lab, kind, number, [&evil, &victim, &neighbour]);
        let is_believed = match claimed {
            Some(claimed) => believed(lab, neighbour.claimed(claimed)).as_ref() == Some(&evil.mac),
            None => socket.recv(&mut [0; 8]).is_ok(),
        };
        if is_believed {
            believed_kinds.push(kind);
        }
    }
    believed_kinds
}

#[test]
fn privileged_a_pod_cannot_send_as_its_neighbour() {
    for sources in [Sources::Own, Sources::Any] {
        let lab = Lab::new();
        let config = lab.config(Mode::Builtin(Builtin {
            sources,
            ..Builtin::default()
        }));
        lab.on_node(|| async {
            let network = open(config);
            let believed = successes(&lab, &network).await;
            // Let through, each of them is believed: the frames are what they should be.
            let all: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            let expected = match sources {
                Sources::Any => all,
                Sources::Own => Vec::new(),
            };
            assert_eq!(believed, expected);
            assert_eq!(network.status().message, "");
        });
    }
}

/// The daemon was killed between the end of a pod's namespace and the release of its addresses.
#[test]
fn privileged_what_a_gone_pod_sent_from_is_forgotten_by_the_next_daemon() {
    let lab = Lab::new();
    let data = lab.path().join("data");
    lab.on_node(|| async {
        let open = || {
            let settings = Settings::parse(&serde_json::json!({}), &data).unwrap();
            let crisp = Crisp::open(settings, Arc::default()).unwrap();
            crisp.prepare().unwrap();
            crisp
        };
        let elements = || {
            let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
            SourceTable::of("crisp0").list(&mut channel).unwrap()
        };
        let first = open();
        let (alone, links) = (elements(), lab.links("node").len());
        lab.pin("pod");
        let request = Request {
            owner: Owner {
                container: "gone".into(),
                interface: "eth0".into(),
            },
            netns: Some(lab.netns("pod")),
            ports: Vec::new(),
            addresses: Vec::new(),
            mac: None,
            previous: None,
        };
        first.add(&request).unwrap();
        lab.unpin("pod");
        eventually("its link is gone", || lab.links("node").len() == links);
        drop(first);
        let next = open();
        assert!(elements().len() > alone.len());
        next.collect(&std::collections::BTreeSet::new()).unwrap();
        assert_eq!(elements(), alone);
    });
}

#[test]
fn privileged_what_a_gone_pod_sent_from_does_not_come_back() {
    let lab = Lab::new();
    let data = lab.path().join("data");
    lab.on_node(|| async {
        let settings = Settings::parse(&serde_json::json!({}), &data).unwrap();
        let release = Arc::new(AddressRelease::default());
        let _worker = Worker::start(Arc::clone(&release).run());
        let crisp = Crisp::open(settings, Arc::clone(&release)).unwrap();
        crisp.prepare().unwrap();
        let elements = || {
            let mut channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER).unwrap();
            SourceTable::of("crisp0").list(&mut channel).unwrap()
        };
        // Reading so many records takes long enough for a look and a release to meet. They are no
        // attachments', and have no elements.
        for number in 0..3000_u16 {
            let [high, low] = number.to_be_bytes();
            let record = data.join(format!("crisp0/addresses/192.0.{high}.{low}"));
            std::os::unix::fs::symlink("nobody", record).unwrap();
        }
        let alone = elements();
        for round in 0..40 {
            let owner = Owner {
                container: format!("c{round}"),
                interface: "eth0".into(),
            };
            lab.pin("pod");
            let request = Request {
                owner: owner.clone(),
                netns: Some(lab.netns("pod")),
                ports: Vec::new(),
                addresses: Vec::new(),
                mac: None,
                previous: None,
            };
            crisp.add(&request).unwrap();
            assert!(elements().len() > alone.len(), "round {round}");
            let done = std::sync::atomic::AtomicBool::new(false);
            lab.inside("node", || {
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while !done.load(std::sync::atomic::Ordering::Relaxed) {
                            crisp.prepare().unwrap();
                        }
                    });
                    crisp.del(&owner, LinkRemoval::WithNamespace).unwrap();
                    lab.unpin("pod");
                    release.finish();
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                });
            });
            assert_eq!(elements(), alone, "round {round}");
        }
    });
}
