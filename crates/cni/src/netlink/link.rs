//! Links, addresses and routes: the requests, and what the kernel answers.
//!
//! Requests are written with `netlink-packet-route`. Answers are read attribute by attribute,
//! because that crate fails on a whole message when it does not know the form of one attribute, and
//! the kernel of a node may be newer than the crate. Functions called `push_…` add a request to a
//! batch; the others ask and wait.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::os::unix::prelude::*;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::channel::{Batch, Channel, Refusal};
use super::wire::{self, Attributes, find};
use crate::attachment::InterfaceStats;
use crate::error::{Context, Result};
use crate::subnet::address_of;

/// Length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// Loopback is the first link of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// A link as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub kind: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub is_up: bool,
}

/// A veth pair that is to be made.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub host: &'a str,
    pub pod: &'a str,
    pub bridge: u32,
    pub netns: BorrowedFd<'a>,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
}

fn push(batch: &mut Batch, what: String, flags: u16, message: &RouteNetlinkMessage) {
    let mut body = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut body);
    batch.push(what, message.message_type(), flags, &body);
}

fn up() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// Brings loopback up.
pub(crate) fn push_loopback_up(batch: &mut Batch) {
    let mut message = up();
    message.header.index = LOOPBACK_INDEX;
    push(
        batch,
        "bring lo up".into(),
        0,
        &RouteNetlinkMessage::SetLink(message),
    );
}

/// Takes 127.0.0.1 from loopback.
#[cfg(test)]
pub(crate) fn push_no_loopback_address(batch: &mut Batch) {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 8;
    message.header.index = LOOPBACK_INDEX;
    message.attributes = vec![AddressAttribute::Local(Ipv4Addr::LOCALHOST.into())];
    let message = RouteNetlinkMessage::DelAddress(message);
    push(batch, "take 127.0.0.1 from lo".into(), 0, &message);
}

/// Makes a bridge that keeps its MAC (the kernel's own choice follows its ports and would
/// invalidate the pods' neighbour entries). Without multicast snooping, which would only delay
/// IPv6 neighbour discovery on a bridge without a querier.
pub(crate) fn push_bridge(batch: &mut Batch, name: &str, mac: [u8; 6], mtu: Option<u32>) {
    let mut message = up();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ]),
    ];
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    push(
        batch,
        format!("make bridge {name}"),
        flags,
        &RouteNetlinkMessage::NewLink(message),
    );
}

/// Writes a link's alias, where tools show who owns it.
pub(crate) fn push_alias(batch: &mut Batch, name: &str, alias: &str) {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::IfAlias(alias.to_owned()),
    ];
    push(
        batch,
        format!("name the owner of {name}"),
        0,
        &RouteNetlinkMessage::SetLink(message),
    );
}

/// Sets the MTU of a link.
pub(crate) fn push_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    let what = format!("set the MTU of link {index} to {mtu}");
    push(batch, what, 0, &RouteNetlinkMessage::SetLink(message));
}

/// Brings a link up.
pub(crate) fn push_up(batch: &mut Batch, index: u32) {
    let mut message = up();
    message.header.index = index;
    push(
        batch,
        format!("bring link {index} up"),
        0,
        &RouteNetlinkMessage::SetLink(message),
    );
}

/// Gives a link another MAC.
#[cfg(test)]
pub(crate) fn push_mac(batch: &mut Batch, index: u32, mac: [u8; 6]) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Address(mac.to_vec())];
    let what = format!("change the MAC of link {index}");
    push(batch, what, 0, &RouteNetlinkMessage::SetLink(message));
}

/// Takes a link down.
#[cfg(test)]
pub(crate) fn push_down(batch: &mut Batch, index: u32) {
    let mut message = up();
    message.header.index = index;
    message.header.flags = LinkFlags::empty();
    let what = format!("take link {index} down");
    push(batch, what, 0, &RouteNetlinkMessage::SetLink(message));
}

/// Makes a veth pair in one message: the host end enslaved and up, the peer in the pod. The peer
/// is down, for the kernel cannot bring it up before the pair is whole. One queue each, or the
/// kernel waits twice for an RCU grace period.
pub(crate) fn push_pair(batch: &mut Batch, pair: &Pair<'_>) {
    let queues = || [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(pair.pod.to_owned()),
        LinkAttribute::NetNsFd(pair.netns.as_raw_fd()),
        LinkAttribute::Address(pair.mac.to_vec()),
    ];
    peer.attributes.extend(queues());
    peer.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
    let mut host = up();
    host.attributes = vec![
        LinkAttribute::IfName(pair.host.to_owned()),
        LinkAttribute::Controller(pair.bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    host.attributes.extend(queues());
    host.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
    let what = format!("make veth {} with peer {}", pair.host, pair.pod);
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    push(batch, what, flags, &RouteNetlinkMessage::NewLink(host));
}

/// Sets up the bridge port of a pod. Frames may leave it where they came in, for a pod that calls
/// itself by host port; and the bridge does not learn from it whose MAC is there: [`super::fdb`]
/// says so.
pub(crate) fn push_port(batch: &mut Batch, port: &str) {
    let modes = InfoPortData::BridgePort(vec![
        InfoBridgePort::HairpinMode(true),
        InfoBridgePort::Learning(false),
    ]);
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(port.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(modes),
        ]),
    ];
    push(
        batch,
        format!("set up bridge port {port}"),
        0,
        &RouteNetlinkMessage::NewLink(message),
    );
}

/// Adds an address that is usable at once (no duplicate address detection).
pub(crate) fn push_address(batch: &mut Batch, index: u32, address: IpAddr, prefix: u8) {
    let mut message = AddressMessage::default();
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    match address {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(v4) | hosts);
            message
                .attributes
                .push(AddressAttribute::Broadcast(broadcast));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    let what = format!("add address {address}/{prefix} to link {index}");
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    push(
        batch,
        what,
        flags,
        &RouteNetlinkMessage::NewAddress(message),
    );
}

/// Adds a default route.
pub(crate) fn push_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let (family, gateway_attribute) = match gateway {
        IpAddr::V4(v4) => (AddressFamily::Inet, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, RouteAddress::Inet6(v6)),
    };
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Gateway(gateway_attribute),
        RouteAttribute::Oif(index),
    ];
    let what = format!("add default route by {gateway}");
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    push(batch, what, flags, &RouteNetlinkMessage::NewRoute(message));
    batch.tolerate(&[libc::EEXIST]);
}

/// Deletes a link; a missing one is no error.
pub(crate) fn push_delete(batch: &mut Batch, index: u32) {
    let mut message = LinkMessage::default();
    message.header.index = index;
    push(
        batch,
        format!("delete link {index}"),
        0,
        &RouteNetlinkMessage::DelLink(message),
    );
    batch.tolerate(&[libc::ENODEV]);
}

pub(crate) fn parse(body: &[u8]) -> Option<(Link, &[u8])> {
    let (header, rest) = body.split_first_chunk::<LINK_HEADER>()?;
    let mut link = Link {
        index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
        // The lowest bit of `ifi_flags` is IFF_UP.
        is_up: header[8] & 1 != 0,
        ..Link::default()
    };
    for (kind, value) in wire::attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => link.name = wire::text(value),
            libc::IFLA_IFALIAS => link.alias = wire::text(value),
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            libc::IFLA_MTU => link.mtu = value.first_chunk().map_or(0, |v| u32::from_ne_bytes(*v)),
            libc::IFLA_LINKINFO => {
                link.kind = find(value, libc::IFLA_INFO_KIND)
                    .map(wire::text)
                    .unwrap_or_default()
            }
            _ => {}
        }
    }
    Some((link, rest))
}

fn header() -> Vec<u8> {
    vec![0; LINK_HEADER]
}

/// A link by its name.
pub(crate) fn by_name(channel: &mut Channel, name: &str) -> Result<Option<Link>> {
    let mut body = header();
    let wanted = Attributes::new()
        .bytes(
            libc::IFLA_EXT_MASK,
            &libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
        )
        .text(libc::IFLA_IFNAME, name);
    body.extend_from_slice(wanted.as_bytes());
    match channel.query(libc::RTM_GETLINK, NLM_F_ACK, &body) {
        Ok(found) => Ok(found.first().and_then(|b| parse(b)).map(|(link, _)| link)),
        Err(Refusal {
            errno: libc::ENODEV,
            ..
        }) => Ok(None),
        Err(refusal) => Err(refusal.into_error(&format!("look up link {name}"))),
    }
}

/// Deletes a link by its name; a missing one is no error.
pub(crate) fn delete(channel: &mut Channel, name: &str) -> Result<()> {
    let Some(found) = by_name(channel, name)? else {
        return Ok(());
    };
    let mut batch = Batch::default();
    push_delete(&mut batch, found.index);
    channel.run(batch)
}

/// The links that a dump returns, each with its attributes.
fn dump(channel: &mut Channel, wanted: Attributes, step: &str) -> Result<Vec<Vec<u8>>> {
    let skip_stats = libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    let wanted = wanted.bytes(libc::IFLA_EXT_MASK, &skip_stats);
    let mut body = header();
    body.extend_from_slice(wanted.as_bytes());
    channel
        .query(libc::RTM_GETLINK, NLM_F_DUMP, &body)
        .map_err(|refusal| refusal.into_error(step))
}

/// All links.
pub(crate) fn all(channel: &mut Channel) -> Result<Vec<Link>> {
    let found = dump(channel, Attributes::new(), "list links")?;
    let links = found.iter().filter_map(|body| parse(body));
    Ok(links.map(|(link, _)| link).collect())
}

/// All ports of a bridge.
pub(crate) fn ports(channel: &mut Channel, bridge: u32) -> Result<Vec<Link>> {
    let wanted = Attributes::new().bytes(libc::IFLA_MASTER, &bridge.to_ne_bytes());
    let found = dump(channel, wanted, "list bridge ports")?;
    let is_port = |rest: &[u8]| find(rest, libc::IFLA_MASTER) == Some(&bridge.to_ne_bytes());
    let links = found.iter().filter_map(|body| parse(body));
    Ok(links
        .filter(|(_, rest)| is_port(rest))
        .map(|(link, _)| link)
        .collect())
}

/// Counters of all links but loopback.
pub(crate) fn statistics(channel: &mut Channel) -> Result<Vec<InterfaceStats>> {
    let found = channel
        .query(libc::RTM_GETLINK, NLM_F_DUMP, &header())
        .map_err(|refusal| refusal.into_error("read interface counters"))?;
    let stats = found.iter().filter_map(|body| {
        let (link, rest) = parse(body)?;
        let values = find(rest, libc::IFLA_STATS64)?;
        let at = |n: usize| {
            let bytes = values.get(n * 8..n * 8 + 8).and_then(|b| b.first_chunk());
            bytes.map_or(0, |b| u64::from_ne_bytes(*b))
        };
        (link.index != LOOPBACK_INDEX).then(|| InterfaceStats {
            name: link.name,
            rx_packets: at(0),
            tx_packets: at(1),
            rx_bytes: at(2),
            tx_bytes: at(3),
            rx_errors: at(4),
            tx_errors: at(5),
            rx_dropped: at(6),
            tx_dropped: at(7),
        })
    });
    Ok(stats.collect())
}

/// All addresses of the node that are valid beyond one link, with the length of their prefixes.
pub(crate) fn addresses(channel: &mut Channel) -> Result<Vec<IpNet>> {
    let found = channel
        .query(libc::RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER])
        .map_err(|refusal| refusal.into_error("list the node's addresses"))?;
    let addresses = found.iter().filter_map(|body| {
        let (header, rest) = body.split_first_chunk::<ADDRESS_HEADER>()?;
        let octets = find(rest, libc::IFA_LOCAL).or_else(|| find(rest, libc::IFA_ADDRESS))?;
        let net = IpNet::new(address_of(octets)?, header[1]).ok()?;
        (header[3] < libc::RT_SCOPE_LINK).then_some(net)
    });
    Ok(addresses.collect())
}

/// Opens a route socket in the calling thread's network namespace.
pub(crate) fn open() -> Result<Channel> {
    Channel::open(netlink_sys::protocols::NETLINK_ROUTE).context(|| "open a route netlink socket")
}
