//! The bridge of the built-in network, and the node's sysctls that it needs.
//!
//! The bridge's alias names its owner, the directory of a daemon's address records, so that two
//! daemons never give out addresses on one bridge.

use std::fs;
use std::path::Path;

use super::mac::mac_of;
use super::settings::Settings;
use super::sysctl::set_sysctl;
use crate::error::{Context, Error, Result};
use crate::netlink::link::{self, Link};
use crate::netlink::{Batch, Channel};
use crate::subnet::Subnet;

/// The alias of a bridge that is ours and wholly configured.
pub(crate) fn alias(settings: &Settings) -> String {
    let subnets: Vec<String> = settings.subnets.iter().map(ToString::to_string).collect();
    format!(
        "crisp {} {}",
        settings.data_dir.display(),
        subnets.join(" ")
    )
}

/// Refuses a bridge whose addresses another daemon gives out.
fn check_owner(settings: &Settings, alias: &str) -> Result<()> {
    let Some(theirs) = alias
        .strip_prefix("crisp ")
        .and_then(|a| a.split(' ').next())
    else {
        return Ok(());
    };
    if Path::new(theirs) == settings.data_dir {
        return Ok(());
    }
    let why =
        format!("its addresses are given out from {theirs}; configure another bridge and subnet");
    Err(Error::invalid(format!("bridge {}", settings.bridge), why))
}

/// Refuses a link that is no bridge: it would get the pods' gateway addresses.
pub(super) fn check_kind(link: &Link) -> Result<()> {
    let kind = match link.kind.as_str() {
        "bridge" => return Ok(()),
        // The kernel names no kind for a network card.
        "" => "no bridge but a network card or loopback".to_owned(),
        kind => format!("no bridge but of type {kind}"),
    };
    let why = format!("the link of this name is {kind}; configure another name");
    Err(Error::invalid(format!("bridge {}", link.name), why))
}

/// Lets the node's uplinks accept router advertisements although the node forwards. The kernel
/// ignores advertisements on a router (`accept_ra` 1), so a node whose default route comes from
/// them would lose that route as soon as it forwards for its pods.
fn keep_router_advertisements(bridge: &str) -> Result<()> {
    let dir = Path::new("/proc/sys/net/ipv6/conf");
    let is = |path: &Path, value: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == value);
    if is(&dir.join("all/forwarding"), "1") {
        return Ok(());
    }
    for entry in fs::read_dir(dir)
        .context(|| format!("list {}", dir.display()))?
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_uplink = !["all", "default", "lo", bridge].contains(&name.as_str());
        if is_uplink && is(&entry.path().join("accept_ra"), "1") {
            set_sysctl(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    Ok(())
}

/// Lets packets with loopback addresses leave by the bridge and come back, as host ports on
/// 127.0.0.1 need.
pub(crate) fn let_loopback_in(bridge: &str) -> Result<()> {
    set_sysctl(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
}

fn set_sysctls(settings: &Settings) -> Result<()> {
    let bridge = &settings.bridge;
    set_sysctl("ipv4/ip_forward", "1")?;
    let_loopback_in(bridge)?;
    if settings.subnets.iter().any(|s| !s.gateway().is_ipv4()) {
        set_sysctl(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
        // A pod must not be able to make itself the node's router.
        set_sysctl(&format!("ipv6/conf/{bridge}/accept_ra"), "0")?;
        // The node can only ask for a pod's MAC once the bridge's link-local address is usable,
        // which duplicate address detection would delay by up to two seconds.
        set_sysctl(&format!("ipv6/conf/{bridge}/accept_dad"), "0")?;
        keep_router_advertisements(bridge)?;
        set_sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn make(channel: &mut Channel, settings: &Settings) -> Result<()> {
    let mut batch = Batch::default();
    let mac = mac_of(settings.subnets[0].gateway());
    link::push_bridge(&mut batch, &settings.bridge, mac, settings.mtu);
    channel.run(batch)
}

/// Gives the bridge its gateway addresses and brings it up.
fn add_addresses(channel: &mut Channel, bridge: &Link, settings: &Settings) -> Result<()> {
    let mut batch = Batch::default();
    if !bridge.is_up {
        link::push_up(&mut batch, bridge.index);
    }
    for subnet in &settings.subnets {
        link::push_address(&mut batch, bridge.index, subnet.gateway(), subnet.prefix());
    }
    channel.run(batch)
}

fn complete(channel: &mut Channel, settings: &Settings) -> Result<u32> {
    let bridge = link::by_name(channel, &settings.bridge)?
        .ok_or_else(|| Error::invalid(format!("bridge {}", settings.bridge), "vanished"))?;
    set_sysctls(settings)?;
    add_addresses(channel, &bridge, settings)?;
    // The alias is written last: a bridge that has it is wholly configured.
    let mut batch = Batch::default();
    link::push_alias(&mut batch, &settings.bridge, &alias(settings));
    channel.run(batch)?;
    Ok(bridge.index)
}

/// Makes the bridge; false when a link of this name exists.
pub(crate) fn claim(channel: &mut Channel, settings: &Settings) -> Result<bool> {
    match make(channel, settings) {
        Err(error) if error.is_kernel(libc::EEXIST) => Ok(false),
        made => made
            .and_then(|()| complete(channel, settings))
            .map(|_index| true),
    }
}

/// Index of the bridge. It is made, or completed, when it is missing or not wholly configured.
pub(crate) fn ensure(channel: &mut Channel, settings: &Settings) -> Result<u32> {
    let Some(bridge) = link::by_name(channel, &settings.bridge)? else {
        match make(channel, settings) {
            Err(error) if !error.is_kernel(libc::EEXIST) => return Err(error),
            _ => return complete(channel, settings),
        }
    };
    if bridge.alias == alias(settings) && bridge.is_up {
        return Ok(bridge.index);
    }
    check_kind(&bridge)?;
    check_owner(settings, &bridge.alias)?;
    complete(channel, settings)
}

/// The bridge is older than a configuration that asks for another MTU.
fn set_mtu(channel: &mut Channel, settings: &Settings) -> Result<()> {
    let Some(mtu) = settings.mtu else {
        return Ok(());
    };
    let bridge = link::by_name(channel, &settings.bridge)?;
    let mut batch = Batch::default();
    if let Some(bridge) = bridge.filter(|bridge| bridge.mtu != mtu) {
        link::push_mtu(&mut batch, bridge.index, mtu);
    }
    channel.run(batch)
}

/// The same, and also repairs what another program changed on a bridge that was wholly configured.
/// It writes nothing that is as it should be: a write would be one more change to look at.
pub(crate) fn mend(channel: &mut Channel, settings: &Settings) -> Result<()> {
    ensure(channel, settings)?;
    set_sysctls(settings)?;
    set_mtu(channel, settings)?;
    let there = link::addresses(channel)?;
    let is_there = |subnet: &Subnet| there.iter().any(|net| net.addr() == subnet.gateway());
    if settings.subnets.iter().all(is_there) {
        return Ok(());
    }
    let bridge = link::by_name(channel, &settings.bridge)?;
    bridge.map_or(Ok(()), |bridge| add_addresses(channel, &bridge, settings))
}

/// Removes the bridge if it is ours and no pod is on it.
pub(crate) fn remove(channel: &mut Channel, settings: &Settings) -> Result<()> {
    let found = link::by_name(channel, &settings.bridge)?;
    let Some(bridge) = found.filter(|b| b.alias == alias(settings)) else {
        return Ok(());
    };
    if !link::ports(channel, bridge.index)?.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    link::push_delete(&mut batch, bridge.index);
    channel.run(batch)
}
