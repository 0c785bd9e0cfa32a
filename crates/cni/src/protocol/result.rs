//! A result is a plugin's answer to ADD: interfaces, addresses, routes and DNS settings.
//!
//! Every version that was ever specified is read and written here. The rest of the crate knows one
//! form, that of 1.0 and 1.1, which also keeps fields that are not known to us. Older forms are
//! needed because the plugins of a chain get the result in the version of their list.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::version::Version;
use crate::attachment::{Attachment, Interface};
use crate::error::{Error, Result};

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CniInterface {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CniIp {
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CniResult {
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub interfaces: Vec<CniInterface>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub ips: Vec<CniIp>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub routes: Vec<Map<String, Value>>,
    #[serde(
        default,
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "or_default"
    )]
    pub dns: Map<String, Value>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `null` is nothing, as Go writes it.
fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The form up to 0.2.0: one address per family.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ancient {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<AncientIp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<AncientIp>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    dns: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AncientIp {
    ip: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    routes: Vec<Map<String, Value>>,
}

fn is_v4(cidr: &str) -> bool {
    cidr.parse().is_ok_and(|net: IpNet| net.addr().is_ipv4())
}

fn wrong(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::invalid("plugin result", why)
}

impl CniResult {
    /// Reads a result in the version that it names itself.
    ///
    /// # Errors
    /// When it is malformed or of an unknown version.
    pub(crate) fn parse(value: &Value) -> Result<Self> {
        let version = match value.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => Version::OLDEST,
            Some(text) => Version::parse(text).map_err(wrong)?,
        };
        if !version.is_supported() {
            return Err(wrong(format!("version {version} is not known")));
        }
        let mut result = if version < Version::LISTS_OF_IPS {
            Ancient::deserialize(value).map_err(wrong)?.into_result()
        } else {
            Self::deserialize(value).map_err(wrong)?
        };
        result.other.remove("cniVersion");
        for ip in &mut result.ips {
            ip.other.remove("version");
            if ip.address.parse::<IpNet>().is_err() {
                let why = format!("address {:?} is not ADDRESS/PREFIX", ip.address);
                return Err(wrong(why));
            }
        }
        Ok(result)
    }

    /// Writes the result in a version.
    pub(crate) fn render(&self, version: Version) -> Value {
        let mut value = if version < Version::LISTS_OF_IPS {
            json!(Ancient::of(self))
        } else {
            json!(self)
        };
        if version >= Version::LISTS_OF_IPS && version < Version::PLAIN_IPS {
            for ip in value["ips"].as_array_mut().into_iter().flatten() {
                let v4 = ip["address"].as_str().is_some_and(is_v4);
                ip["version"] = json!(if v4 { "4" } else { "6" });
            }
        }
        value["cniVersion"] = json!(version.to_string());
        value
    }

    /// The addresses of the container, in order; those of interfaces on the node are left out.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let in_pod = |ip: &&CniIp| {
            let interface = ip.interface.and_then(|i| self.interfaces.get(i));
            interface.is_none_or(|i| !i.sandbox.is_empty())
        };
        let ips = self.ips.iter().filter(in_pod);
        ips.filter_map(|ip| ip.address.parse::<IpNet>().ok())
            .map(|net| net.addr())
            .collect()
    }

    /// Adds a route.
    pub(crate) fn push_route(&mut self, destination: &str, gateway: &str) {
        let mut route = Map::new();
        route.insert("dst".into(), json!(destination));
        route.insert("gw".into(), json!(gateway));
        self.routes.push(route);
    }

    /// The attachment that the engine gets.
    pub(crate) fn attachment(&self, version: Version) -> Attachment {
        let interface = |i: &CniInterface| Interface {
            name: i.name.clone(),
            mac: i.mac.clone(),
            sandbox: i.sandbox.clone(),
        };
        Attachment {
            ips: self.addresses(),
            interfaces: self.interfaces.iter().map(interface).collect(),
            result: self.render(version),
        }
    }
}

impl Ancient {
    fn into_result(self) -> CniResult {
        let mut result = CniResult {
            dns: self.dns,
            ..CniResult::default()
        };
        for ip in [self.ip4, self.ip6].into_iter().flatten() {
            result.routes.extend(ip.routes);
            result.ips.push(CniIp {
                address: ip.ip,
                gateway: ip.gateway,
                ..CniIp::default()
            });
        }
        result
    }

    fn of(result: &CniResult) -> Self {
        let family = |v4: bool| {
            let ip = result.ips.iter().find(|ip| is_v4(&ip.address) == v4)?;
            let same = |r: &&Map<String, Value>| {
                r.get("dst").and_then(Value::as_str).is_some_and(is_v4) == v4
            };
            Some(AncientIp {
                ip: ip.address.clone(),
                gateway: ip.gateway.clone(),
                routes: result.routes.iter().filter(same).cloned().collect(),
            })
        };
        Self {
            ip4: family(true),
            ip6: family(false),
            dns: result.dns.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn every_version_is_read_to_the_same_addresses() {
        let ip4 =
            json!({"ip": "10.1.0.5/24", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0"}]});
        for (value, count) in [
            (json!({"ip4": ip4, "dns": {}}), 1),
            (json!({"cniVersion": "0.1.0", "ip4": ip4}), 1),
            (
                json!({"cniVersion": "0.2.0", "ip4": ip4, "ip6": {"ip": "fd00::5/64"}}),
                2,
            ),
            (
                json!({"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.5/24"}]}),
                1,
            ),
            (
                json!({"cniVersion": "0.4.0", "interfaces": null, "ips": [{"version": "4", "address": "10.1.0.5/24"}], "dns": null}),
                1,
            ),
            (
                json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/24"}]}),
                1,
            ),
            (
                json!({"cniVersion": "1.1.0", "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/x", "mtu": 9}],
                "ips": [{"address": "10.1.0.5/24", "interface": 1}, {"address": "10.1.0.1/24", "interface": 0}]}),
                1,
            ),
        ] {
            let result = CniResult::parse(&value).unwrap();
            let addresses = result.addresses();
            assert_eq!(addresses.len(), count, "{value}");
            assert_eq!(
                addresses[0],
                "10.1.0.5".parse::<IpAddr>().unwrap(),
                "{value}"
            );
        }
    }

    #[test]
    fn malformed_results_are_refused() {
        for bad in [
            json!([]),
            json!("x"),
            json!({"cniVersion": "9.0.0"}),
            json!({"cniVersion": 1, "ip4": {"ip": 3}}),
            json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5"}]}),
            json!({"cniVersion": "1.0.0", "ips": {}}),
            json!({"ip4": {}}),
        ] {
            assert!(CniResult::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_result_survives_each_version() {
        let value = json!({"cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n", "mtu": 1400}],
            "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}], "dns": {"nameservers": ["1.1.1.1"]}});
        let result = CniResult::parse(&value).unwrap();
        assert_eq!(result.render(version("1.1.0")), value);
        let old = result.render(version("0.4.0"));
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(CniResult::parse(&old).unwrap(), result);
        let ancient = result.render(version("0.2.0"));
        assert_eq!(ancient["ip4"]["gateway"], "10.1.0.1");
        assert_eq!(
            CniResult::parse(&ancient).unwrap().addresses(),
            result.addresses()
        );
    }
}
