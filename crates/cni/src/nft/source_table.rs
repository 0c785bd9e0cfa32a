//! The table of a bridge that holds pods to their own addresses, and its elements: for each port of
//! a pod its name and what may be sent by it.
//!
//! The elements are what the records of addresses say. They come with a pod, before its interface
//! is up, and go with its addresses; a look at the kernel mends what was changed since.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP};

use super::expression::padded;
use super::frame::{Chain, Frame, Hook, Look, Set, Shape, State, count};
use super::sources::{LINK_LOCAL, OWN_V4, OWN_V6, PODS, source_rules};
use super::wire::*;
use crate::error::{Error, Result};
use crate::netlink::netfilter::{attribute_of, body};
use crate::netlink::wire::{Attributes, attributes, find};
use crate::netlink::{Batch, Channel};
use crate::subnet::octets;

/// Made anew when a version of Crisp has other rules.
const FINGERPRINT: &str = "1";
/// The kernel's limit for one attribute is 64 KiB; an element takes at most 60 bytes.
const ELEMENTS_A_MESSAGE: usize = 800;
/// How often elements are compared while others flush them.
const TRIES: u32 = 8;
/// A kernel without nftables for bridges answers one of these when the table is made.
const UNSUPPORTED: [i32; 3] = [libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];

/// Ahead of the translation of addresses and of the calls of IP's hooks from the bridge.
const HOOK: Hook = Hook {
    kind: "filter",
    number: libc::NF_BR_PRE_ROUTING,
    priority: libc::NF_BR_PRI_NAT_DST_BRIDGED,
};

const fn set(name: &'static str, shown: u32, length: u32) -> Set {
    Set {
        name,
        key: Shape { shown, length },
        value: None,
    }
}

const SETS: [Set; 4] = [
    set(PODS, TYPE_IFNAME, 16),
    set(OWN_V4, TYPE_IFNAME << TYPE_BITS | TYPE_IPADDR, 20),
    set(OWN_V6, TYPE_IFNAME << TYPE_BITS | TYPE_IP6ADDR, 32),
    set(LINK_LOCAL, TYPE_IP6ADDR, 16),
];

/// A port of a pod, and the addresses that it may send from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub link: String,
    pub addresses: Vec<IpAddr>,
}

/// A set's name and a key in it.
type Element = (&'static str, Vec<u8>);

impl Origin {
    fn elements(&self) -> impl Iterator<Item = Element> {
        let name = padded(&self.link);
        let pod = (PODS, name.clone());
        let own = self.addresses.iter().flat_map(move |address| {
            let set = if address.is_ipv4() { OWN_V4 } else { OWN_V6 };
            let key = [name.clone(), octets(*address)].concat();
            let link_local = match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(*v6),
                _ => None,
            };
            [Some((set, key)), link_local.map(reserved)]
        });
        std::iter::once(pod).chain(own.flatten())
    }
}

fn reserved(address: Ipv6Addr) -> Element {
    (LINK_LOCAL, address.octets().to_vec())
}

fn chains() -> [Chain; 1] {
    [("sources", Some(&HOOK), source_rules())]
}

fn is_unsupported(error: &Error) -> bool {
    UNSUPPORTED.iter().any(|errno| error.is_kernel(*errno))
}

/// The table by its name.
#[derive(Debug, Clone)]
pub(crate) struct SourceTable(Frame);

impl SourceTable {
    /// The table of a bridge.
    pub(crate) fn of(bridge: &str) -> Self {
        Self(Frame {
            family: BRIDGE,
            name: format!("crisp-{bridge}"),
        })
    }

    fn push(
        &self,
        batch: &mut Batch,
        (kind, flags, what): (u16, u16, &str),
        elements: &BTreeSet<Element>,
    ) {
        for set in SETS {
            let keys = elements.iter().filter(|(name, _)| *name == set.name);
            let keys: Vec<&[u8]> = keys.map(|(_, key)| key.as_slice()).collect();
            for chunk in keys.chunks(ELEMENTS_A_MESSAGE) {
                let mut list = Attributes::new();
                for key in chunk {
                    let key = Attributes::new().bytes(NFTA_DATA_VALUE, key);
                    let element = Attributes::new().nest(NFTA_SET_ELEM_KEY, &key);
                    list = list.nest(NFTA_LIST_ELEM, &element);
                }
                let attributes = Attributes::new()
                    .text(NFTA_SET_ELEM_LIST_TABLE, &self.0.name)
                    .text(NFTA_SET_ELEM_LIST_SET, set.name)
                    .nest(NFTA_SET_ELEM_LIST_ELEMENTS, &list);
                batch.push(what, kind, flags, &body(BRIDGE, &attributes));
            }
        }
    }

    /// Queues elements. An element that is there already is no error.
    fn push_new(&self, batch: &mut Batch, elements: &BTreeSet<Element>) {
        let message = (
            NEW_ELEMENT,
            NLM_F_CREATE,
            "let pods send from their addresses",
        );
        self.push(batch, message, elements);
    }

    /// Queues the deletion of elements, which must be there.
    fn push_gone(&self, batch: &mut Batch, elements: &BTreeSet<Element>) {
        let message = (DELETE_ELEMENT, 0, "forget the addresses of pods");
        self.push(batch, message, elements);
    }

    /// The elements of all sets.
    pub(crate) fn list(&self, channel: &mut Channel) -> Result<BTreeSet<Element>> {
        let mut found = BTreeSet::new();
        for set in SETS {
            let wanted = Attributes::new()
                .text(NFTA_SET_ELEM_LIST_TABLE, &self.0.name)
                .text(NFTA_SET_ELEM_LIST_SET, set.name);
            let messages = channel.query(GET_ELEMENT, NLM_F_DUMP, &body(BRIDGE, &wanted));
            let messages =
                messages.map_err(|refusal| refusal.into_error("list the addresses of pods"))?;
            for message in &messages {
                let list = attribute_of(message, NFTA_SET_ELEM_LIST_ELEMENTS);
                let keys = attributes(list.unwrap_or_default()).filter_map(|(_, element)| {
                    find(find(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)
                });
                found.extend(keys.map(|key| (set.name, key.to_vec())));
            }
        }
        Ok(found)
    }

    /// Makes the table unless it is there as it should be, and its elements those that `recorded`
    /// tells, with the link-local address of the `router`. The records are read after the kernel's
    /// elements: a pod that comes meanwhile is recorded before it has any.
    ///
    /// # Errors
    /// When the kernel refuses; `Ok(false)` when it has no nftables for bridges.
    pub(crate) fn ensure(
        &self,
        channel: &mut Channel,
        router: Ipv6Addr,
        look: Look,
        recorded: impl Fn() -> Result<Vec<Origin>>,
    ) -> Result<bool> {
        let mut tries = TRIES;
        loop {
            let ensured = self.compare(channel, router, look, &recorded);
            tries -= 1;
            return match ensured {
                // Another program flushed the table, or removed it, since the look.
                Err(error) if error.is_kernel(libc::ENOENT) && tries > 0 => continue,
                Err(error) if is_unsupported(&error) => Ok(false),
                ensured => ensured.map(|()| true),
            };
        }
    }

    fn compare(
        &self,
        channel: &mut Channel,
        router: Ipv6Addr,
        look: Look,
        recorded: impl Fn() -> Result<Vec<Origin>>,
    ) -> Result<()> {
        let chains = chains();
        let state = self.0.look(channel, FINGERPRINT, look, count(&chains))?;
        let there = match state {
            State::Whole => self.list(channel)?,
            State::Missing | State::Other => BTreeSet::new(),
        };
        let origins = recorded()?;
        let mut wanted: BTreeSet<Element> = origins.iter().flat_map(Origin::elements).collect();
        wanted.insert(reserved(router));
        let mut batch = begin();
        if state == State::Other {
            self.0.push_gone(&mut batch);
        }
        if state != State::Whole {
            self.0.push_new(&mut batch, FINGERPRINT, &SETS, chains);
        }
        let gone: BTreeSet<Element> = there.difference(&wanted).cloned().collect();
        let new: BTreeSet<Element> = wanted.difference(&there).cloned().collect();
        self.push_gone(&mut batch, &gone);
        self.push_new(&mut batch, &new);
        if state == State::Whole && gone.is_empty() && new.is_empty() {
            // An empty transaction would be told to all listeners as a change.
            return Ok(());
        }
        channel.run(end(batch))
    }

    /// Lets a pod send from its addresses. False when the table is missing.
    pub(crate) fn admit(&self, channel: &mut Channel, origin: &Origin) -> Result<bool> {
        let mut batch = begin();
        self.push_new(&mut batch, &origin.elements().collect());
        match channel.run(end(batch)) {
            Err(error) if error.is_kernel(libc::ENOENT) => Ok(false),
            admitted => admitted.map(|()| true),
        }
    }

    /// Forgets what was to be sent by a port that is gone: all of it, or nothing.
    pub(crate) fn forget(&self, channel: &mut Channel, origin: &Origin) -> Result<()> {
        let mut batch = begin();
        self.push_gone(&mut batch, &origin.elements().collect());
        channel.run(end(batch))
    }

    /// Whether the table is there, in whatever state.
    pub(crate) fn is_made(&self, channel: &mut Channel) -> Result<bool> {
        match self.0.current(channel) {
            Err(error) if is_unsupported(&error) => Ok(false),
            current => current.map(|fingerprint| fingerprint.is_some()),
        }
    }

    /// Removes the table with everything in it.
    pub(crate) fn remove(&self, channel: &mut Channel) -> Result<()> {
        if self.is_made(channel)? {
            self.0.remove(channel)?;
        }
        Ok(())
    }
}
