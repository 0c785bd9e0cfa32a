//! The forwarding database of a bridge: behind which port a MAC is (`linux/neighbour.h`).
//!
//! A bridge usually learns it from the sources of frames, so that whoever sends as a neighbour gets
//! the neighbour's frames. Ports of pods do not learn; their entries are written here and stay.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::channel::{Batch, Channel, Refusal};
use super::wire::Attributes;
use crate::error::{Error, Result};

/// Length of `struct ndmsg`.
const HEADER: usize = 12;
const FAMILY: u8 = 7; // AF_BRIDGE
const STATE: usize = 8;

/// An entry of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index of the port; that of the bridge for its own MAC.
    pub port: u32,
    /// Whether it was learned, and goes by itself.
    pub is_learned: bool,
}

fn header(port: u32, state: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![FAMILY, 0, 0, 0];
    header.extend_from_slice(&port.to_ne_bytes());
    header.extend_from_slice(&state.to_ne_bytes());
    header.extend_from_slice(&[flags, 0]);
    header
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn push_entry(batch: &mut Batch, port: u32, mac: [u8; 6], flags: u16) {
    let mut body = header(port, libc::NUD_NOARP, libc::NTF_MASTER);
    let address = Attributes::new().bytes(libc::NDA_LLADDR, &mac);
    body.extend_from_slice(address.as_bytes());
    let what = format!("bind MAC {} to bridge port {port}", text(mac));
    batch.push(what, libc::RTM_NEWNEIGH, flags | NLM_F_CREATE, &body);
}

/// The entry of a MAC in a bridge.
pub(crate) fn look_up(channel: &mut Channel, bridge: u32, mac: [u8; 6]) -> Result<Option<Entry>> {
    let mut body = header(0, 0, 0);
    let wanted = Attributes::new()
        .bytes(libc::NDA_LLADDR, &mac)
        .bytes(libc::NDA_MASTER, &bridge.to_ne_bytes());
    body.extend_from_slice(wanted.as_bytes());
    let found = match channel.query(libc::RTM_GETNEIGH, 0, &body) {
        Ok(found) => found,
        Err(Refusal {
            errno: libc::ENOENT,
            ..
        }) => return Ok(None),
        Err(refusal) => return Err(refusal.into_error(&format!("look up MAC {}", text(mac)))),
    };
    let entry = |body: &Vec<u8>| {
        let header = body.first_chunk::<HEADER>()?;
        let state = u16::from_ne_bytes([header[STATE], header[STATE + 1]]);
        Some(Entry {
            port: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            is_learned: state & (libc::NUD_NOARP | libc::NUD_PERMANENT) == 0,
        })
    };
    Ok(found.first().and_then(entry))
}

/// Writes behind which port a MAC is, for as long as the port is there. The entry replaces one that
/// the bridge has learned from frames.
///
/// # Errors
/// When another port, or the bridge itself, has the MAC.
pub(crate) fn bind(channel: &mut Channel, bridge: u32, port: u32, mac: [u8; 6]) -> Result<()> {
    let mut batch = Batch::default();
    push_entry(&mut batch, port, mac, NLM_F_EXCL);
    let bound = channel.run(batch);
    if !matches!(&bound, Err(error) if error.is_kernel(libc::EEXIST)) {
        return bound;
    }
    match look_up(channel, bridge, mac)? {
        Some(entry) if !entry.is_learned && entry.port != port => {
            let why = "another interface on the bridge has it already";
            Err(Error::invalid(format!("MAC {}", text(mac)), why))
        }
        _ => {
            let mut batch = Batch::default();
            push_entry(&mut batch, port, mac, NLM_F_REPLACE);
            channel.run(batch)
        }
    }
}
