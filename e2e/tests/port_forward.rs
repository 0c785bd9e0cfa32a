//! Port-forward, with crictl as the client of both transports.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::forwarding::Forwarding;
use crisp_e2e::image::catalogue::PAGE;
use crisp_e2e::netns::Net;
use crisp_e2e::{Cri, Network, Node, Options, configs, eventually, in_pod, trial, trial_with};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Status};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// The network of a pod.
fn inside(pod: &str) -> Net {
    Net::at(&Path::new("/run/netns").join(format!("crisp-{pod}")))
}

/// A listener on the loopback of a pod, and its port.
fn listen(pod: &str, address: &str) -> (TcpListener, u16) {
    let listener = inside(pod).run(|| TcpListener::bind((address, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A URL for a client, or why there is none.
#[allow(clippy::result_large_err, reason = "the status that tests look at")]
fn url(cri: &mut Cri, pod: &str, port: &[i32]) -> Result<String, Status> {
    let request = cri::PortForwardRequest {
        pod_sandbox_id: pod.to_owned(),
        port: port.to_vec(),
    };
    cri.port_forward(request).map(|reply| reply.url)
}

/// Says something to a forwarded port and returns all of its answer.
fn exchange(mut stream: TcpStream, words: &[u8]) -> String {
    stream.write_all(words).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Answers one connection with all that it says, upside down, once it says no more.
fn turn_round(listener: &TcpListener) {
    let (mut peer, _) = listener.accept().unwrap();
    let mut words = String::new();
    peer.read_to_string(&mut words).unwrap();
    let turned: String = words.chars().rev().collect();
    peer.write_all(turned.as_bytes()).unwrap();
}

#[test]
fn privileged_ports_of_a_pod_are_reached() {
    trial(|node| {
        node.pull(&["web"]);
        let mut cri = node.cri();
        let pod = node.pod("web");
        let id = cri.run_pod(&pod);
        let mut config = configs::container("web", &[]);
        config.image.as_mut().unwrap().image = configs::image("web");
        let container = cri.run(&id, &pod, &config);
        let line = "until wget -q -O /dev/null http://127.0.0.1/; do usleep 20000; done";
        cri.shell(&container, line);
        for transport in TRANSPORTS {
            // A beginning of the id is enough, as everywhere.
            let forwarding = Forwarding::start(node, transport, &id[..13], 80);
            for _ in 0..20 {
                let mut stream = forwarding.connect(node);
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                let mut page = String::new();
                stream.read_to_string(&mut page).unwrap();
                assert!(page.ends_with(PAGE), "{transport}: {page}");
            }
        }
        cri.remove_pod(&id);
        cri.forget("web");
    });
}

#[test]
fn privileged_a_program_may_listen_at_one_address_alone() {
    in_pod("family", |node, cri, id, _| {
        let own = cri.address(id);
        for address in ["127.0.0.1", "::1", &own] {
            let (listener, port) = listen(id, address);
            for transport in TRANSPORTS {
                let forwarding = Forwarding::start(node, transport, id, port);
                std::thread::scope(|scope| {
                    scope.spawn(|| turn_round(&listener));
                    // Its answer comes after the end of the question, which has to reach it.
                    let answer = exchange(forwarding.connect(node), b"abc");
                    assert_eq!(answer, "cba", "{transport}, {address}");
                });
            }
        }
    });
}

#[test]
fn privileged_pods_on_the_nodes_network_are_reached_there() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("host");
        pod.hostname.clear();
        configs::namespaces(&mut pod).network = cri::NamespaceMode::Node.into();
        let id = cri.run_pod(&pod);
        let listener = node.net.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let forwarding = Forwarding::start(node, "spdy", &id, port);
        std::thread::scope(|scope| {
            scope.spawn(|| turn_round(&listener));
            assert_eq!(exchange(forwarding.connect(node), b"node"), "edon");
        });
        drop(forwarding);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_port_that_nothing_listens_on_is_told() {
    in_pod("silent", |node, _, id, _| {
        for transport in TRANSPORTS {
            let forwarding = Forwarding::start(node, transport, id, 7);
            assert_eq!(exchange(forwarding.connect(node), b""), "");
            let told = || {
                let said = forwarding.complaints();
                said.contains("port 7 in pod e2e/silent") && said.contains("connection refused")
            };
            eventually("crictl says why", told);
        }
    });
}

#[test]
fn privileged_what_cannot_be_forwarded_has_no_url() {
    in_pod("refused", |node, cri, id, pod| {
        let code = |cri: &mut Cri, id: &str, port: &[i32]| url(cri, id, port).unwrap_err().code();
        assert_eq!(code(cri, &"f".repeat(64), &[]), Code::NotFound);
        assert_eq!(code(cri, "", &[]), Code::NotFound);
        for port in [0, -1, 65536] {
            let refused = url(cri, id, &[80, port]).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().contains("port[1]"), "{refused}");
        }
        let stopped = cri.run_pod(&node.pod("stopped"));
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: stopped.clone(),
        };
        cri.stop_pod_sandbox(request).unwrap();
        let refused = url(cri, &stopped, &[]).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("not ready"), "{refused}");
        cri.remove_pod(&stopped);
        assert!(url(cri, &pod.metadata.as_ref().unwrap().uid, &[]).is_err());
    });
}

/// The pod's network is there while its plugin deletes it, and so are connections into it.
#[test]
fn privileged_connections_live_as_long_as_the_network() {
    let options = Options {
        network: Network::Cni,
        ..Options::default()
    };
    trial_with(&options, |node| {
        let slow = format!(
            "#!/bin/sh\n[ $CNI_COMMAND != DEL ] || until [ -e {} ]; do sleep 0.05; done\n\
             exec /usr/lib/cni/bridge\n",
            node.path("calm").display()
        );
        let path = node.path("bin/slow");
        fs::write(&path, slow).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let network = json!([{
            "type": "slow", "bridge": "br-test", "isGateway": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.path("addresses"),
                "ranges": [[{"subnet": "10.99.0.0/24"}]],
            },
        }]);
        node.write_plugins("10-test.conflist", &network);
        eventually("the network is ready", || {
            let status = node.cri().status(cri::StatusRequest::default()).unwrap();
            let conditions = status.status.unwrap().conditions;
            conditions.iter().all(|condition| condition.status)
        });
        let mut cri = node.cri();
        let pod = node.pod("stopping");
        let id = cri.run_pod(&pod);
        let main = cri.run(&id, &pod, &configs::idle("main"));
        // A program that is none of the pod's does not end with it.
        let (listener, port) = listen(&id, "127.0.0.1");
        let forwarding = Forwarding::start(node, "websocket", &id, port);
        let mut client = forwarding.connect(node);
        let (mut server, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            let mut stopping = node.cri();
            let stopped = scope.spawn(move || {
                let pod_sandbox_id = id.clone();
                let request = cri::StopPodSandboxRequest { pod_sandbox_id };
                stopping.stop_pod_sandbox(request).unwrap();
                stopping.remove_pod(&id);
            });
            assert_eq!(cri.wait_exit(&main).exit_code, 137);
            // The event of that end has been told by then, here and in the daemon.
            std::thread::sleep(Duration::from_millis(200));
            let mut word = [0; 5];
            server.write_all(b"still").unwrap();
            client.read_exact(&mut word).unwrap();
            client.write_all(b"there").unwrap();
            server.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"there");
            fs::write(node.path("calm"), "").unwrap();
            assert_eq!(client.read(&mut word).unwrap(), 0);
            stopped.join().unwrap();
        });
        drop((listener, server));
        node.net.ip("link del br-test");
    });
}

/// The first line of the answer to an upgrade at a URL.
fn upgraded(node: &Node, url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = node.net.run(|| TcpStream::connect(host).unwrap());
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn privileged_a_url_is_good_once_and_on_loopback() {
    in_pod("once", |node, cri, id, _| {
        let url = url(cri, id, &[]).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
        assert!(upgraded(node, &url).contains(" 101 "));
        assert!(upgraded(node, &url).contains(" 404 "));
        let (place, token) = url.rsplit_once('/').unwrap();
        assert_eq!(token.len(), 22);
        let guessed = format!("{place}/{}", "A".repeat(token.len()));
        assert!(upgraded(node, &guessed).contains(" 404 "));
    });
}

/// A stream of bytes that repeats itself late, so that what is lost or comes twice is seen.
fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    (0..(1 << 20) - 3).map(|_| next()).collect()
}

/// Sends about so many MiB, and returns their digest.
fn send(mut to: TcpStream, mebibytes: usize, seed: u64) -> Vec<u8> {
    let block = pattern(seed);
    let mut digest = Sha256::new();
    for _ in 0..mebibytes {
        to.write_all(&block).unwrap();
        digest.update(&block);
    }
    digest.finalize().to_vec()
}

/// Reads to the end, and returns the digest of it all.
fn receive(mut from: TcpStream) -> Vec<u8> {
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match from.read(&mut block).unwrap() {
            0 => return digest.finalize().to_vec(),
            read => digest.update(&block[..read]),
        }
    }
}

#[test]
fn privileged_much_data_passes_unharmed_in_both_directions_at_once() {
    let all = std::env::var("STREAM_MIB").map_or(48, |all| all.parse().unwrap());
    in_pod("much", |node, _, id, _| {
        let (listener, port) = listen(id, "127.0.0.1");
        for transport in TRANSPORTS {
            let forwarding = Forwarding::start(node, transport, id, port);
            let client = forwarding.connect(node);
            let (server, _) = listener.accept().unwrap();
            let again = |stream: &TcpStream| stream.try_clone().unwrap();
            let (up, down) = std::thread::scope(|scope| {
                let up = scope.spawn(|| {
                    let sent = send(again(&client), all, 1);
                    client.shutdown(Shutdown::Write).unwrap();
                    sent
                });
                let came_down = scope.spawn(|| receive(again(&client)));
                let down = scope.spawn(|| send(again(&server), all, 2));
                let came_up = receive(again(&server));
                let down = down.join().unwrap();
                // The client gives up the rest of its own data once the pod has closed.
                server.shutdown(Shutdown::Write).unwrap();
                let up = (up.join().unwrap(), came_up);
                (up, (down, came_down.join().unwrap()))
            });
            assert!(up.0 == up.1, "{transport}: the client's");
            assert!(down.0 == down.1, "{transport}: the pod's");
        }
        let kib = node.peak_memory();
        assert!(kib < 100 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

#[test]
fn privileged_a_client_that_vanishes_is_gone_in_the_pod_too() {
    in_pod("vanished", |node, _, id, _| {
        let (listener, port) = listen(id, "127.0.0.1");
        for transport in TRANSPORTS {
            let mut forwarding = Forwarding::start(node, transport, id, port);
            let client = forwarding.connect(node);
            let (mut server, _) = listener.accept().unwrap();
            forwarding.kill();
            let limit = Some(Duration::from_secs(10));
            server.set_read_timeout(limit).unwrap();
            // A reset tells it as well as an end.
            let end = server.read(&mut [0]);
            let gone = |kind| kind == std::io::ErrorKind::ConnectionReset;
            let is_gone = end.as_ref().is_ok_and(|read| *read == 0);
            assert!(is_gone || end.is_err_and(|error| gone(error.kind())));
            drop(client);
        }
    });
}

#[test]
fn privileged_a_pod_that_is_removed_takes_its_connections_along() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("removed");
        let id = cri.run_pod(&pod);
        let line = "nc -l -p 4000 -e cat";
        let container = cri.run(&id, &pod, &configs::shell("main", line));
        let listens = "until netstat -ltn | grep -q :4000; do usleep 20000; done";
        cri.shell(&container, listens);
        let forwarding = Forwarding::start(node, "spdy", &id, 4000);
        let mut client = forwarding.connect(node);
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
        // A program that is none of the pod's keeps its end open, and with it the pod's network.
        let (listener, port) = listen(&id, "127.0.0.1");
        let to_stranger = Forwarding::start(node, "spdy", &id, port);
        let mut other = to_stranger.connect(node);
        other
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let (stranger, _) = listener.accept().unwrap();
        cri.remove_pod(&id);
        assert!(client.read(&mut echo).is_ok_and(|read| read == 0));
        assert!(other.read(&mut echo).is_ok_and(|read| read == 0));
        drop((listener, stranger));
    });
}

#[test]
fn privileged_sessions_end_with_the_daemon_and_delay_it_not() {
    trial(|node| {
        let mut cri = node.cri();
        let id = cri.run_pod(&node.pod("restart"));
        let (listener, port) = listen(&id, "127.0.0.1");
        for kill in [false, true] {
            let mut forwarding = Forwarding::start(node, "spdy", &id, port);
            let mut client = forwarding.connect(node);
            let (mut server, _) = listener.accept().unwrap();
            let begun = Instant::now();
            if kill {
                node.kill();
            } else {
                assert!(node.terminate().success());
            }
            assert!(begun.elapsed() < Duration::from_secs(2));
            assert!(!forwarding.ended().success());
            assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
            assert!(matches!(server.read(&mut [0]), Ok(0) | Err(_)));
            node.restart();
        }
        let forwarding = Forwarding::start(node, "websocket", &id, port);
        std::thread::scope(|scope| {
            scope.spawn(|| turn_round(&listener));
            assert_eq!(exchange(forwarding.connect(node), b"again"), "niaga");
        });
        drop((forwarding, listener));
        node.cri().remove_pod(&id);
    });
}
