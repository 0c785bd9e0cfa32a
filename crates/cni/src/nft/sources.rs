//! The rules that hold a pod to its own addresses. Nothing here talks to the kernel.
//!
//! A container usually has CAP_NET_RAW, so it can send any frame; neighbours believe whichever
//! sender ARP and neighbour discovery name. The one chain sees all frames that come in by a port of
//! any bridge of the node and leaves those alone that come from no port of a pod. From a pod it
//! drops
//! - IPv4 and ARP whose sender is not an address of the pod. ARP for a sender of zero passes: that
//!   is a probe, which changes nobody's cache.
//! - IPv6 whose source, and neighbour advertisements whose target, is not an address of the pod.
//!   The unspecified source passes (duplicate address detection). A link-local address passes
//!   unless it is known to be another's: a pod may make more of them, and nobody routes by them.
//! - router advertisements and redirects, which only a router sends;
//! - frames with tags of VLANs within one another: the receiver takes off tags of VLAN 0, however
//!   many, and the rules see below the first alone.
//!
//! The MAC in a frame is not compared. It leads nowhere, because the bridge does not learn, and a
//! cluster within a pod may have a bridge of its own.

use std::net::Ipv6Addr;

use super::expression::{Base, Meta, Rule, Test, Verdict};
use crate::netlink::netfilter::octet;

/// Ports of pods.
pub(super) const PODS: &str = "pods";
/// Ports with an IPv4 address that pods send from.
pub(super) const OWN_V4: &str = "own4";
/// Ports with an IPv6 address that pods send from.
pub(super) const OWN_V6: &str = "own6";
/// Link-local addresses that are somebody's.
pub(super) const LINK_LOCAL: &str = "linklocal";

/// The word after an interface's name.
const ADDRESS: u32 = 4;
const ARP_SENDER: u32 = 14;
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 8;
const ADVERTISED: u32 = 8;
/// The mask and the network of link-local addresses, as far as they are told apart by two octets.
const LINK_LOCAL_MASK: [u8; 2] = [0xff, 0xc0];
const LINK_LOCAL_NETWORK: [u8; 2] = [0xfe, 0x80];

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where an address lies in a packet.
#[derive(Clone, Copy)]
struct Field {
    base: Base,
    offset: u32,
    length: u32,
}

fn of_type(frame_type: libc::c_int) -> Rule {
    let frame_type = u16::try_from(frame_type).unwrap_or(0);
    Rule::new()
        .meta(Meta::FrameType, 0)
        .compare(0, Test::Equal, &frame_type.to_be_bytes())
}

fn network(offset: u32, length: u32) -> Field {
    Field {
        base: Base::Network,
        offset,
        length,
    }
}

fn load(rule: Rule, field: Field, to: u32) -> Rule {
    rule.payload(field.base, field.offset, field.length, to)
}

/// Loads the key of the sets of addresses.
fn key(rule: Rule, field: Field) -> Rule {
    load(rule.meta(Meta::InName, 0), field, ADDRESS)
}

fn icmpv6(kind: u8) -> Rule {
    of_type(libc::ETH_P_IPV6)
        .meta(Meta::Protocol, 0)
        .compare(0, Test::Equal, &[octet(libc::IPPROTO_ICMPV6)])
        .payload(Base::Transport, 0, 1, 0)
        .compare(0, Test::Equal, &[kind])
}

/// Drops what names an IPv6 address that is not the pod's. The unspecified address passes.
fn only_own(start: impl Fn() -> Rule, field: Field) -> [Rule; 2] {
    let prefix = Field { length: 2, ..field };
    let routed = load(start(), prefix, 0).mask(0, &LINK_LOCAL_MASK).compare(
        0,
        Test::NotEqual,
        &LINK_LOCAL_NETWORK,
    );
    let routed = load(routed, field, 0).compare(0, Test::NotEqual, &Ipv6Addr::UNSPECIFIED.octets());
    let somebodys = load(start(), field, 0).within(LINK_LOCAL);
    [routed, somebodys].map(|rule| key(rule, field).outside(OWN_V6).verdict(Verdict::Drop))
}

/// The rules, in order. Most of a pod's IPv4 goes no further than the first.
pub(super) fn source_rules() -> Vec<Rule> {
    let source = network(SOURCE_V4, 4);
    let sender = network(ARP_SENDER, 4);
    let drop = |rule: Rule| rule.verdict(Verdict::Drop);
    let accept = |rule: Rule| rule.verdict(Verdict::Accept);
    let mut rules = vec![
        accept(key(of_type(libc::ETH_P_IP), source).within(OWN_V4)),
        accept(Rule::new().meta(Meta::InName, 0).outside(PODS)),
        drop(of_type(libc::ETH_P_IP)),
        accept(load(of_type(libc::ETH_P_ARP), sender, 0).compare(0, Test::Equal, &[0; 4])),
        drop(key(of_type(libc::ETH_P_ARP), sender).outside(OWN_V4)),
        drop(of_type(libc::ETH_P_8021Q)),
        drop(of_type(libc::ETH_P_8021AD)),
        drop(icmpv6(ROUTER_ADVERTISEMENT)),
        drop(icmpv6(REDIRECT)),
    ];
    let target = Field {
        base: Base::Transport,
        ..network(ADVERTISED, 16)
    };
    rules.extend(only_own(|| icmpv6(NEIGHBOUR_ADVERTISEMENT), target));
    let from = || of_type(libc::ETH_P_IPV6);
    rules.extend(only_own(from, network(SOURCE_V6, 16)));
    rules
}
