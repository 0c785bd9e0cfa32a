//! The built-in network: pods, the node and its neighbour reach each other, in both families.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::catalogue::PAGE;
use crisp_e2e::netns::{NEIGHBOUR, NEIGHBOUR6, NODE, NODE6, Net};
use crisp_e2e::{Cri, Node, configs, trial};
use tonic::Code;

/// Both addresses of a pod, IPv4 first.
fn addresses(cri: &mut Cri, pod: &str) -> [String; 2] {
    let network = cri.pod(pod).network.unwrap();
    assert_eq!(network.additional_ips.len(), 1, "{network:?}");
    [network.ip, network.additional_ips[0].ip.clone()]
}

/// An address as it stands before a port.
fn host(address: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    }
}

/// Fetches the page of a web server from within a network.
fn page(net: &Net, server: &str) -> Result<String, String> {
    net.run(|| {
        let mut stream = TcpStream::connect(server).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .map_err(|error| error.to_string())?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        Ok(text.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
    })
}

/// Runs a pod with a web server and waits until it listens.
fn web(node: &Node, cri: &mut Cri, name: &str, ports: Vec<cri::PortMapping>) -> String {
    let mut pod = node.pod(name);
    pod.port_mappings = ports;
    let id = cri.run_pod(&pod);
    let mut config = configs::container("web", &[]);
    config.image.as_mut().unwrap().image = configs::image("web");
    let container = cri.run(&id, &pod, &config);
    let line = "until wget -q -O /dev/null http://127.0.0.1/; do usleep 20000; done";
    cri.shell(&container, line);
    id
}

#[test]
fn privileged_pods_reach_pods_and_the_world() {
    trial(|node| {
        node.pull(&["web"]);
        let mut cri = node.cri();
        let server = web(node, &mut cri, "server", Vec::new());
        let pod = node.pod("client");
        let id = cri.run_pod(&pod);
        let client = cri.run(&id, &pod, &configs::idle("main"));
        let lo = cri.shell(&client, "ip addr show lo");
        assert!(
            lo.contains("127.0.0.1/8") && lo.contains("LOOPBACK,UP"),
            "{lo}"
        );
        let own = addresses(&mut cri, &id);
        for (family, address) in addresses(&mut cri, &server).iter().enumerate() {
            let line = format!("wget -q -O - http://{}/", host(address));
            assert_eq!(cri.shell(&client, &line), PAGE, "{address}");
            assert_eq!(
                page(&node.net, &format!("{}:80", host(address))).unwrap(),
                PAGE
            );

            // The neighbour sees the node's address, not the pod's.
            let (neighbour, expected) = [(NEIGHBOUR, NODE), (NEIGHBOUR6, NODE6)][family];
            let listener = node
                .neighbour
                .run(|| TcpListener::bind((neighbour, 9000)).unwrap());
            let seen = std::thread::scope(|scope| {
                let seen = scope.spawn(|| listener.accept().unwrap().1.ip().to_string());
                let line = format!("nc -w 3 {neighbour} 9000 </dev/null; true");
                cri.shell(&client, &line);
                seen.join().unwrap()
            });
            assert_eq!(seen, expected, "masqueraded, {own:?}");
        }
        cri.remove_pod(&id);
        cri.remove_pod(&server);
        cri.forget("web");
    });
}

#[test]
fn privileged_ports_of_the_node_lead_to_pods() {
    trial(|node| {
        node.pull(&["web"]);
        let mut cri = node.cri();
        let only = |port: i32, address: &str| cri::PortMapping {
            host_ip: address.to_owned(),
            ..configs::port(cri::Protocol::Tcp, port, 80)
        };
        let ports = vec![
            configs::port(cri::Protocol::Tcp, 8080, 80),
            only(8081, NODE),
            only(8082, "127.0.0.1"),
            configs::port(cri::Protocol::Udp, 8083, 5353),
            configs::port(cri::Protocol::Sctp, 8084, 80),
        ];
        let id = web(node, &mut cri, "ports", ports);
        for server in [
            format!("{NODE}:8080"),
            format!("[{NODE6}]:8080"),
            format!("{NODE}:8081"),
        ] {
            assert_eq!(
                page(&node.neighbour, &server).as_deref(),
                Ok(PAGE),
                "{server}"
            );
        }
        for server in ["127.0.0.1:8080", "127.0.0.1:8082"] {
            assert_eq!(page(&node.net, server).as_deref(), Ok(PAGE), "{server}");
        }
        for server in [format!("{NODE}:8082"), format!("[{NODE6}]:8081")] {
            assert!(
                page(&node.neighbour, &server).is_err(),
                "{server} is not open"
            );
        }
        datagrams(node, &id);
        let rules = node
            .net
            .run(|| crisp_e2e::tools::run("nft", &["list", "ruleset"]));
        assert!(rules.contains("sctp") && rules.contains("8084"), "{rules}");

        // A port that is taken is refused and named, and the pod leaves nothing.
        let mut second = node.pod("second");
        second.port_mappings = vec![configs::port(cri::Protocol::Tcp, 8080, 80)];
        let error = cri.try_run_pod(&second).unwrap_err();
        assert!(error.message().contains("8080"), "{error:?}");
        assert_ne!(error.code(), Code::Unknown);
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&id));
        cri.remove_pod(&id);
        assert!(page(&node.neighbour, &format!("{NODE}:8080")).is_err());
        cri.forget("web");
    });
}

/// Sends a datagram from the neighbour to the node's port and gets it back.
fn datagrams(node: &Node, pod: &str) {
    let inside = Net::at(&Path::new("/run/netns").join(format!("crisp-{pod}")));
    let echo = inside.run(|| UdpSocket::bind("[::]:5353").unwrap());
    let patience = Some(Duration::from_secs(10));
    echo.set_read_timeout(patience).unwrap();
    for (address, from) in [(NODE, "0.0.0.0:0"), (NODE6, "[::]:0")] {
        let client = node.neighbour.run(|| UdpSocket::bind(from).unwrap());
        client.set_read_timeout(patience).unwrap();
        client.connect((address, 8083)).unwrap();
        client.send(b"ping").unwrap();
        let mut buffer = [0; 16];
        let (length, sender) = echo.recv_from(&mut buffer).unwrap();
        echo.send_to(&buffer[..length], sender).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 4, "{address}");
    }
}

#[test]
fn privileged_a_pod_may_use_the_nodes_network() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = configs::host_network("host");
        pod.log_directory = node.pod("host").log_directory;
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        let options = configs::security(&mut config)
            .namespace_options
            .as_mut()
            .unwrap();
        options.network = cri::NamespaceMode::Node.into();
        let container = cri.run(&id, &pod, &config);
        assert!(cri.shell(&container, "ip addr show up0").contains(NODE));
        assert_eq!(cri.pod(&id).network.unwrap_or_default().ip, "");
        let reply = cri.execute(
            &container,
            &["wget", "-q", "-O", "-", "http://127.0.0.1:5000/v2/"],
        );
        assert_eq!(reply.unwrap().exit_code, 0, "the node's own loopback");
        // CVE-2020-15257: an abstract socket would be reachable from here.
        let sockets = cri.shell(&container, "cat /proc/net/unix");
        assert!(!sockets.contains("@"), "{sockets}");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_names_are_resolved_as_asked_for() {
    trial(|node| {
        let mut cri = node.cri();
        let mut pod = node.pod("names");
        pod.hostname = "a-name".to_owned();
        pod.dns_config = Some(cri::DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["one.test".to_owned(), "two.test".to_owned()],
            options: vec!["ndots:5".to_owned()],
        });
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        assert_eq!(
            cri.shell(&container, "hostname; cat /etc/hostname"),
            "a-name\na-name\n"
        );
        let text = cri.shell(&container, "cat /etc/resolv.conf");
        for line in [
            "nameserver 192.0.2.53",
            "search one.test two.test",
            "options ndots:5",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line}: {text}");
        }
        let address = cri.address(&id);
        let hosts = cri.shell(&container, "cat /etc/hosts");
        assert!(
            hosts.contains("127.0.0.1") && hosts.contains(&address),
            "{hosts}"
        );
        cri.remove_pod(&id);
    });
}
