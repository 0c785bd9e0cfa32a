//! The veth peer, the pod's end of the pair: addresses, routes and sysctls inside the pod's network
//! namespace.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crisp_sys::ns;

use super::sysctl::set_sysctl;
use crate::error::{Context, Error, Result};
use crate::netlink::{Batch, Channel, link};
use crate::subnet::Subnet;

fn find(channel: &mut Channel, interface: &str) -> Result<u32> {
    let found = link::by_name(channel, interface)?;
    found
        .map(|l| l.index)
        .ok_or_else(|| Error::invalid(format!("interface {interface}"), "missing in the pod"))
}

fn inside<T: Send>(netns: &File, f: impl FnOnce(&mut Channel) -> Result<T> + Send) -> Result<T> {
    ns::in_network(netns.as_fd(), || f(&mut link::open()?))
        .context(|| "enter the pod's network namespace")?
}

fn add_addresses(channel: &mut Channel, index: u32, addresses: &[(Subnet, IpAddr)]) -> Result<()> {
    let mut batch = Batch::default();
    link::push_loopback_up(&mut batch);
    link::push_up(&mut batch, index);
    for (subnet, address) in addresses {
        link::push_address(&mut batch, index, *address, subnet.prefix());
    }
    for (subnet, _) in addresses {
        link::push_default_route(&mut batch, index, subnet.gateway());
    }
    channel.run(batch)
}

/// Gives the pod's interface its addresses and default routes, and brings loopback up.
pub(crate) fn configure(
    netns: &File,
    interface: &str,
    addresses: &[(Subnet, IpAddr)],
) -> Result<()> {
    inside(netns, |channel| {
        let index = find(channel, interface)?;
        let has_v6 = addresses.iter().any(|(_, address)| address.is_ipv6());
        if has_v6 {
            // Neighbours must not be able to make themselves this pod's router.
            set_sysctl(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
        }
        match add_addresses(channel, index, addresses) {
            Err(error) if has_v6 && error.is_kernel(libc::EACCES) => {
                // The kernel refuses IPv6 addresses while the node's default for new interfaces
                // switches IPv6 off.
                set_sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
                set_sysctl("ipv6/conf/lo/disable_ipv6", "0")?;
                add_addresses(channel, index, addresses)
            }
            done => done,
        }
    })
}

/// Whether the pod still has the interface.
pub(crate) fn check(netns: &File, interface: &str) -> Result<()> {
    inside(netns, |channel| find(channel, interface).map(|_index| ()))
}
