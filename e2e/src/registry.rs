//! Debian's docker-registry on loopback, and one that only says no.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::image::catalogue::{Entry, catalogue};
use crate::image::push::Registry as Pusher;
use crate::netns::Net;
use crate::served::{Served, serve};

/// Where registries listen, in the node's own network.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// The name that images go by; a `hosts.toml` leads it to [`ADDRESS`].
pub const HOST: &str = "registry.test";

/// A running registry; dropped, it stops.
#[derive(Debug)]
pub struct Registry(Option<Served>);

/// The images that a test knows by name.
#[must_use]
pub fn known() -> &'static BTreeMap<&'static str, Entry> {
    static CATALOGUE: OnceLock<BTreeMap<&'static str, Entry>> = OnceLock::new();
    CATALOGUE.get_or_init(catalogue)
}

impl Registry {
    /// Starts one inside `net` with its data below `dir`.
    #[must_use]
    pub fn start(net: &Net, dir: &Path) -> Self {
        Self::start_at(net, dir, ADDRESS)
    }

    /// Starts one likewise that listens on an address.
    #[must_use]
    pub fn start_at(net: &Net, dir: &Path, address: &str) -> Self {
        Self(Some(net.run(|| serve(dir, address, "}\n"))))
    }

    /// Stops it, whatever is connected to it.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// Pushes an image of the catalogue.
    #[track_caller]
    pub fn push(&self, net: &Net, name: &str) {
        let entry = known()
            .get(name)
            .unwrap_or_else(|| panic!("no image {name}"));
        self.push_as(net, name, entry);
    }

    /// Pushes an entry as `NAME:1`.
    #[track_caller]
    pub fn push_as(&self, net: &Net, name: &str, entry: &Entry) {
        let served = self.0.as_ref().expect("a registry that was not stopped");
        net.run(|| Pusher::at(&served.address).push(name, "1", entry))
            .unwrap();
    }
}

/// `hosts.toml` that leads `host` to servers on plain HTTP, in order.
pub fn write_hosts(certs: &Path, host: &str, servers: &[&str]) {
    let dir = certs.join(host);
    fs::create_dir_all(&dir).unwrap();
    let mut text = match servers.last() {
        Some(last) => format!("server = \"http://{last}\"\n"),
        None => String::new(),
    };
    for server in servers {
        let block = format!("[host.\"http://{server}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        text.push_str(&block);
    }
    fs::write(dir.join("hosts.toml"), text).unwrap();
}

/// Serves the same answer to every request on an address of `net`, until the process ends.
///
/// The answer is a status line with headers, as `401 Unauthorized\r\nWWW-Authenticate: Basic`.
pub fn always(net: &Net, address: &str, answer: &str) {
    let listener = net.run(|| TcpListener::bind(address).unwrap());
    let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
            let mut request = [0; 4096];
            let mut seen = Vec::new();
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut request) {
                    Ok(count) if count > 0 => seen.extend_from_slice(&request[..count]),
                    _ => break,
                }
            }
            stream.write_all(answer.as_bytes()).ok();
        }
    });
}
