//! The world around a cluster, a machine at the other end of a cable: a registry, a server of names, and a
//! page. Pods and nodes reach it through the machine that has them, by its address.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use crisp_e2e::cluster::{Cluster, IMAGE};
use crisp_e2e::image::busybox;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::Layer;
use crisp_e2e::image::suites::with;
use crisp_e2e::netns::{NEIGHBOUR, NODE};
use crisp_e2e::registry::{Registry, write_hosts};

/// Each node is told how to reach it.
const HOST: &str = "world.internal";
/// A name that the world alone knows.
const NAME: &str = "page.example";
const PORT: u16 = 8000;

/// Words for `up`: no other server of names is there.
pub(crate) fn flags() -> String {
    format!("--resolver {NEIGHBOUR}")
}

/// Writes how the registry of the world is reached, below a directory of `HOST/hosts.toml`.
pub(crate) fn write_registry(registries: &str) {
    write_hosts(Path::new(registries), HOST, &[&format!("{NEIGHBOUR}:5000")]);
}

pub(crate) fn is_reached(cluster: &Cluster) {
    names(cluster);
    page(cluster);
    let registry = Registry::start_at(&cluster.world, cluster.work(), "0.0.0.0:5000");
    for name in ["loaded", "pulled"] {
        // A kubelet that has pulled an image asks for it by each other name too, also where it is there.
        let own = Layer::new().file("etc/name", name, 0o644);
        let image = with(&busybox::image(), own);
        registry.push_as(&cluster.world, name, &Entry::from(&image));
    }
    // Before any pod wants it.
    cluster.crisp(&format!("load {HOST}/loaded:1"));
    let said = cluster.refused(&format!("load {HOST}/absent:1"));
    assert!(said.contains("absent:1"), "{said}");
    let script = format!("wget -q -O - http://{NAME}:{PORT}/");
    let seen = runs(cluster, &format!("{HOST}/loaded:1"), "Never", &script);
    assert_eq!(seen, NODE, "the world sees the machine");
    assert_eq!(
        runs(
            cluster,
            &format!("{HOST}/pulled:1"),
            "Always",
            "cat /etc/name"
        ),
        "pulled"
    );
    // Names of the cluster are no matter of the world.
    let script = format!("nslookup {NAME} && ! nslookup absent.default.svc.cluster.local");
    let said = runs(cluster, IMAGE, "IfNotPresent", &script);
    assert!(said.contains(NEIGHBOUR), "{said}");
}

/// The output of a pod's script.
fn runs(cluster: &Cluster, image: &str, pull: &str, script: &str) -> String {
    let (image, pull) = (
        format!("--image={image}"),
        format!("--image-pull-policy={pull}"),
    );
    let run = [
        "run",
        "visitor",
        "--restart=Never",
        &image,
        &pull,
        "--",
        "sh",
        "-c",
        script,
    ];
    cluster.kubectl(&run);
    cluster.waited("jsonpath={.status.phase}=Succeeded", "pod/visitor");
    let said = cluster.kubectl(&["logs", "visitor"]);
    cluster.kubectl(&["delete", "pod", "visitor"]);
    said.trim().to_owned()
}

/// Answers each question about an address (RFC 1035) with the neighbour's, until the process ends.
fn names(cluster: &Cluster) {
    const HEADER: usize = 12;
    const ADDRESS: u8 = 1;
    let world = &cluster.world;
    let socket = world.run(|| UdpSocket::bind((NEIGHBOUR, 53)).unwrap());
    let own: Ipv4Addr = NEIGHBOUR.parse().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0_u8; 512];
        while let Ok((_, caller)) = socket.recv_from(&mut packet) {
            let name = packet[HEADER..].iter().position(|byte| *byte == 0).unwrap();
            // The type and the class come after the name.
            let end = HEADER + name + 5;
            let is_address = packet[end - 3] == ADDRESS;
            let mut answer = packet[..end].to_vec();
            let counts = [0, 1, 0, u8::from(is_address), 0, 0, 0, 0];
            answer[2..HEADER].copy_from_slice(&[&[0x81, 0x80], &counts[..]].concat());
            if is_address {
                // The name of the question, an address of the internet, for a minute.
                answer.extend([0xc0, 12, 0, ADDRESS, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(own.octets());
            }
            socket.send_to(&answer, caller).ok();
        }
    });
}

/// Tells each caller its address, until the process ends.
fn page(cluster: &Cluster) {
    let listener = cluster
        .world
        .run(|| TcpListener::bind((NEIGHBOUR, PORT)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let caller = stream.peer_addr().unwrap().ip();
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{caller}\n").ok();
            }
        }
    });
}
