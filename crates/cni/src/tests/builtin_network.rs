//! The built-in network: pods, the node and the world reach each other, and nothing stays.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crisp_model::Protocol;

use super::lab::{Lab, NODE_V4, NODE_V6, OUTSIDE_V4, OUTSIDE_V6, eventually, open, port};
use crate::netlink::{Channel, link};
use crate::nft::Table;
use crate::{Error, PodNetwork, interface_stats};

fn netfilter() -> Channel {
    Channel::open(netlink_sys::protocols::NETLINK_NETFILTER).unwrap()
}

fn ports_in_force(lab: &Lab) -> usize {
    let table = Table::of("crisp0");
    lab.inside("node", || table.elements(&mut netfilter()).unwrap().len())
}

/// Attaches pods and returns their addresses as text.
fn attach(lab: &Lab, pods: &[&PodNetwork]) -> Vec<Vec<String>> {
    lab.on_node(|| async {
        let network = open(lab.builtin());
        let mut all = Vec::new();
        for pod in pods {
            let attachment = network.attach(pod).await.unwrap();
            assert_eq!(lab.recorded(&pod.pod_id), Some(attachment.clone()));
            network.check(&pod.pod_id).await.unwrap();
            all.push(attachment.ips.iter().map(ToString::to_string).collect());
        }
        all
    })
}

#[test]
fn privileged_pods_node_and_world_reach_each_other() {
    let lab = Lab::new();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let ips = attach(&lab, &[&a, &b]);
    lab.serve("b", 80);
    lab.serve("outside", 81);
    for family in [0, 1] {
        let server = (ips[1][family].as_str(), 80);
        assert_eq!(lab.tcp("a", server).as_ref(), Ok(&ips[0][family]));
        assert_eq!(lab.udp("a", server).as_ref(), Ok(&ips[0][family]));
        lab.tcp("node", server).unwrap();
    }
    assert_eq!(
        lab.tcp("a", (OUTSIDE_V4, 81)).as_deref(),
        Ok(NODE_V4),
        "masqueraded"
    );
    assert_eq!(
        lab.udp("a", (OUTSIDE_V6, 81)).as_deref(),
        Ok(NODE_V6),
        "masqueraded"
    );
    let stats = lab.on_node(|| async { interface_stats(&a.netns).await.unwrap() });
    assert_eq!(stats.len(), 1);
    assert!(stats[0].name == "eth0" && stats[0].rx_bytes > 0 && stats[0].tx_packets > 0);
}

#[test]
fn privileged_nothing_stays_after_the_last_pod() {
    let lab = Lab::new();
    let mut pod = lab.pod("a");
    pod.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
    attach(&lab, &[&pod]);
    assert_eq!((lab.addresses_on_disk(), ports_in_force(&lab)), (2, 2));
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.detach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap();
        assert_eq!(lab.recorded(&pod.pod_id), None);
        lab.unpin("a");
        network.retire().await.unwrap();
    });
    assert_eq!((lab.addresses_on_disk(), ports_in_force(&lab)), (0, 0));
    eventually("links gone", || lab.links("node") == ["world0"]);
    let table = lab.inside("node", || {
        Table::of("crisp0").is_there(&mut netfilter()).unwrap()
    });
    assert!(!table);
}

#[test]
fn privileged_a_namespace_that_stays_holds_up_no_end_of_the_daemon() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    attach(&lab, &[&pod]);
    let took = lab.on_node(|| async {
        let network = open(lab.builtin());
        network.detach(&pod).await.unwrap();
        // The lab still has it, as the kernel does for connections that nobody has ended.
        let begun = Instant::now();
        network.retire().await.unwrap();
        begun.elapsed()
    });
    assert_eq!(lab.addresses_on_disk(), 0);
    eventually("links gone", || lab.links("node") == ["world0"]);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn privileged_host_ports_lead_to_the_pod() {
    let lab = Lab::new();
    let (mut server, client) = (lab.pod("server"), lab.pod("client"));
    server.port_mappings = vec![
        port(Protocol::Tcp, 8080, 80),
        port(Protocol::Udp, 8080, 80),
        port(Protocol::Sctp, 8080, 80),
    ];
    let ips = attach(&lab, &[&server, &client]);
    assert_eq!(ports_in_force(&lab), 6);
    lab.serve("server", 80);
    for (host, seen) in [(NODE_V4, OUTSIDE_V4), (NODE_V6, OUTSIDE_V6)] {
        assert_eq!(lab.tcp("outside", (host, 8080)).as_deref(), Ok(seen));
        assert_eq!(lab.udp("outside", (host, 8080)).as_deref(), Ok(seen));
        lab.tcp("node", (host, 8080)).unwrap();
        lab.tcp("client", (host, 8080)).unwrap();
        lab.udp("client", (host, 8080)).unwrap();
        lab.tcp("server", (host, 8080))
            .expect("a pod reaches itself");
    }
    lab.tcp("node", ("127.0.0.1", 8080)).unwrap();
    lab.udp("node", ("127.0.0.1", 8080)).unwrap();
    let refused = lab.tcp("node", ("::1", 8080)).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let direct = (ips[0][0].as_str(), 80);
    assert_eq!(
        lab.tcp("client", direct).as_ref(),
        Ok(&ips[1][0]),
        "not masqueraded"
    );
    lab.on_node(|| async { open(lab.builtin()).detach(&server).await.unwrap() });
    lab.tcp("outside", (NODE_V4, 8080)).unwrap_err();
    assert_eq!(ports_in_force(&lab), 0);
}

#[test]
fn privileged_host_ports_keep_to_their_address() {
    let lab = Lab::new();
    let mut pod = lab.pod("a");
    let mut mapping = port(Protocol::Tcp, 8080, 80);
    mapping.host_ip = Some("127.0.0.1".parse().unwrap());
    pod.port_mappings = vec![mapping];
    attach(&lab, &[&pod]);
    lab.serve("a", 80);
    lab.tcp("node", ("127.0.0.1", 8080)).unwrap();
    lab.tcp("outside", (NODE_V4, 8080)).unwrap_err();
    lab.tcp("node", (NODE_V4, 8080)).unwrap_err();
}

#[test]
fn privileged_pods_do_not_reach_the_nodes_loopback() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    attach(&lab, &[&pod]);
    lab.serve("node", 82);
    lab.tcp("node", ("127.0.0.1", 82)).unwrap();
    lab.inside("a", || {
        // A pod that is privileged enough sends packets for 127.0.0.1 over its veth.
        for (path, value) in [("all/route_localnet", "1"), ("eth0/route_localnet", "1")] {
            crate::builtin::set_sysctl(&format!("ipv4/conf/{path}"), value).unwrap();
        }
        let mut channel = link::open().unwrap();
        let mut batch = crate::netlink::Batch::default();
        link::push_no_loopback_address(&mut batch);
        channel.run(batch).unwrap();
    });
    lab.tcp("a", ("127.0.0.1", 82)).unwrap_err();
}

#[test]
fn privileged_a_taken_host_port_is_named_with_its_owner() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.pod("a"), lab.pod("b"));
    a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
    b.port_mappings = vec![port(Protocol::Tcp, 8081, 80), port(Protocol::Tcp, 8080, 81)];
    attach(&lab, &[&a]);
    let error = lab.on_node(|| async {
        let network = open(lab.builtin());
        let error = network.attach(&b).await.unwrap_err();
        assert_eq!(ports_in_force(&lab), 2, "nothing of the loser");
        lab.unpin("b");
        eventually("addresses freed", || lab.addresses_on_disk() == 2);
        error
    });
    assert!(matches!(error, Error::PortInUse { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("8080/tcp") && text.contains(a.pod_id.as_str()),
        "{text}"
    );
}

#[test]
fn privileged_what_others_remove_is_made_again() {
    let lab = Lab::new();
    let (mut a, b) = (lab.pod("a"), lab.pod("b"));
    a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
    attach(&lab, &[&a]);
    lab.serve("a", 80);
    lab.inside("node", || {
        Table::of("crisp0").remove(&mut netfilter()).unwrap()
    });
    lab.tcp("outside", (NODE_V4, 8080)).unwrap_err();
    attach(&lab, &[&b]);
    lab.tcp("outside", (NODE_V4, 8080)).unwrap();
}

#[test]
fn privileged_collection_spares_the_living_alone() {
    let lab = Lab::new();
    let (mut dead, mut live) = (lab.pod("dead"), lab.pod("live"));
    dead.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
    live.port_mappings = vec![port(Protocol::Tcp, 8081, 80)];
    let ips = attach(&lab, &[&dead, &live]);
    lab.serve("live", 80);
    // As if the records of the dead pod had been lost: only its kernel objects and addresses stay.
    let record = lab
        .path()
        .join(format!("cache/results/{}.json", dead.pod_id));
    std::fs::remove_file(record).unwrap();
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network
            .collect(&BTreeSet::from([live.pod_id.clone()]))
            .await
            .unwrap();
    });
    assert_eq!((lab.addresses_on_disk(), ports_in_force(&lab)), (2, 2));
    assert_eq!(lab.links("node").len(), 3, "world0, bridge, one pod");
    lab.tcp("node", (ips[1][0].as_str(), 80)).unwrap();
    lab.tcp("outside", (NODE_V4, 8081)).unwrap();
}

#[test]
fn privileged_a_half_made_attachment_is_undone_later() {
    let lab = Lab::new();
    let (mut a, b) = (lab.pod("a"), lab.pod("b"));
    a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
    attach(&lab, &[&a, &b]);
    // A daemon that is killed before ADD is over leaves a record without a result.
    for pod in [&a, &b] {
        let path = lab
            .path()
            .join(format!("cache/results/{}.json", pod.pod_id));
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["result"] = serde_json::Value::Null;
        let text = record.to_string();
        crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
    }
    lab.on_node(|| async {
        let network = open(lab.builtin());
        assert_eq!(lab.recorded(&a.pod_id), None);
        network.attach(&a).await.expect("the kubelet tries again");
        network
            .collect(&BTreeSet::from([a.pod_id.clone()]))
            .await
            .unwrap();
    });
    assert_eq!((lab.addresses_on_disk(), ports_in_force(&lab)), (2, 2));
    assert_eq!(lab.links("node").len(), 3, "world0, bridge, one pod");
}

#[test]
fn privileged_a_pod_that_comes_back_keeps_its_address() {
    let lab = Lab::new();
    let pod = lab.pod("a");
    let first = attach(&lab, &[&pod]);
    let second = lab.on_node(|| async {
        let network = open(lab.builtin());
        network.detach(&pod).await.unwrap();
        lab.unpin("a");
        lab.pin("a");
        network.attach(&pod).await.unwrap().ips
    });
    let second: Vec<String> = second.iter().map(ToString::to_string).collect();
    assert_eq!(first[0], second);
}

#[test]
fn privileged_many_pods_at_once_get_an_address_each() {
    let lab = Lab::new();
    let pods: Vec<PodNetwork> = (0..12).map(|n| lab.pod(&format!("p{n}"))).collect();
    let ips = lab.on_node(|| async {
        let network = open(lab.builtin());
        let tasks: Vec<_> = pods
            .iter()
            .map(|pod| {
                let (network, pod) = (network.clone(), pod.clone());
                tokio::spawn(async move { network.attach(&pod).await.unwrap().ips })
            })
            .collect();
        let mut ips = BTreeSet::new();
        for task in tasks {
            ips.extend(task.await.unwrap());
        }
        ips
    });
    assert_eq!(ips.len(), 24);
}

#[test]
fn privileged_daemons_side_by_side_keep_apart() {
    let lab = Lab::new();
    let (a, b) = (lab.pod("a"), lab.pod("b"));
    let first = attach(&lab, &[&a]);
    lab.on_node(|| async {
        let mut config = lab.builtin();
        config.cache_dir = lab.path().join("other");
        let second = open(config.clone()).attach(&b).await.unwrap();
        assert!(
            second.ips[0].to_string().starts_with("10.89."),
            "{:?}",
            second.ips
        );
        assert!(first[0][0].starts_with("10.88."), "{first:?}");
        open(config.clone())
            .collect(&BTreeSet::new())
            .await
            .unwrap();
        open(lab.builtin()).check(&a.pod_id).await.unwrap();
        config.mode = crate::Mode::Builtin(crate::Builtin {
            bridge: "crisp0".to_owned(),
            ..crate::Builtin::default()
        });
        let network = open(config);
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("cache/crisp/crisp0"),
            "{status:?}"
        );
        network.attach(&b).await.unwrap_err();
    });
}

#[test]
fn privileged_a_firewall_that_drops_by_default_lets_pods_through() {
    if !std::path::Path::new("/usr/sbin/nft").exists() {
        return;
    }
    let lab = Lab::new();
    let rules = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    let nft = |rules: &str| {
        lab.inside("node", || {
            let output = crisp_sys::process::command("/usr/sbin/nft")
                .arg(rules)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    };
    nft(rules);
    let pod = lab.pod("a");
    attach(&lab, &[&pod]);
    lab.serve("outside", 81);
    lab.tcp("a", (OUTSIDE_V4, 81)).unwrap();
    lab.tcp("a", (OUTSIDE_V6, 81)).unwrap();
    assert_eq!(
        nft("list chain ip filter FORWARD")
            .matches("comment \"crisp crisp0\"")
            .count(),
        2
    );
    lab.on_node(|| async {
        let network = open(lab.builtin());
        network.detach(&pod).await.unwrap();
        lab.unpin("a");
        network.retire().await.unwrap();
    });
    assert!(
        !nft("list ruleset").contains("crisp"),
        "{}",
        nft("list ruleset")
    );
}

#[test]
fn privileged_the_plugin_is_a_program_too() {
    use crate::plugin::{Environment, answer};
    let lab = Lab::new();
    lab.pin("a");
    let data = lab.path().join("data").display().to_string();
    let conf = |more: &str| {
        format!(
            r#"{{"cniVersion": "1.1.0", "name": "n", "type": "crisp", "bridge": "b0", "subnets": ["10.5.0.0/24"], "dataDir": "{data}", "runtimeConfig": {{"ips": ["10.5.0.77/24"], "mac": "02:00:00:00:00:77", "portMappings": [{{"hostPort": 90, "containerPort": 80}}]}}{more}}}"#
        )
    };
    let call = |command: &str, more: &str| {
        let environment = Environment {
            command: command.to_owned(),
            container: "c1".to_owned(),
            netns: lab.netns("a").display().to_string(),
            interface: "net1".to_owned(),
        };
        let answer = lab.inside("node", || answer(&environment, conf(more).as_bytes()));
        assert!(!answer.failed, "{command}: {}", answer.stdout);
        answer.stdout
    };
    let result = call("ADD", "");
    assert!(
        result.contains("10.5.0.77/24") && result.contains("02:00:00:00:00:77"),
        "{result}"
    );
    lab.serve("a", 80);
    lab.tcp("outside", (NODE_V4, 90)).unwrap();
    call("CHECK", &format!(r#", "prevResult": {result}"#));
    call("STATUS", "");
    call(
        "GC",
        r#", "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "net1"}]"#,
    );
    lab.tcp("outside", (NODE_V4, 90)).unwrap();
    call("DEL", "");
    call("DEL", "");
    assert_eq!(lab.links("a"), Vec::<String>::new());
    lab.pin("b");
    call("ADD", "");
    call("GC", r#", "cni.dev/valid-attachments": []"#);
    assert_eq!(lab.links("a"), Vec::<String>::new());
    assert_eq!(
        std::fs::read_dir(lab.path().join("data/b0/addresses"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn privileged_a_udp_client_finds_the_new_pod() {
    let lab = Lab::new();
    let (mut old, mut new) = (lab.pod("old"), lab.pod("new"));
    old.port_mappings = vec![port(Protocol::Udp, 8080, 80)];
    new.port_mappings = vec![port(Protocol::Udp, 8080, 80)];
    let client = lab.inside("outside", || UdpSocket::bind((OUTSIDE_V4, 0)).unwrap());
    client.connect((NODE_V4, 8080)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let ask = || client.send(b"?").and_then(|_| client.recv(&mut [0; 64]));
    attach(&lab, &[&old]);
    lab.serve("old", 80);
    ask().unwrap();
    lab.on_node(|| async { open(lab.builtin()).detach(&old).await.unwrap() });
    attach(&lab, &[&new]);
    lab.serve("new", 80);
    lab.unpin("old");
    ask().unwrap();
}

#[test]
fn privileged_attaching_is_fast() {
    let lab = Lab::new();
    let pods: Vec<PodNetwork> = (0..30).map(|n| lab.pod(&format!("p{n}"))).collect();
    let mut times = lab.on_node(|| async {
        let network = open(lab.builtin());
        let mut times = Vec::new();
        for pod in &pods {
            let start = Instant::now();
            network.attach(pod).await.unwrap();
            times.push(start.elapsed());
        }
        times
    });
    times.sort();
    println!("attach p50 {:?} max {:?}", times[15], times[29]);
    // A loaded machine is no failure; a helper that is executed, or a wait for the kernel, is.
    assert!(times[15] < Duration::from_millis(50), "{times:?}");
}
