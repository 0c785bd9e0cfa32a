//! A node, a neighbour outside, and pods, each a network namespace of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_model::{DnsConfig, PodId, PodName, PortMapping, Protocol};
use crisp_sys::ns::{self, Kind};

use crate::client::Cache;
use crate::netlink::{Batch, link};
use crate::subnet::unspecified;
use crate::{Attachment, Config, Mode, Network, PodNetwork};

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Lab {
    dir: tempfile::TempDir,
}

pub(super) const NODE_V4: &str = "192.0.2.1";
pub(super) const NODE_V6: &str = "2001:db8::1";
pub(super) const OUTSIDE_V4: &str = "192.0.2.2";
pub(super) const OUTSIDE_V6: &str = "2001:db8::2";

impl Lab {
    pub(super) fn new() -> Self {
        let lab = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        lab.pin("node");
        lab.pin("outside");
        let outside = File::open(lab.netns("outside")).unwrap();
        let pair = link::Pair {
            host: "world0",
            pod: "node0",
            bridge: 0,
            netns: outside.as_fd(),
            mac: [2, 0, 0, 0, 0, 2],
            mtu: None,
        };
        let configure = |name: &str, addresses: [&str; 2]| {
            let mut channel = link::open().unwrap();
            let found = link::by_name(&mut channel, name).unwrap().unwrap();
            let mut batch = Batch::default();
            link::push_loopback_up(&mut batch);
            link::push_up(&mut batch, found.index);
            link::push_address(&mut batch, found.index, addresses[0].parse().unwrap(), 24);
            link::push_address(&mut batch, found.index, addresses[1].parse().unwrap(), 64);
            channel.run(batch).unwrap();
        };
        lab.inside("node", || {
            let mut batch = Batch::default();
            link::push_pair(&mut batch, &pair);
            link::open().unwrap().run(batch).unwrap();
            configure("world0", [NODE_V4, NODE_V6]);
        });
        lab.inside("outside", || configure("node0", [OUTSIDE_V4, OUTSIDE_V6]));
        lab
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn netns(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("netns-{name}"))
    }

    pub(super) fn pin(&self, name: &str) {
        ns::pin(&[(Kind::Net, self.netns(name))]).unwrap();
    }

    pub(super) fn unpin(&self, name: &str) {
        ns::unpin(&self.netns(name)).unwrap();
    }

    /// Runs on a thread with an ordinary stack.
    pub(super) fn inside<T: Send>(&self, name: &str, f: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(self.netns(name)).unwrap();
        let run = || std::thread::scope(|scope| scope.spawn(f).join().unwrap());
        ns::inside(netns.as_fd(), Kind::Net, run).unwrap()
    }

    /// Runs a daemon's part: all its threads are in the node's namespace.
    pub(super) fn on_node<T: Send, F: Future<Output = T>>(
        &self,
        f: impl FnOnce() -> F + Send,
    ) -> T {
        self.inside("node", || {
            // Its threads are born in this namespace. One works on while a test waits in
            // `eventually`.
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all();
            runtime.build().unwrap().block_on(f())
        })
    }

    pub(super) fn config(&self, mode: Mode) -> Config {
        Config {
            mode,
            bin_dirs: vec![self.path().join("bin"), "/usr/lib/cni".into()],
            cache_dir: self.path().join("cache"),
            timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn builtin(&self) -> Config {
        self.config(Mode::Builtin(crate::Builtin::default()))
    }

    pub(super) fn conf(&self) -> Config {
        self.config(Mode::Conf {
            dir: self.path().join("net.d"),
        })
    }

    /// A pod with a namespace.
    pub(super) fn pod(&self, name: &str) -> PodNetwork {
        self.pin(name);
        PodNetwork {
            pod_id: PodId::from_entropy(crisp_sys::rand::entropy32().unwrap()),
            name: PodName {
                name: name.to_owned(),
                uid: "u-1".to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            },
            netns: self.netns(name),
            port_mappings: Vec::new(),
            dns: DnsConfig::default(),
            annotations: BTreeMap::new(),
            cgroup_path: "/kubepods/pod1".to_owned(),
        }
    }

    /// The attachment that is recorded for a pod, as the next daemon finds it.
    pub(super) fn recorded(&self, pod: &PodId) -> Option<Attachment> {
        let cache = Cache::open(&self.path().join("cache/results")).unwrap();
        let record = cache.read(pod).ok().flatten()?;
        Some(record.result()?.attachment(record.list.version()))
    }

    /// How many addresses the built-in network has given out.
    pub(super) fn addresses_on_disk(&self) -> usize {
        let dir = self.path().join("cache/crisp/crisp0/addresses");
        std::fs::read_dir(dir).unwrap().count()
    }

    pub(super) fn links(&self, namespace: &str) -> Vec<String> {
        self.inside(namespace, || {
            let mut channel = link::open().unwrap();
            let stats = link::statistics(&mut channel).unwrap();
            stats.into_iter().map(|s| s.name).collect()
        })
    }

    /// A server that answers everybody with the address it sees.
    pub(super) fn serve(&self, namespace: &str, port: u16) {
        let any: IpAddr = Ipv6Addr::UNSPECIFIED.into();
        let (tcp, udp) = self.inside(namespace, || {
            let tcp = TcpListener::bind((any, port)).unwrap();
            (tcp, UdpSocket::bind((any, port)).unwrap())
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let peer = plain(stream.peer_addr().unwrap().ip());
                stream.write_all(peer.as_bytes()).unwrap();
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                udp.send_to(plain(peer.ip()).as_bytes(), peer).unwrap();
            }
        });
    }

    /// The address as which a server sees us, or why it cannot be reached.
    pub(super) fn tcp(&self, from: &str, to: (&str, u16)) -> Result<String, String> {
        self.inside(from, || {
            let address = address(to);
            let mut stream =
                TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .map_err(|e| e.to_string())?;
            Ok(answer)
        })
    }

    pub(super) fn udp(&self, from: &str, to: (&str, u16)) -> Result<String, String> {
        self.inside(from, || {
            let address = address(to);
            let local: IpAddr = unspecified(address.ip());
            let socket = UdpSocket::bind((local, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(address).map_err(|e| e.to_string())?;
            socket.send(b"?").map_err(|e| e.to_string())?;
            let mut buffer = [0; 64];
            let n = socket.recv(&mut buffer).map_err(|e| e.to_string())?;
            Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("netns-") {
                drop(ns::unpin(&entry.path()));
            }
        }
    }
}

fn plain(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

fn address(to: (&str, u16)) -> SocketAddr {
    to.to_socket_addrs().unwrap().next().unwrap()
}

pub(super) fn port(protocol: Protocol, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip: None,
    }
}

/// Waits until something is so.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..250 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("never: {what}");
}

pub(super) fn open(config: Config) -> Network {
    Network::open(config).unwrap()
}
