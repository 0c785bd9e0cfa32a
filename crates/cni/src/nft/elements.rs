//! Map elements on the wire: a table's host ports, listed, added and deleted.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use super::host_port::{Element, HostPort, MAP_V4, MAP_V6};
use super::wire::*;
use crate::error::Result;
use crate::netlink::netfilter::{attribute_of, body};
use crate::netlink::wire::{Attributes, attributes, find};
use crate::netlink::{Batch, Channel};

/// The kernel's limit for one attribute is 64 KiB; an element takes at most 300 bytes.
const ELEMENTS_A_MESSAGE: usize = 150;

fn parse_element(body: &[u8]) -> Option<Element> {
    let value_of = |kind| find(body, kind).and_then(|d| find(d, NFTA_DATA_VALUE));
    Some(Element {
        owner: find(body, NFTA_SET_ELEM_USERDATA)
            .map(uncomment)
            .unwrap_or_default(),
        port: HostPort::parse(value_of(NFTA_SET_ELEM_KEY)?, value_of(NFTA_SET_ELEM_DATA)?)?,
    })
}

fn map_of(element: &Element) -> &'static str {
    match element.port.host {
        IpAddr::V4(_) => MAP_V4,
        IpAddr::V6(_) => MAP_V6,
    }
}

/// All host ports in force; none when the table is missing.
pub(super) fn list(channel: &mut Channel, table: &str) -> Result<Vec<Element>> {
    let mut found = Vec::new();
    for map in [MAP_V4, MAP_V6] {
        let wanted = Attributes::new()
            .text(NFTA_SET_ELEM_LIST_TABLE, table)
            .text(NFTA_SET_ELEM_LIST_SET, map);
        let answer = channel.query(GET_ELEMENT, NLM_F_DUMP, &body(INET, &wanted));
        let messages = match answer {
            Err(refusal) if refusal.errno == libc::ENOENT => continue,
            Err(refusal) => return Err(refusal.into_error("list host ports")),
            Ok(messages) => messages,
        };
        for message in &messages {
            let list = attribute_of(message, NFTA_SET_ELEM_LIST_ELEMENTS);
            let elements = attributes(list.unwrap_or_default());
            found.extend(elements.filter_map(|(_, body)| parse_element(body)));
        }
    }
    Ok(found)
}

fn element_message(table: &str, map: &str, elements: &[&Element], full: bool) -> Attributes {
    let mut list = Attributes::new();
    for element in elements {
        let data = |bytes: &[u8]| Attributes::new().bytes(NFTA_DATA_VALUE, bytes);
        let mut body = Attributes::new().nest(NFTA_SET_ELEM_KEY, &data(&element.port.key()));
        if full {
            body = body
                .nest(NFTA_SET_ELEM_DATA, &data(&element.port.value()))
                .bytes(NFTA_SET_ELEM_USERDATA, &comment(&element.owner));
        }
        list = list.nest(NFTA_LIST_ELEM, &body);
    }
    Attributes::new()
        .text(NFTA_SET_ELEM_LIST_TABLE, table)
        .text(NFTA_SET_ELEM_LIST_SET, map)
        .nest(NFTA_SET_ELEM_LIST_ELEMENTS, &list)
}

fn push(batch: &mut Batch, table: &str, elements: &[Element], add: bool) {
    let (kind, flags, what) = if add {
        (NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL, "add host ports")
    } else {
        (DELETE_ELEMENT, 0, "delete host ports")
    };
    for map in [MAP_V4, MAP_V6] {
        let ours: Vec<&Element> = elements.iter().filter(|e| map_of(e) == map).collect();
        for chunk in ours.chunks(ELEMENTS_A_MESSAGE) {
            let body = body(INET, &element_message(table, map, chunk, add));
            batch.push(what, kind, flags, &body);
        }
    }
}

/// Queues new host ports; the kernel refuses the whole transaction when one is taken.
pub(super) fn push_new(batch: &mut Batch, table: &str, elements: &[Element]) {
    push(batch, table, elements, true);
}

/// Queues the deletion of host ports.
pub(super) fn push_gone(batch: &mut Batch, table: &str, elements: &[Element]) {
    push(batch, table, elements, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2021-43784: an attribute whose length wrapped let its value be read as further ones.
    #[test]
    fn a_full_message_of_the_longest_elements_is_read_as_it_was_written() {
        let element = |number: u16| Element {
            owner: format!("{}/{}", "c".repeat(200), "i".repeat(15)),
            port: HostPort {
                protocol: crisp_model::Protocol::Sctp,
                host: IpAddr::from([0xfd; 16]),
                port: number,
                target: IpAddr::from([0xfc; 16]),
                target_port: number,
            },
        };
        let most = u16::try_from(ELEMENTS_A_MESSAGE).unwrap();
        let elements: Vec<Element> = (0..most).map(element).collect();
        let message = element_message("t", MAP_V6, &elements.iter().collect::<Vec<_>>(), true);
        let list = find(message.as_bytes(), NFTA_SET_ELEM_LIST_ELEMENTS).unwrap();
        let read: Vec<Element> = attributes(list)
            .filter_map(|(_, body)| parse_element(body))
            .collect();
        assert_eq!(read, elements);
        assert_eq!(attributes(message.as_bytes()).count(), 3);
    }
}
