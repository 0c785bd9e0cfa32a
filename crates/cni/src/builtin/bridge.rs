//! The bridge and the node's settings that it needs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::Settings;
use super::mac_of;
use crate::netlink::{Batch, Channel, link};
use crate::{Error, Result};

/// The node's sockets.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub route: Channel,
    netfilter: Option<Channel>,
}

impl Kernel {
    /// Opens a route socket in this thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self {
            route: link::open().map_err(Error::kernel("open a route netlink socket"))?,
            netfilter: None,
        })
    }

    /// The netfilter socket, opened at first use (the kernel may have to load a module).
    pub(crate) fn netfilter(&mut self) -> Result<&mut Channel> {
        if self.netfilter.is_none() {
            let channel = Channel::open(netlink_sys::protocols::NETLINK_NETFILTER)
                .map_err(Error::kernel("open a netfilter netlink socket"))?;
            self.netfilter = Some(channel);
        }
        match &mut self.netfilter {
            Some(channel) => Ok(channel),
            None => Err(Error::invalid("netfilter socket", "not open")),
        }
    }
}

/// Writes a sysctl unless it has the value already.
pub(crate) fn set_sysctl(path: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(path);
    let current = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    if current.trim() == value {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    file.write_all(value.as_bytes())
        .map_err(Error::io("write", &path))
}

/// Whether the kernel knows IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// What the bridge's alias says when it is ours and whole.
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

/// A router takes no advertisements unless told so: a node that has its default route from them
/// would lose it as soon as it forwards for its pods.
fn keep_router_advertisements(bridge: &str) -> Result<()> {
    let dir = Path::new("/proc/sys/net/ipv6/conf");
    let is = |path: &Path, value: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == value);
    if is(&dir.join("all/forwarding"), "1") {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_uplink = !["all", "default", "lo", bridge].contains(&name.as_str());
        if is_uplink && is(&entry.path().join("accept_ra"), "1") {
            set_sysctl(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    Ok(())
}

/// Host ports on 127.0.0.1 need packets from that address to leave by the bridge, and answers to
/// come back.
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
        // Until its link-local address is usable the node cannot ask for a pod's MAC on behalf of
        // others; duplicate detection would delay that by up to two seconds.
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

fn complete(channel: &mut Channel, settings: &Settings) -> Result<u32> {
    let bridge = link::by_name(channel, &settings.bridge)?
        .ok_or_else(|| Error::invalid(format!("bridge {}", settings.bridge), "vanished"))?;
    set_sysctls(settings)?;
    link::ensure_addresses(channel, &bridge, &settings.subnets)?;
    // The alias comes last: it says that the bridge is whole.
    let mut batch = Batch::default();
    link::push_alias(&mut batch, &settings.bridge, &alias(settings));
    channel.run(batch)?;
    Ok(bridge.index)
}

fn exists_already(error: &Error) -> bool {
    matches!(error, Error::Kernel { source, .. } if source.raw_os_error() == Some(libc::EEXIST))
}

/// Makes the bridge; false when there is a link of this name.
pub(crate) fn claim(channel: &mut Channel, settings: &Settings) -> Result<bool> {
    match make(channel, settings) {
        Err(error) if exists_already(&error) => Ok(false),
        made => made
            .and_then(|()| complete(channel, settings))
            .map(|_index| true),
    }
}

/// Index of the bridge, made or completed first when it is not as it should be.
pub(crate) fn ensure(channel: &mut Channel, settings: &Settings) -> Result<u32> {
    let Some(bridge) = link::by_name(channel, &settings.bridge)? else {
        match make(channel, settings) {
            Err(error) if !exists_already(&error) => return Err(error),
            _ => return complete(channel, settings),
        }
    };
    if bridge.alias == alias(settings) && bridge.is_up {
        return Ok(bridge.index);
    }
    if bridge.kind != "bridge" {
        let why = format!("there is a link of this name and of type {:?}", bridge.kind);
        return Err(Error::invalid(format!("bridge {}", settings.bridge), why));
    }
    check_owner(settings, &bridge.alias)?;
    complete(channel, settings)
}

/// Removes the bridge if it is ours and has no ports.
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
