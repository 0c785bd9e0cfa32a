//! The firewall table of one bridge: made in one transaction, then changed by its host ports alone.

use super::elements;
use super::frame::{Chain, Frame, Hook, Look, Set, Shape, State, count};
use super::host_port::{Element, check_free};
use super::rules::{
    Family, Firewall, HOST_PORTS, V4, V6, guard_rules, host_port_rules, postrouting_rules,
    to_host_ports,
};
use super::wire::*;
use crate::error::{Error, Result};
use crate::netlink::Channel;

/// Bytes of a register word: a protocol or a port takes one in a key.
const WORD: u32 = 4;

/// How often closing ports is tried on a table that others flush meanwhile.
const CLOSING_TRIES: u32 = 16;

/// A table by its name.
#[derive(Debug, Clone)]
pub(crate) struct Table(Frame);

/// The guard is run first: it must see packets before they are translated.
const GUARD: Hook = Hook {
    kind: "filter",
    number: libc::NF_INET_PRE_ROUTING,
    priority: libc::NF_IP_PRI_RAW,
};
const PREROUTING: Hook = nat(libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_NAT_DST);
const OUTPUT: Hook = nat(libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_NAT_DST);
const POSTROUTING: Hook = nat(libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_NAT_SRC);

const fn nat(number: libc::c_int, priority: libc::c_int) -> Hook {
    Hook {
        kind: "nat",
        number,
        priority,
    }
}

/// The chains of the table, those first that others jump to.
fn chains(firewall: &Firewall<'_>) -> [Chain; 5] {
    let ports = [V4, V6].into_iter().flat_map(host_port_rules).collect();
    [
        (HOST_PORTS, None, ports),
        ("guard", Some(&GUARD), guard_rules(firewall.bridge)),
        ("prerouting", Some(&PREROUTING), to_host_ports()),
        ("output", Some(&OUTPUT), to_host_ports()),
        (
            "postrouting",
            Some(&POSTROUTING),
            postrouting_rules(firewall),
        ),
    ]
}

fn map_of(family: Family) -> Set {
    let address = if family.length == 4 {
        TYPE_IPADDR
    } else {
        TYPE_IP6ADDR
    };
    let value = address << TYPE_BITS | TYPE_INET_SERVICE;
    Set {
        name: family.map,
        key: Shape {
            shown: TYPE_INET_PROTOCOL << (2 * TYPE_BITS) | value,
            length: WORD + family.length + WORD,
        },
        value: Some(Shape {
            shown: value,
            length: family.length + WORD,
        }),
    }
}

impl Table {
    /// The table of a bridge.
    pub(crate) fn of(bridge: &str) -> Self {
        Self(Frame {
            family: INET,
            name: format!("crisp-{bridge}"),
        })
    }

    /// All host ports in force; none when the table is missing.
    pub(crate) fn elements(&self, channel: &mut Channel) -> Result<Vec<Element>> {
        elements::list(channel, &self.0.name)
    }

    /// Makes the table unless it is there as it should be. The `recorded` host ports are put into
    /// it when it has to be made anew, as after `nft flush ruleset`.
    pub(crate) fn ensure(
        &self,
        channel: &mut Channel,
        firewall: &Firewall<'_>,
        look: Look,
        recorded: impl FnOnce() -> Vec<Element>,
    ) -> Result<()> {
        let chains = chains(firewall);
        let fingerprint = firewall.fingerprint();
        let state = self.0.look(channel, &fingerprint, look, count(&chains))?;
        if state == State::Whole {
            return Ok(());
        }
        let mut batch = begin();
        if state == State::Other {
            self.0.push_gone(&mut batch);
        }
        let maps = [V4, V6].map(map_of);
        self.0.push_new(&mut batch, &fingerprint, &maps, chains);
        elements::push_new(&mut batch, &self.0.name, &recorded());
        channel.run(end(batch))
    }

    #[cfg(test)]
    pub(crate) fn is_there(&self, channel: &mut Channel) -> Result<bool> {
        Ok(self.0.current(channel)?.is_some())
    }

    /// Removes the table with everything in it.
    pub(crate) fn remove(&self, channel: &mut Channel) -> Result<()> {
        self.0.remove(channel)
    }

    /// Opens host ports, all or none.
    pub(crate) fn open_ports(&self, channel: &mut Channel, wanted: &[Element]) -> Result<()> {
        let existing = elements::list(channel, &self.0.name)?;
        check_free(&existing, wanted)?;
        let missing: Vec<Element> = wanted
            .iter()
            .filter(|e| !existing.contains(e))
            .cloned()
            .collect();
        let outdated =
            |e: &&Element| wanted.iter().any(|w| w.owner == e.owner) && !wanted.contains(e);
        let stale: Vec<Element> = existing.iter().filter(outdated).cloned().collect();
        self.change_ports(channel, &stale, &missing)
    }

    /// Closes the host ports whose owner fulfils a condition, and returns them.
    pub(crate) fn close_ports(
        &self,
        channel: &mut Channel,
        condition: impl Fn(&str) -> bool,
    ) -> Result<Vec<Element>> {
        let mut tries = CLOSING_TRIES;
        loop {
            let mut gone = elements::list(channel, &self.0.name)?;
            gone.retain(|element| condition(&element.owner));
            tries -= 1;
            match self.change_ports(channel, &gone, &[]) {
                // The table was flushed between the look and the change, which is all or
                // nothing.
                Err(error) if error.is_kernel(libc::ENOENT) && tries > 0 => {}
                changed => return changed.map(|()| gone),
            }
        }
    }

    fn change_ports(&self, channel: &mut Channel, gone: &[Element], new: &[Element]) -> Result<()> {
        let mut batch = begin();
        elements::push_gone(&mut batch, &self.0.name, gone);
        elements::push_new(&mut batch, &self.0.name, new);
        channel.run(end(batch)).map_err(|error| match error {
            Error::Kernel { what, source } if source.raw_os_error() == Some(libc::EEXIST) => {
                Error::invalid(what, "another plugin took the host port at the same moment")
            }
            other => other,
        })
    }
}
