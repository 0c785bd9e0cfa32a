//! Picks the bridge when the configuration names none: the first of `crisp0`, `crisp1`, … that no
//! other daemon owns and whose subnets nothing else on the node uses.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::bridge;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::netlink::{Channel, link};
use crate::subnet::Subnet;

const BRIDGES: u8 = 64;

/// The configuration of the bridge `crispN`.
pub(crate) fn defaults(n: u8) -> Value {
    json!({
        "bridge": format!("crisp{n}"),
        "subnets": [format!("10.{}.0.0/16", 88 + n), format!("fd63:7269:7370:{n:x}::/64")],
    })
}

fn overlaps(subnets: &[Subnet], used: &[IpNet]) -> bool {
    used.iter()
        .any(|net| subnets.iter().any(|subnet| subnet.overlaps(*net)))
}

fn is_ours(channel: &mut Channel, settings: &Settings) -> Result<bool> {
    let found = link::by_name(channel, &settings.bridge)?;
    Ok(found.is_some_and(|link| link.alias == bridge::alias(settings)))
}

/// Chooses and claims a bridge for the records below `data_root`.
///
/// # Errors
/// When all are taken, or the kernel refuses.
pub(crate) fn choose(data_root: &Path) -> Result<Value> {
    let mut channel = link::open()?;
    let choices = (0..BRIDGES)
        .map(|n| Ok((defaults(n), Settings::parse(&defaults(n), data_root)?)))
        .collect::<Result<Vec<_>>>()?;
    for (conf, settings) in &choices {
        if is_ours(&mut channel, settings)? {
            return Ok(conf.clone());
        }
    }
    let used = link::addresses(&mut channel)?;
    for (conf, settings) in choices {
        if !overlaps(&settings.subnets, &used) && bridge::claim(&mut channel, &settings)? {
            return Ok(conf);
        }
    }
    Err(Error::invalid(
        "bridge",
        "all names from crisp0 on, or their subnets, are taken",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_subnets_are_seen() {
        let subnets = ["10.88.0.0/16", "fd00::/64"].map(|s| Subnet::parse(s).unwrap());
        for (address, prefix, expected) in [
            ("10.88.3.1", 24, true),
            ("10.0.0.1", 8, true),
            ("10.89.0.1", 16, false),
            ("0.0.0.0", 0, true),
            ("fd00::1", 128, true),
            ("fd00:0:0:1::1", 64, false),
        ] {
            let used = [IpNet::new(address.parse().unwrap(), prefix).unwrap()];
            assert_eq!(overlaps(&subnets, &used), expected, "{address}/{prefix}");
        }
    }
}
