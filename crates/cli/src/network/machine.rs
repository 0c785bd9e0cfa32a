//! The ranges that this machine uses otherwise: its addresses, its routes, and where its servers of
//! names are. Nodes that had them would cut off the machine, or themselves.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::Value;

use super::{Network, Range};
use crate::failure::{Context as _, Remedy as _, Result};
use crate::programs;

/// Shorter prefixes are ways to the whole world, also where they come in halves: a more exact route is
/// taken before them, and nobody in particular is behind them.
const WORLD: u8 = 8;
/// A route that is as exact as ours, or more, is in its way.
const EXACT: u8 = 16;

/// A range that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    first: Ipv4Addr,
    length: u8,
    /// The route or the server that it is used by.
    whose: String,
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.first, self.length, self.whose)
    }
}

impl Used {
    /// Whether some addresses are in both.
    pub fn meets(&self, range: Range) -> bool {
        let shorter = u32::from(self.length.min(EXACT));
        let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or(0);
        self.first.to_bits() & mask == range.bits() & mask
    }

    /// Whether packets to it cannot be told from packets to a range that it meets.
    pub fn is_exact(&self) -> bool {
        self.length >= EXACT
    }
}

/// Whether the bridge of a home is in the network that this program is in.
pub fn is_here(network: &Network) -> Result<bool> {
    let step = || format!("bridge {}: look whether it is there", network.bridge);
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).context(step)?;
    match name_to_index(&socket, &network.bridge) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(error) => Err(error).context(step),
    }
}

/// The ranges in use beside a bridge of ours.
pub fn used(bridge: &str) -> Result<Vec<Used>> {
    let step = || "network of the machine: read its routes".to_owned();
    let mut command = crisp_sys::process::command(programs::of_machine("ip")?);
    command
        .args(["-4", "-json", "route", "show", "table", "all"])
        .stdin(Stdio::null());
    let output = command.output().context(step)?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(told)
            .context(step)
            .remedy(|| "install ip (Debian's package is iproute2)".to_owned());
    }
    let routes: Value = match output.stdout.trim_ascii() {
        // Without any route it says nothing.
        b"" => Value::Null,
        text => serde_json::from_slice(text).context(step)?,
    };
    let servers = super::resolvers();
    Ok(routed(&routes, bridge)
        .chain(servers.iter().filter_map(asked))
        .collect())
}

fn routed<'a>(routes: &'a Value, bridge: &'a str) -> impl Iterator<Item = Used> + 'a {
    let all = routes.as_array().into_iter().flatten();
    all.filter_map(move |route| {
        let device = route["dev"].as_str().unwrap_or("no device");
        let (first, length) = range(route["dst"].as_str()?)?;
        let is_loopback = first.is_loopback();
        let counts = length >= WORLD && device != bridge && !is_loopback;
        counts.then(|| Used {
            first,
            length,
            whose: format!("a route to {device}"),
        })
    })
}

fn asked(server: &IpAddr) -> Option<Used> {
    let IpAddr::V4(first) = *server else {
        return None;
    };
    Some(Used {
        first,
        length: 32,
        whose: "a server of names".to_owned(),
    })
}

fn range(destination: &str) -> Option<(Ipv4Addr, u8)> {
    match destination.split_once('/') {
        Some((first, length)) => Some((first.parse().ok()?, length.parse().ok()?)),
        // `default` is none.
        None => Some((destination.parse().ok()?, 32)),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Ranges in use, as `ip` tells of routes to them.
    pub fn of(destinations: &[&str]) -> Vec<Used> {
        let routes = destinations
            .iter()
            .map(|dst| serde_json::json!({"dst": dst, "dev": "eth0"}));
        routed(&routes.collect(), "crisp-x").collect()
    }

    #[test]
    fn a_bridge_is_looked_for_in_our_network() {
        let mut network = crate::network::tests::usual();
        assert!(!is_here(&network).unwrap());
        // Each network has it.
        network.bridge = "lo".to_owned();
        assert!(is_here(&network).unwrap());
    }

    #[test]
    fn ranges_meet_where_one_is_in_the_other() {
        let range: Range = "10.213.0.0/16".parse().unwrap();
        for (used, expected) in [
            ("10.0.0.0/8", true),
            ("10.213.0.0/16", true),
            ("10.213.7.0/24", true),
            ("10.213.255.1", true),
            ("10.212.0.0/15", true),
            ("10.214.0.0/15", false),
            ("10.214.0.1", false),
            ("192.0.2.0/24", false),
        ] {
            assert_eq!(of(&[used])[0].meets(range), expected, "{used}");
        }
    }

    #[test]
    fn ways_to_the_world_and_our_own_are_in_nobodys_way() {
        assert!(of(&["default", "0.0.0.0/1", "128.0.0.0/1", "127.0.0.0/8"]).is_empty());
        let own = serde_json::json!([{"dst": "10.213.0.0/16", "dev": "crisp-x"}]);
        assert_eq!(routed(&own, "crisp-x").count(), 0);
        let refused = serde_json::json!([{"dst": "10.213.0.0/16", "type": "unreachable"}]);
        assert_eq!(routed(&refused, "crisp-x").count(), 1);
    }
}
