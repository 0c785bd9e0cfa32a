//! The source check: pods send from their own addresses alone.
//!
//! A pod may send from the addresses that are recorded for it, and from the link-local address that
//! its interface gives itself. A kernel without nftables for bridges goes without the check, and
//! says so in NetworkReady's message and in the log.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::addresses::Addresses;
use super::mac::{link_local, mac_of};
use super::owner::Owner;
use super::settings::{Settings, Sources};
use super::sockets::Sockets;
use crate::error::Result;
use crate::nft::{Look, Origin, SourceTable};
use crate::subnet::Subnet;

const UNCHECKED: &str = "this kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE): a pod \
                         with CAP_NET_RAW can send as its neighbour";

/// The check of one bridge.
#[derive(Debug)]
pub(crate) struct SourceCheck {
    table: SourceTable,
}

/// The first address decides the MAC, and this the link-local address. A pod whose MAC an
/// annotation chose has another one; the check lets it send from there too, as nobody else is
/// known to have it.
fn origin(owner: &Owner, addresses: &[IpAddr]) -> Origin {
    let own = addresses.first().map(|first| link_local(mac_of(*first)));
    Origin {
        link: owner.link(),
        addresses: addresses
            .iter()
            .copied()
            .chain(own.map(Into::into))
            .collect(),
    }
}

/// Sorts addresses as ADD took them.
fn sort(addresses: &mut [IpAddr], subnets: &[Subnet]) {
    addresses.sort_by_key(|address| subnets.iter().position(|s| s.contains(*address)));
}

/// The origins of all pods that have addresses.
fn recorded(addresses: &Addresses, subnets: &[Subnet]) -> Result<Vec<Origin>> {
    let mut by_owner: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (address, owner) in addresses.all()? {
        by_owner.entry(owner).or_default().push(address);
    }
    let origins = by_owner.into_iter().filter_map(|(owner, mut addresses)| {
        sort(&mut addresses, subnets);
        Some(origin(&Owner::parse(&owner)?, &addresses))
    });
    Ok(origins.collect())
}

/// Forgets the addresses that an attachment which is gone could send from. Where the table is missing
/// or was flushed, the next look at the kernel does it.
pub(crate) fn forget(
    sockets: &mut Sockets,
    (bridge, subnets): (&str, &[Subnet]),
    (addresses, key): (&Addresses, &str),
) -> Result<()> {
    let Some(owner) = Owner::parse(key) else {
        return Ok(());
    };
    let mut own = addresses.of(key)?;
    sort(&mut own, subnets);
    let table = SourceTable::of(bridge);
    if let Err(error) = table.forget(sockets.netfilter()?, &origin(&owner, &own)) {
        tracing::debug!(owner = key, %error, "what a pod may send from is forgotten later");
    }
    Ok(())
}

impl SourceCheck {
    pub(crate) fn of(bridge: &str) -> Self {
        Self {
            table: SourceTable::of(bridge),
        }
    }

    /// Makes the check whole, or removes it where pods may send from any address. Returns what
    /// keeps it from being made.
    pub(crate) fn ensure(
        &self,
        sockets: &mut Sockets,
        (settings, look): (&Settings, Look),
        addresses: &Addresses,
    ) -> Result<Option<&'static str>> {
        if settings.sources == Sources::Any {
            self.table.remove(sockets.netfilter()?)?;
            return Ok(None);
        }
        let router = link_local(mac_of(settings.subnets[0].gateway()));
        let recorded = || recorded(addresses, &settings.subnets);
        let is_made = self
            .table
            .ensure(sockets.netfilter()?, router, look, recorded)?;
        if !is_made && sockets.checks_sources {
            tracing::warn!(bridge = %settings.bridge, "{UNCHECKED}");
        }
        sockets.checks_sources = is_made;
        Ok((!is_made).then_some(UNCHECKED))
    }

    /// Lets a pod, whose addresses are recorded, send from them. Its interface is still down. False
    /// when the table is missing.
    pub(crate) fn admit(
        &self,
        sockets: &mut Sockets,
        settings: &Settings,
        (owner, taken): (&Owner, &[(Subnet, IpAddr)]),
    ) -> Result<bool> {
        if settings.sources == Sources::Any || !sockets.checks_sources {
            return Ok(true);
        }
        let taken: Vec<IpAddr> = taken.iter().map(|(_, address)| *address).collect();
        self.table
            .admit(sockets.netfilter()?, &origin(owner, &taken))
    }

    /// Whether the check is there, in whatever state.
    pub(crate) fn is_made(&self, sockets: &mut Sockets) -> Result<bool> {
        self.table.is_made(sockets.netfilter()?)
    }

    /// Removes the check.
    pub(crate) fn remove(&self, sockets: &mut Sockets) -> Result<()> {
        self.table.remove(sockets.netfilter()?)
    }
}
