//! Forgetting UDP flows that still point at what a host port meant before.
//!
//! A UDP flow lives as long as packets come. One that was seen before the host port existed goes
//! on to nowhere, and one to a former pod goes on to its address: both only end when their entry
//! is deleted.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;

use super::wire::{Attributes, attributes, find};
use super::{Batch, Channel, nfnetlink_body};
use crate::Result;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;
const NFNETLINK_HEADER: usize = 4;
const UDP: u8 = 17;

fn is_udp_to(body: &[u8], ports: &[u16]) -> bool {
    let proto = body
        .get(NFNETLINK_HEADER..)
        .and_then(|rest| find(rest, TUPLE_ORIGINAL))
        .and_then(|tuple| find(tuple, TUPLE_PROTO));
    let Some(proto) = proto else { return false };
    let port = find(proto, PROTO_DESTINATION_PORT)
        .and_then(|v| v.first_chunk())
        .map(|v| u16::from_be_bytes(*v));
    find(proto, PROTO_NUMBER) == Some(&[UDP]) && port.is_some_and(|p| ports.contains(&p))
}

/// Deletes the flows of the node whose original destination is one of these UDP ports.
pub(crate) fn forget_udp(family_of: IpAddr, ports: &[u16]) -> Result<()> {
    let family = crate::nft::family(family_of);
    let Ok(mut channel) = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER) else {
        return Ok(());
    };
    // Without the conntrack module there are no flows, and the kernel does not know the request.
    let Ok(flows) = channel.query(
        GET,
        NLM_F_DUMP,
        &nfnetlink_body(family, 0, &Attributes::new()),
    ) else {
        return Ok(());
    };
    let mut batch = Batch::default();
    for flow in flows.iter().filter(|flow| is_udp_to(flow, ports)) {
        let tuple = attributes(&flow[NFNETLINK_HEADER..])
            .filter(|(kind, _)| *kind == TUPLE_ORIGINAL)
            .fold(Attributes::new(), |run, (kind, value)| {
                run.bytes(kind | 0x8000, value)
            });
        batch.push(
            "delete a stale UDP flow",
            DELETE,
            0,
            &nfnetlink_body(family, 0, &tuple),
        );
        batch.tolerate(&[libc::ENOENT]);
    }
    channel.run(batch)
}
