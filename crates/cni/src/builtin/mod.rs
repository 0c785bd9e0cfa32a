//! The plugin `crisp`: bridge, veth pairs, addresses, masquerade and host ports, by netlink alone.
//!
//! Order of an ADD: addresses are recorded, then the pair is made (one message: host end on the
//! bridge, peer in the pod), then the peer gets addresses and routes, then host ports are opened.
//! A DEL closes the ports and leaves the pair to the end of its namespace, which the caller
//! brings about: deleting a bridged veth takes tens of milliseconds. Addresses are free only when
//! the link is seen gone ([`undertaker`]).
//!
//! Every object carries its owner: addresses and host ports by name, links by a name made from
//! the container id, so that [`Crisp::collect`] can compare both sides.

mod addresses;
mod bridge;
mod choice;
mod pod_end;
mod settings;
mod subnet;
mod undertaker;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::{CniInterface, CniIp, CniResult};
use crate::netlink::{Batch, Channel, conntrack, link};
use crate::nft::{self, Element, Firewall, Table, host_ports};
use crate::{Error, Result};

use addresses::{Addresses, spread};
use bridge::Kernel;
#[cfg(test)]
pub(crate) use bridge::set_sysctl;
pub(crate) use choice::choose;
pub(crate) use settings::{Request, Settings};
pub(crate) use subnet::{Subnet, parse_cidr};
use undertaker::Undertaker;

/// Type of this plugin in configurations.
pub(crate) const TYPE: &str = "crisp";
const LINK_PREFIX: &str = "cr";

/// One attachment, as CNI names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub container: String,
    pub interface: String,
}

impl Owner {
    /// As it is written into records and comments.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.container, self.interface)
    }

    fn parse(key: &str) -> Option<Self> {
        let (container, interface) = key.split_once('/')?;
        Some(Self {
            container: container.to_owned(),
            interface: interface.to_owned(),
        })
    }

    /// Name of the node's end of the pair: the start of the id where that says enough.
    fn link(&self) -> String {
        let is_id = self.container.len() == 64
            && self.container.bytes().all(|b| b.is_ascii_hexdigit())
            && self.interface == "eth0";
        let tail = if is_id {
            self.container[..13].to_owned()
        } else {
            format!("{:013x}", spread(&self.key()) >> 12)
        };
        format!("{LINK_PREFIX}{tail}")
    }
}

/// Whether a DEL may leave the slow part to a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reap {
    /// This process stays: the link goes with its namespace, the address a little later.
    Later,
    /// This process ends: the link is deleted now.
    Now,
}

/// The plugin with one configuration.
#[derive(Debug)]
pub(crate) struct Crisp {
    settings: Settings,
    addresses: Addresses,
    table: Table,
    kernel: Mutex<Kernel>,
    undertaker: Arc<Undertaker>,
}

impl Crisp {
    /// Opens the records; nothing is done to the kernel yet.
    pub(crate) fn open(settings: Settings) -> Result<Self> {
        let addresses = Addresses::open(&settings.data_dir.join("addresses"))?;
        let ports = settings.data_dir.join("ports");
        crisp_sys::file::make_private_dirs(&ports)
            .map_err(Error::io("make port record directory", &ports))?;
        Ok(Self {
            table: Table::of(&settings.bridge),
            kernel: Mutex::new(Kernel::open()?),
            undertaker: Undertaker::new(addresses.clone()),
            addresses,
            settings,
        })
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn firewall(&self) -> Firewall<'_> {
        Firewall {
            bridge: &self.settings.bridge,
            subnets: &self.settings.subnets,
            masquerade: self.settings.masquerade,
        }
    }

    /// Bridge, sysctls and table are there, made anew when somebody removed them.
    fn ensure(&self, kernel: &mut Kernel) -> Result<u32> {
        let index = bridge::ensure(&mut kernel.route, &self.settings)?;
        self.ensure_table(kernel)?;
        nft::accept(kernel.netfilter()?, &self.settings.bridge)?;
        Ok(index)
    }

    fn ensure_table(&self, kernel: &mut Kernel) -> Result<()> {
        let recorded = || self.recorded_ports();
        self.table
            .ensure(kernel.netfilter()?, &self.firewall(), recorded)
    }

    /// What host ports need when the bridge is another plugin's.
    fn ensure_for_others(&self) -> Result<()> {
        let mut kernel = self.kernel();
        if link::by_name(&mut kernel.route, &self.settings.bridge)?.is_some() {
            bridge::let_loopback_in(&self.settings.bridge)?;
        }
        self.ensure_table(&mut kernel)
    }

    /// Makes bridge and firewall before the first pod comes.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.ensure(&mut self.kernel()).map(|_index| ())
    }

    /// Attaches a pod, or, after another plugin that did, only opens its host ports. Then
    /// `bridge` and `subnets` name that plugin's.
    pub(crate) fn add(&self, request: &Request) -> Result<CniResult> {
        let netns = request
            .netns
            .as_deref()
            .ok_or_else(|| Error::invalid("CNI_NETNS", "a network namespace is needed"))?;
        if let Some(previous) = request.previous.as_ref().filter(|p| !p.ips.is_empty()) {
            self.ensure_for_others()?;
            self.open_ports(request, &previous.addresses())?;
            return Ok(previous.clone());
        }
        let file = File::open(netns).map_err(Error::io("open network namespace", netns))?;
        let owner = request.owner.key();
        self.undertaker.forget(&owner);
        let addresses = self.take_addresses(request)?;
        let mac = request.mac.unwrap_or_else(|| mac_of(addresses[0].1));
        self.make_pair(request, &file, mac)?;
        pod_end::configure(&file, &request.owner.interface, &addresses)?;
        let plain: Vec<IpAddr> = addresses.iter().map(|(_, address)| *address).collect();
        self.open_ports(request, &plain)?;
        Ok(self.result(request, netns, &addresses, mac))
    }

    fn take_addresses(&self, request: &Request) -> Result<Vec<(Subnet, IpAddr)>> {
        let mut taken = Vec::new();
        for wanted in &request.addresses {
            if !self.settings.subnets.iter().any(|s| s.contains(*wanted)) {
                return Err(Error::invalid(
                    format!("address {wanted}"),
                    "in no pod subnet",
                ));
            }
        }
        for subnet in &self.settings.subnets {
            let wanted = request.addresses.iter().find(|a| subnet.contains(**a));
            let owner = request.owner.key();
            taken.push((
                *subnet,
                self.addresses.take(*subnet, &owner, wanted.copied())?,
            ));
        }
        Ok(taken)
    }

    fn make_pair(&self, request: &Request, netns: &File, mac: [u8; 6]) -> Result<()> {
        use std::os::fd::AsFd;
        let name = request.owner.link();
        let mut kernel = self.kernel();
        let bridge = self.ensure(&mut kernel)?;
        let pair = link::Pair {
            host: &name,
            pod: &request.owner.interface,
            bridge,
            netns: netns.as_fd(),
            mac,
            mtu: self.settings.mtu,
        };
        let attempt = |pair: &link::Pair<'_>, kernel: &mut Kernel| {
            let mut batch = Batch::default();
            link::push_pair(&mut batch, pair);
            link::push_hairpin(&mut batch, pair.host);
            kernel.route.run(batch)
        };
        match attempt(&pair, &mut kernel) {
            Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                // What an attachment under the same id left behind.
                delete_link(&mut kernel.route, &name)?;
                attempt(&pair, &mut kernel)
            }
            done => done,
        }
    }

    fn result(
        &self,
        request: &Request,
        netns: &Path,
        addresses: &[(Subnet, IpAddr)],
        mac: [u8; 6],
    ) -> CniResult {
        let interface = |name: &str, mac: String, sandbox: String| CniInterface {
            name: name.to_owned(),
            mac,
            sandbox,
            ..CniInterface::default()
        };
        let pod_mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        let sandbox = netns.display().to_string();
        let mut result = CniResult {
            interfaces: vec![
                interface(&self.settings.bridge, String::new(), String::new()),
                interface(&request.owner.link(), String::new(), String::new()),
                interface(&request.owner.interface, pod_mac, sandbox),
            ],
            ..CniResult::default()
        };
        for (subnet, address) in addresses {
            result.ips.push(CniIp {
                address: format!("{address}/{}", subnet.prefix()),
                gateway: Some(subnet.gateway().to_string()),
                interface: Some(2),
                ..CniIp::default()
            });
            let everywhere = if address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            result.push_route(everywhere, &subnet.gateway().to_string());
        }
        result
    }

    fn port_record(&self, owner: &str) -> PathBuf {
        self.settings
            .data_dir
            .join("ports")
            .join(owner.replace('/', ":"))
    }

    /// Host ports of all attachments, as recorded.
    fn recorded_ports(&self) -> Vec<Element> {
        let Ok(entries) = fs::read_dir(self.settings.data_dir.join("ports")) else {
            return Vec::new();
        };
        let read = |entry: io::Result<fs::DirEntry>| -> Option<Vec<Element>> {
            serde_json::from_slice(&fs::read(entry.ok()?.path()).ok()?).ok()
        };
        entries.filter_map(read).flatten().collect()
    }

    fn open_ports(&self, request: &Request, pod: &[IpAddr]) -> Result<()> {
        let owner = request.owner.key();
        let ports = host_ports(&request.ports, pod);
        if ports.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Element> = ports
            .into_iter()
            .map(|port| Element {
                owner: owner.clone(),
                port,
            })
            .collect();
        let mut kernel = self.kernel();
        let existing = self.table.elements(kernel.netfilter()?)?;
        nft::check_free(&existing, &wanted)?;
        let record = serde_json::to_vec(&wanted).map_err(|e| Error::invalid("host ports", e))?;
        let path = self.port_record(&owner);
        crisp_sys::file::write_atomic(&path, &record, 0o600)
            .map_err(Error::io("record host ports in", &path))?;
        self.table.open_ports(kernel.netfilter()?, &wanted)?;
        forget_flows(&wanted)
    }

    /// Detaches a pod; what is gone already is fine.
    pub(crate) fn del(&self, owner: &Owner, reap: Reap) -> Result<()> {
        let key = owner.key();
        let record = self.port_record(&key);
        let mut errors = Vec::new();
        if record.exists() {
            errors.extend(self.close_ports(|o| o == key).err());
            if errors.is_empty() {
                errors.extend(remove_record(&record).err());
            }
        }
        match reap {
            Reap::Later => self.undertaker.bury(key, owner.link()),
            Reap::Now => {
                let deleted = delete_link(&mut self.kernel().route, &owner.link());
                errors.extend(deleted.and_then(|()| self.addresses.free(&key)).err());
            }
        }
        Error::gather(errors)
    }

    fn close_ports(&self, condition: impl Fn(&str) -> bool) -> Result<()> {
        let closed = self
            .table
            .close_ports(self.kernel().netfilter()?, condition)?;
        forget_flows(&closed)
    }

    /// Whether an attachment is still whole.
    pub(crate) fn check(&self, request: &Request) -> Result<()> {
        let key = request.owner.key();
        let missing = |what: String| Err(Error::invalid(what, "missing"));
        let mut kernel = self.kernel();
        if link::by_name(&mut kernel.route, &self.settings.bridge)?.is_none() {
            return missing(format!("bridge {}", self.settings.bridge));
        }
        let elements = self.table.elements(kernel.netfilter()?)?;
        drop(kernel);
        let addresses = match &request.previous {
            Some(previous) => previous.addresses(),
            None => self.addresses.of(&key)?,
        };
        for port in host_ports(&request.ports, &addresses) {
            if !elements.iter().any(|e| e.owner == key && e.port == port) {
                return missing(format!("host port {}", port.port));
            }
        }
        let Some(netns) = &request.netns else {
            return Ok(());
        };
        let file = File::open(netns).map_err(Error::io("open network namespace", netns))?;
        pod_end::check(&file, &request.owner.interface)
    }

    /// Drops what belongs to no valid attachment.
    pub(crate) fn collect(&self, valid: &BTreeSet<Owner>) -> Result<()> {
        let keys: BTreeSet<String> = valid.iter().map(Owner::key).collect();
        let links: BTreeSet<String> = valid.iter().map(Owner::link).collect();
        let mut errors = Vec::new();
        errors.extend(self.close_ports(|owner| !keys.contains(owner)).err());
        errors.extend(self.delete_stray_links(&links).err());
        for owner in self.addresses.owners()? {
            let dead = !keys.contains(&owner);
            if let Some(owner) = Owner::parse(&owner).filter(|_| dead) {
                errors.extend(self.del(&owner, Reap::Now).err());
            }
        }
        for element in self.recorded_ports() {
            if !keys.contains(&element.owner) {
                errors.extend(remove_record(&self.port_record(&element.owner)).err());
            }
        }
        Error::gather(errors)
    }

    fn delete_stray_links(&self, expected: &BTreeSet<String>) -> Result<()> {
        let mut kernel = self.kernel();
        let Some(bridge) = link::by_name(&mut kernel.route, &self.settings.bridge)? else {
            return Ok(());
        };
        let mut batch = Batch::default();
        for port in link::ports(&mut kernel.route, bridge.index)? {
            let ours = port.kind == "veth" && port.name.starts_with(LINK_PREFIX);
            if ours && !expected.contains(&port.name) {
                link::push_delete(&mut batch, port.index);
            }
        }
        kernel.route.run(batch)
    }

    /// Removes bridge and table when no attachment is left.
    pub(crate) fn retire(&self) -> Result<()> {
        self.undertaker.finish();
        if !self.addresses.all()?.is_empty() || !self.recorded_ports().is_empty() {
            return Ok(());
        }
        let mut kernel = self.kernel();
        self.table.remove(kernel.netfilter()?)?;
        nft::withdraw(kernel.netfilter()?, &self.settings.bridge)?;
        bridge::remove(&mut kernel.route, &self.settings)
    }
}

/// The MAC follows from the address, so that an address that is used again does not meet its
/// neighbours' memory of the former MAC.
fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => v6.octets().last_chunk().copied().unwrap_or_default(),
    };
    [0x02, 0x63, a, b, c, d]
}

fn delete_link(channel: &mut Channel, name: &str) -> Result<()> {
    let Some(found) = link::by_name(channel, name)? else {
        return Ok(());
    };
    let mut batch = Batch::default();
    link::push_delete(&mut batch, found.index);
    channel.run(batch)
}

fn remove_record(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove host port record", path)(e))
        }
        _ => Ok(()),
    }
}

fn forget_flows(elements: &[Element]) -> Result<()> {
    let udp = |e: &&Element| e.port.protocol == crisp_model::Protocol::Udp;
    for v4 in [true, false] {
        let ours = elements
            .iter()
            .filter(udp)
            .filter(|e| e.port.host.is_ipv4() == v4);
        let ports: Vec<u16> = ours.clone().map(|e| e.port.port).collect();
        if let Some(first) = ours.clone().next() {
            conntrack::forget_udp(first.port.host, &ports)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_after_their_owner_and_fit() {
        let owner = |container: &str, interface: &str| Owner {
            container: container.to_owned(),
            interface: interface.to_owned(),
        };
        let pod = owner(&"0123456789abcdef".repeat(4), "eth0");
        assert_eq!(pod.link(), "cr0123456789abc");
        for other in [
            owner(&pod.container, "eth1"),
            owner("x", "eth0"),
            owner("", ""),
        ] {
            assert_eq!(other.link().len(), 15, "{other:?}");
            assert_ne!(other.link(), pod.link());
        }
        assert_eq!(Owner::parse(&pod.key()), Some(pod));
    }

    #[test]
    fn an_address_has_one_mac() {
        let mac = |a: &str| mac_of(a.parse().unwrap());
        assert_eq!(mac("10.88.1.2"), [0x02, 0x63, 10, 88, 1, 2]);
        assert_eq!(mac("fd00::1:2"), [0x02, 0x63, 0, 1, 0, 2]);
    }
}
