//! The header that all netfilter messages share, and how their numbers are composed.
//!
//! Numbers come from `libc`, which has them as C integers; here they become the widths of the wire.

use std::net::IpAddr;

use super::wire::{Attributes, find};

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// The type of a message: the subsystem in the upper octet, the message's number in the lower.
pub(crate) const fn message_type(subsystem: libc::c_int, number: libc::c_int) -> u16 {
    u16::from_be_bytes([octet(subsystem), octet(number)])
}

/// A number of the kernel's that is known to fit in an octet.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "protocol and message numbers are below 256"
)]
pub(crate) const fn octet(number: libc::c_int) -> u8 {
    number as u8
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(crate) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => octet(libc::NFPROTO_IPV4),
        IpAddr::V6(_) => octet(libc::NFPROTO_IPV6),
    }
}

/// A message's body: the header, then attributes.
pub(crate) fn body(family: u8, attributes: &Attributes) -> Vec<u8> {
    body_of(family, 0, attributes)
}

/// The same with a resource id, which only the ends of a transaction have.
pub(crate) fn body_of(family: u8, resource: u16, attributes: &Attributes) -> Vec<u8> {
    let mut body = vec![family, 0];
    body.extend_from_slice(&resource.to_be_bytes());
    body.extend_from_slice(attributes.as_bytes());
    body
}

/// The attributes behind the header.
pub(crate) fn attributes_of(body: &[u8]) -> &[u8] {
    body.get(HEADER..).unwrap_or_default()
}

/// One attribute behind the header.
pub(crate) fn attribute_of(body: &[u8], kind: u16) -> Option<&[u8]> {
    find(attributes_of(body), kind)
}
