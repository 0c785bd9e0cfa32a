//! The configuration of a plugin of type `crisp`, and one call of it, both parsed and checked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crisp_model::{PortMapping, Protocol};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::owner::Owner;
use super::sysctl::has_ipv6;
use crate::error::{Error, Result};
use crate::protocol::CniResult;
use crate::subnet::Subnet;

pub(crate) const DEFAULT_BRIDGE: &str = "crisp0";
const DEFAULT_SUBNETS: [&str; 2] = ["10.88.0.0/16", "fd63:7269:7370::/64"];

/// The configuration as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    bridge: String,
    #[serde(default)]
    subnets: Vec<String>,
    mtu: Option<u32>,
    masquerade: Option<bool>,
    #[serde(default)]
    masquerade_except: Vec<String>,
    #[serde(default)]
    allow_foreign_sources: bool,
    data_dir: Option<PathBuf>,
}

/// The addresses that a pod may send from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sources {
    /// Its own.
    #[default]
    Own,
    /// Any, as a router does.
    Any,
}

/// The configuration with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub bridge: String,
    /// At least one.
    pub subnets: Vec<Subnet>,
    pub mtu: Option<u32>,
    pub masquerade: bool,
    /// Networks that see the pods' own addresses all the same.
    pub masquerade_except: Vec<IpNet>,
    pub sources: Sources,
    /// Records of this bridge.
    pub data_dir: PathBuf,
}

/// Whether a text is an interface name to the kernel, and safe as a part of a path.
pub(crate) fn is_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':'))
}

/// Refuses names that can be no bridge's: loopback's, and those that stand for every interface in
/// `/proc/sys/net`, where a setting of one would be a setting of all.
fn check_bridge(name: &str) -> Result<()> {
    let why = match name {
        "lo" => "loopback is no bridge; name one that is to be made, or leave it out",
        "all" | "default" => "this name stands for all interfaces in /proc/sys/net",
        name if is_interface_name(name) => return Ok(()),
        _ => "not an interface name",
    };
    Err(Error::invalid(format!("bridge {name:?}"), why))
}

fn networks(texts: &[String]) -> Result<Vec<IpNet>> {
    let parse = |text: &String| {
        let wrong = |_| {
            let what = format!("masqueradeExcept {text:?}");
            Error::invalid(what, "ADDRESS/PREFIX is expected")
        };
        text.parse().map_err(wrong)
    };
    texts.iter().map(parse).collect()
}

impl Settings {
    /// Reads a plugin's configuration; records go below `data_root` unless it says otherwise.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub(crate) fn parse(conf: &Value, data_root: &Path) -> Result<Self> {
        let written = Written::deserialize(conf)
            .map_err(|e| Error::invalid("configuration of plugin crisp", e))?;
        let bridge = if written.bridge.is_empty() {
            DEFAULT_BRIDGE.into()
        } else {
            written.bridge
        };
        check_bridge(&bridge)?;
        let defaults = || DEFAULT_SUBNETS.map(str::to_owned).to_vec();
        let texts = if written.subnets.is_empty() {
            defaults()
        } else {
            written.subnets
        };
        let mut subnets = texts
            .iter()
            .map(|text| Subnet::parse(text))
            .collect::<Result<Vec<_>>>()?;
        subnets.retain(|s| s.gateway().is_ipv4() || has_ipv6());
        if subnets.is_empty() {
            return Err(Error::invalid(
                "subnets",
                "all are IPv6, which this kernel lacks",
            ));
        }
        let root = written.data_dir.unwrap_or_else(|| data_root.to_owned());
        Ok(Self {
            data_dir: root.join(&bridge),
            bridge,
            subnets,
            mtu: written.mtu,
            masquerade: written.masquerade.unwrap_or(true),
            masquerade_except: networks(&written.masquerade_except)?,
            sources: if written.allow_foreign_sources {
                Sources::Any
            } else {
                Sources::Own
            },
        })
    }
}

/// One ADD, DEL or CHECK.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub owner: Owner,
    pub netns: Option<PathBuf>,
    pub ports: Vec<PortMapping>,
    pub addresses: Vec<IpAddr>,
    pub mac: Option<[u8; 6]>,
    pub previous: Option<CniResult>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<WrittenPort>,
    ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPort {
    #[serde(default)]
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let wrong = || Error::invalid(format!("MAC {text:?}"), "six octets in hex are expected");
    let octets: Vec<u8> = text
        .split(':')
        .map(|o| u8::from_str_radix(o, 16).map_err(|_| wrong()))
        .collect::<Result<_>>()?;
    let mac: [u8; 6] = octets.try_into().map_err(|_| wrong())?;
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(Error::invalid(
            format!("MAC {text:?}"),
            "not a unicast address",
        ));
    }
    Ok(mac)
}

fn parse_port(written: &WrittenPort) -> Result<PortMapping> {
    let protocol = match written.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Error::invalid(
                format!("protocol {other:?}"),
                "tcp, udp or sctp",
            ));
        }
    };
    let host_ip = match written.host_ip.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|e| Error::invalid(format!("hostIP {text:?}"), e))?,
        ),
    };
    Ok(PortMapping {
        protocol,
        container_port: written.container_port,
        host_port: written.host_port,
        host_ip,
    })
}

fn parse_address(text: &str) -> Result<IpAddr> {
    let with_prefix = text.parse().map(|net: IpNet| net.addr());
    with_prefix
        .or_else(|_| text.parse())
        .map_err(|e| Error::invalid(format!("address {text:?}"), e))
}

impl Request {
    /// Reads a call from the configuration that the runtime passes.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub(crate) fn parse(owner: Owner, netns: Option<PathBuf>, conf: &Value) -> Result<Self> {
        let is_id = |id: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && id.bytes().all(plain)
        };
        if !is_id(&owner.container) || owner.container.len() > 200 {
            let what = format!("container id {:?}", owner.container);
            return Err(Error::invalid(
                what,
                "letters, digits, `_`, `.` and `-` are expected",
            ));
        }
        if !is_interface_name(&owner.interface) {
            return Err(Error::invalid(
                format!("interface {:?}", owner.interface),
                "no name",
            ));
        }
        let runtime = match conf.get("runtimeConfig") {
            Some(value) => {
                RuntimeConfig::deserialize(value).map_err(|e| Error::invalid("runtimeConfig", e))?
            }
            None => RuntimeConfig::default(),
        };
        Ok(Self {
            owner,
            netns,
            ports: runtime
                .port_mappings
                .iter()
                .map(parse_port)
                .collect::<Result<_>>()?,
            addresses: runtime
                .ips
                .iter()
                .map(|t| parse_address(t))
                .collect::<Result<_>>()?,
            mac: runtime
                .mac
                .as_deref()
                .filter(|m| !m.is_empty())
                .map(parse_mac)
                .transpose()?,
            previous: conf.get("prevResult").map(CniResult::parse).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(conf: &Value) -> Result<Request> {
        let owner = Owner {
            container: "c1".into(),
            interface: "eth0".into(),
        };
        Request::parse(owner, None, conf)
    }

    #[test]
    fn settings_have_defaults_and_are_checked() {
        let parse = |conf: Value| Settings::parse(&conf, Path::new("/data"));
        let defaults = parse(json!({"type": "crisp"})).unwrap();
        assert_eq!(defaults.bridge, "crisp0");
        assert_eq!(defaults.data_dir, Path::new("/data/crisp0"));
        assert!(defaults.masquerade);
        let own = json!({"bridge": "b1", "subnets": ["10.1.0.0/24"], "dataDir": "/x", "masquerade": false});
        let own = parse(own).unwrap();
        assert_eq!(
            (own.data_dir.as_path(), own.masquerade),
            (Path::new("/x/b1"), false)
        );
        for bad in [
            json!({"bridge": "a/b"}),
            json!({"bridge": "sixteen-letters-"}),
            json!({"bridge": "lo"}),
            json!({"bridge": "all"}),
            json!({"bridge": "default"}),
            json!({"subnets": ["10.1.0.1/24"]}),
            json!({"subnets": "10.1.0.0/24"}),
            json!({"mtu": -1}),
            json!({"masqueradeExcept": ["10.1.0.0"]}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn runtime_config_is_read_and_checked() {
        let good = request(&json!({"runtimeConfig": {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "::1"}],
            "ips": ["10.1.0.7/24", "fd00::7"], "mac": "02:00:00:00:00:07"}}))
        .unwrap();
        assert_eq!(good.ports[0].host_ip, Some("::1".parse().unwrap()));
        assert_eq!(good.addresses.len(), 2);
        assert_eq!(good.mac, Some([2, 0, 0, 0, 0, 7]));
        for bad in [
            json!({"portMappings": [{"hostPort": 70000, "containerPort": 80}]}),
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}),
            json!({"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}]}),
            json!({"ips": ["x"]}),
            json!({"mac": "ff:ff:ff:ff:ff:ff"}),
            json!({"mac": "02:00:00"}),
        ] {
            assert!(
                request(&json!({"runtimeConfig": bad.clone()})).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn ids_cannot_leave_the_record_directory() {
        for bad in ["", "../x", "a/b", ".x", "a b", "a\nb"] {
            let owner = Owner {
                container: bad.into(),
                interface: "eth0".into(),
            };
            assert!(Request::parse(owner, None, &json!({})).is_err(), "{bad:?}");
        }
    }
}
