//! The plugin `crisp` with one configuration: ADD, DEL, CHECK and GC of the built-in network.
//!
//! ADD records the addresses, makes the veth pair (one message: the host end on the bridge, the
//! peer in the pod), gives the peer its addresses and routes, and opens the host ports, in this
//! order. DEL closes the ports and leaves the pair to the end of its namespace, which the caller
//! brings about, because deleting a bridged veth takes tens of milliseconds. Addresses are released
//! only when the link is gone ([`super::address_release`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address_release::{AddressRelease, Lease};
use super::addresses::Addresses;
use super::mac::mac_of;
use super::owner::{LINK_PREFIX, Owner};
use super::port_records::PortRecords;
use super::settings::{Request, Settings};
use super::sockets::{Sockets, Watched};
use super::source_check::{self, SourceCheck};
use super::{bridge, listeners, veth_peer};
use crate::error::{Context, Error, Result};
use crate::netlink::{Batch, conntrack, fdb, link};
use crate::nft::{self, Element, Firewall, Look, Table, host_ports, without_address};
use crate::protocol::{CniInterface, CniIp, CniResult};
use crate::subnet::Subnet;

/// Type of this plugin in configurations.
pub(crate) const TYPE: &str = "crisp";

/// When a DEL removes the link, which takes tens of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkRemoval {
    /// The link ends with its namespace and the addresses are released afterwards, by the worker of
    /// a process that stays.
    WithNamespace,
    /// The link is deleted now, by a process that ends, or because nobody will end the namespace.
    Now,
}

/// The plugin with one configuration.
#[derive(Debug)]
pub(crate) struct Crisp {
    settings: Settings,
    addresses: Addresses,
    table: Table,
    sources: SourceCheck,
    ports: PortRecords,
    sockets: Mutex<Sockets>,
    release: Arc<AddressRelease>,
}

impl Crisp {
    /// Opens the records; nothing is done to the kernel yet.
    pub(crate) fn open(settings: Settings, release: Arc<AddressRelease>) -> Result<Self> {
        let addresses = Addresses::open(&settings.data_dir.join("addresses"))?;
        Ok(Self {
            table: Table::of(&settings.bridge),
            sources: SourceCheck::of(&settings.bridge),
            ports: PortRecords::open(&settings.data_dir.join("ports"))?,
            sockets: Mutex::new(Sockets::open()?),
            release,
            addresses,
            settings,
        })
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self, owner: &Owner) -> Lease {
        Lease {
            addresses: self.addresses.clone(),
            owner: owner.key(),
            bridge: self.settings.bridge.clone(),
            subnets: self.settings.subnets.clone(),
        }
    }

    fn firewall(&self) -> Firewall<'_> {
        Firewall {
            bridge: &self.settings.bridge,
            subnets: &self.settings.subnets,
            masquerade: self.settings.masquerade,
            except: &self.settings.masquerade_except,
        }
    }

    /// Makes the parts of bridge, sysctls and firewall table that are missing. Each ADD does this,
    /// because another program may have removed them.
    fn ensure(&self, sockets: &mut Sockets) -> Result<u32> {
        let index = bridge::ensure(&mut sockets.route, &self.settings)?;
        self.ensure_table(sockets)?;
        if sockets.watched != Watched::Always {
            self.ensure_sources(sockets, Look::Name)?;
            nft::accept(sockets.netfilter()?, &self.settings.bridge)?;
            sockets.watched = Watched::Never;
        }
        Ok(index)
    }

    fn ensure_table(&self, sockets: &mut Sockets) -> Result<()> {
        let recorded = || self.ports.all();
        self.table
            .ensure(sockets.netfilter()?, &self.firewall(), Look::Name, recorded)
    }

    fn ensure_sources(&self, sockets: &mut Sockets, look: Look) -> Result<Option<&'static str>> {
        self.release.while_none_goes(|| {
            self.sources
                .ensure(sockets, (&self.settings, look), &self.addresses)
        })
    }

    /// Forgets what released addresses could send, where no worker will. A table that is not there
    /// is none of ours to make: this may be a plugin that only opens host ports.
    fn forget_sources(&self, sockets: &mut Sockets) -> Result<()> {
        if sockets.watched != Watched::Always && self.sources.is_made(sockets)? {
            self.ensure_sources(sockets, Look::Name)?;
        }
        Ok(())
    }

    /// Makes only what host ports need, for a bridge that belongs to another plugin.
    fn ensure_for_others(&self) -> Result<()> {
        let mut sockets = self.sockets();
        if let Some(there) = link::by_name(&mut sockets.route, &self.settings.bridge)? {
            bridge::check_kind(&there)?;
            bridge::let_loopback_in(&self.settings.bridge)?;
        }
        self.ensure_table(&mut sockets)
    }

    /// Makes bridge and firewall before the first pod comes, and makes whole again what another
    /// program has changed since. Returns what of the node's firewall may cut pods off, and what
    /// the kernel lacks.
    pub(crate) fn prepare(&self) -> Result<Vec<String>> {
        let mut sockets = self.sockets();
        if sockets.watched == Watched::Retired {
            return Ok(Vec::new());
        }
        bridge::mend(&mut sockets.route, &self.settings)?;
        let recorded = || self.ports.all();
        self.table.ensure(
            sockets.netfilter()?,
            &self.firewall(),
            Look::Rules,
            recorded,
        )?;
        let mut left = nft::accept(sockets.netfilter()?, &self.settings.bridge)?;
        let unchecked = self.ensure_sources(&mut sockets, Look::Rules)?;
        left.extend(unchecked.map(str::to_owned));
        sockets.watched = Watched::Always;
        Ok(left)
    }

    /// Attaches a pod. Behind another plugin in the chain, which has attached the pod already, it
    /// only opens the host ports; `bridge` and `subnets` then name that plugin's.
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
        let file = open_netns(netns)?;
        self.release.cancel(&self.lease(&request.owner));
        let addresses = self.take_addresses(request)?;
        let mac = request.mac.unwrap_or_else(|| mac_of(addresses[0].1));
        self.make_pair(request, &file, (mac, &addresses))?;
        veth_peer::configure(&file, &request.owner.interface, &addresses)?;
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

    fn make_pair(
        &self,
        request: &Request,
        netns: &File,
        (mac, addresses): ([u8; 6], &[(Subnet, IpAddr)]),
    ) -> Result<()> {
        let name = request.owner.link();
        let mut sockets = self.sockets();
        let bridge = self.ensure(&mut sockets)?;
        let pair = link::Pair {
            host: &name,
            pod: &request.owner.interface,
            bridge,
            netns: netns.as_fd(),
            mac,
            mtu: self.settings.mtu,
        };
        let attempt = |pair: &link::Pair<'_>, sockets: &mut Sockets| {
            let mut batch = Batch::default();
            link::push_pair(&mut batch, pair);
            link::push_port(&mut batch, pair.host);
            sockets.route.run(batch)
        };
        match attempt(&pair, &mut sockets) {
            Err(error) if error.is_kernel(libc::EEXIST) => {
                // A former attachment under the same id left its link behind.
                link::delete(&mut sockets.route, &name)?;
                attempt(&pair, &mut sockets)
            }
            done => done,
        }?;
        // The peer is still down: no frame has come from it.
        let port = link::by_name(&mut sockets.route, &name)?;
        let port = port.ok_or_else(|| Error::invalid(format!("link {name}"), "vanished"))?;
        fdb::bind(&mut sockets.route, bridge, port.index, mac)?;
        let pod = (&request.owner, addresses);
        if !self.sources.admit(&mut sockets, &self.settings, pod)? {
            // Another program has removed the table.
            self.ensure_sources(&mut sockets, Look::Name)?;
        }
        Ok(())
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

    fn open_ports(&self, request: &Request, pod: &[IpAddr]) -> Result<()> {
        let owner = request.owner.key();
        for port in without_address(&request.ports, pod) {
            tracing::warn!(pod_id = %request.owner.container, host_ip = ?port.host_ip, port = port.host_port,
                "the host port is not opened: the pod has no address of the family of its hostIP");
        }
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
        for port in listeners::shadowed(wanted.iter().map(|element| &element.port)) {
            tracing::warn!(pod_id = %request.owner.container, host_ip = %port.host, port = port.port,
                "a program of the node listens on the host port: the pod gets what comes for it");
        }
        let mut sockets = self.sockets();
        let existing = self.table.elements(sockets.netfilter()?)?;
        nft::check_free(&existing, &wanted)?;
        self.ports.write(&owner, &wanted)?;
        self.table.open_ports(sockets.netfilter()?, &wanted)?;
        forget_flows(&wanted)
    }

    /// Detaches a pod. Parts of the attachment that are missing are no error.
    pub(crate) fn del(&self, owner: &Owner, removal: LinkRemoval) -> Result<()> {
        let key = owner.key();
        let mut errors = Vec::new();
        if self.ports.has(&key) {
            let closed = self.close_ports(|owner| owner == key);
            // A record that cannot be read names no owner.
            errors.extend(closed.and_then(|()| self.ports.remove(&key)).err());
        }
        match removal {
            LinkRemoval::WithNamespace => {
                self.release.release_after(self.lease(owner), owner.link());
            }
            LinkRemoval::Now => {
                let mut sockets = self.sockets();
                let deleted = link::delete(&mut sockets.route, &owner.link());
                let released = deleted.and_then(|()| self.release_now(&mut sockets, &key));
                errors.extend(released.err());
                errors.extend(self.forget_sources(&mut sockets).err());
            }
        }
        Error::gather(errors)
    }

    /// Releases the addresses of an owner whose link is gone, and what it could send from: no change
    /// in the kernel follows that would have somebody look.
    fn release_now(&self, sockets: &mut Sockets, key: &str) -> Result<()> {
        let place = (
            self.settings.bridge.as_str(),
            self.settings.subnets.as_slice(),
        );
        self.release.while_none_goes(|| {
            source_check::forget(sockets, place, (&self.addresses, key))?;
            self.addresses.release(key)
        })
    }

    /// Closes the host ports of some attachments and removes their records. Both under one lock: a
    /// table that is mended in between would get the ports back from the records.
    fn close_ports(&self, condition: impl Fn(&str) -> bool) -> Result<()> {
        let mut sockets = self.sockets();
        let closed = self.table.close_ports(sockets.netfilter()?, &condition)?;
        let mut owners: Vec<String> = self.ports.all().into_iter().map(|e| e.owner).collect();
        owners.dedup();
        for owner in owners.iter().filter(|owner| condition(owner)) {
            self.ports.remove(owner)?;
        }
        drop(sockets);
        forget_flows(&closed)
    }

    /// Whether all parts of an attachment exist.
    pub(crate) fn check(&self, request: &Request) -> Result<()> {
        let key = request.owner.key();
        let missing = |what: String| Err(Error::invalid(what, "missing"));
        let mut sockets = self.sockets();
        if link::by_name(&mut sockets.route, &self.settings.bridge)?.is_none() {
            return missing(format!("bridge {}", self.settings.bridge));
        }
        let elements = self.table.elements(sockets.netfilter()?)?;
        drop(sockets);
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
        let file = open_netns(netns)?;
        veth_peer::check(&file, &request.owner.interface)
    }

    /// Makes lost records of host ports anew, from the ports that the kernel has: without its
    /// record a port would stay open after its pod.
    fn recall_ports(&self, keys: &BTreeSet<String>) -> Result<()> {
        let open = self.table.elements(self.sockets().netfilter()?)?;
        let mut lost: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        for element in open.iter().filter(|open| keys.contains(&open.owner)) {
            lost.entry(&element.owner)
                .or_default()
                .push(element.clone());
        }
        lost.retain(|owner, _| !self.ports.is_whole(owner));
        for (owner, ports) in lost {
            tracing::warn!(owner, "a lost record of host ports is made anew");
            self.ports.remove(owner)?;
            self.ports.write(owner, &ports)?;
        }
        Ok(())
    }

    /// Removes all addresses, links and host ports that belong to no valid attachment.
    pub(crate) fn collect(&self, valid: &BTreeSet<Owner>) -> Result<()> {
        let keys: BTreeSet<String> = valid.iter().map(Owner::key).collect();
        let links: BTreeSet<String> = valid.iter().map(Owner::link).collect();
        let mut errors = Vec::new();
        errors.extend(self.close_ports(|owner| !keys.contains(owner)).err());
        errors.extend(self.recall_ports(&keys).err());
        errors.extend(self.delete_stray_links(&links).err());
        for owner in self.addresses.owners()? {
            let dead = !keys.contains(&owner);
            if let Some(owner) = Owner::parse(&owner).filter(|_| dead) {
                errors.extend(self.del(&owner, LinkRemoval::Now).err());
            }
        }
        errors.extend(self.forget_sources(&mut self.sockets()).err());
        Error::gather(errors)
    }

    fn delete_stray_links(&self, expected: &BTreeSet<String>) -> Result<()> {
        let mut sockets = self.sockets();
        let Some(bridge) = link::by_name(&mut sockets.route, &self.settings.bridge)? else {
            return Ok(());
        };
        let mut batch = Batch::default();
        for port in link::ports(&mut sockets.route, bridge.index)? {
            let ours = port.kind == "veth" && port.name.starts_with(LINK_PREFIX);
            if ours && !expected.contains(&port.name) {
                link::push_delete(&mut batch, port.index);
            }
        }
        sockets.route.run(batch)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a pod has an address or a host port.
    pub(crate) fn is_used(&self) -> Result<bool> {
        Ok(!self.addresses.all()?.is_empty() || !self.ports.all().is_empty())
    }

    /// Looks after the network again, after it was retired.
    pub(crate) fn revive(&self) {
        self.sockets().watched = Watched::Never;
    }

    /// Removes bridge and table when no attachment is left.
    pub(crate) fn retire(&self) -> Result<()> {
        self.release.finish();
        if self.is_used()? {
            return Ok(());
        }
        let mut sockets = self.sockets();
        sockets.watched = Watched::Retired;
        self.table.remove(sockets.netfilter()?)?;
        self.sources.remove(&mut sockets)?;
        nft::withdraw(sockets.netfilter()?, &self.settings.bridge)?;
        bridge::remove(&mut sockets.route, &self.settings)
    }
}

fn open_netns(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("open network namespace {}", path.display()))
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
