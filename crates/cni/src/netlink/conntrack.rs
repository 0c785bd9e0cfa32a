//! Deletes tracked UDP flows that still lead to where a host port led before.
//!
//! The kernel keeps a UDP flow's translation as long as packets come. A flow that was seen before
//! its host port was opened goes on to nowhere, and a flow to a former pod goes on to that pod's
//! address; both end only when their conntrack entry is deleted.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_DUMP;

use super::channel::{Batch, Channel};
use super::netfilter::{attribute_of, attributes_of, body, family, message_type, octet};
use super::wire::{Attributes, NESTED, attributes, find};
use crate::error::Result;

// linux/netfilter/nfnetlink_conntrack.h, which libc lacks.
const IPCTNL_MSG_CT_GET: libc::c_int = 1;
const IPCTNL_MSG_CT_DELETE: libc::c_int = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

const GET: u16 = message_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET);
const DELETE: u16 = message_type(libc::NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE);

fn is_udp_to(flow: &[u8], ports: &[u16]) -> bool {
    let proto = attribute_of(flow, CTA_TUPLE_ORIG).and_then(|tuple| find(tuple, CTA_TUPLE_PROTO));
    let Some(proto) = proto else { return false };
    let port = find(proto, CTA_PROTO_DST_PORT)
        .and_then(|v| v.first_chunk())
        .map(|v| u16::from_be_bytes(*v));
    find(proto, CTA_PROTO_NUM) == Some(&[octet(libc::IPPROTO_UDP)])
        && port.is_some_and(|p| ports.contains(&p))
}

/// Deletes the flows of the node whose original destination is one of these UDP ports.
pub(crate) fn forget_udp(family_of: IpAddr, ports: &[u16]) -> Result<()> {
    let family = family(family_of);
    let Ok(mut channel) = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER) else {
        return Ok(());
    };
    // Without the conntrack module there are no flows, and the kernel does not know the request.
    let Ok(flows) = channel.query(GET, NLM_F_DUMP, &body(family, &Attributes::new())) else {
        return Ok(());
    };
    let mut batch = Batch::default();
    for flow in flows.iter().filter(|flow| is_udp_to(flow, ports)) {
        let tuple = attributes(attributes_of(flow))
            .filter(|(kind, _)| *kind == CTA_TUPLE_ORIG)
            .fold(Attributes::new(), |run, (kind, value)| {
                run.bytes(kind | NESTED, value)
            });
        batch.push("delete a stale UDP flow", DELETE, 0, &body(family, &tuple));
        batch.tolerate(&[libc::ENOENT]);
    }
    channel.run(batch)
}
