//! The runtime configuration: values of the pod that a plugin gets if it declares the capability
//! for them. Users ask for bandwidth, addresses and a MAC by annotations.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::conf::{ConfList, Plugin};
use crate::attachment::PodNetwork;
use crate::error::{Error, Result};

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Multus' annotation for the default network, the only one that this runtime attaches.
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// The largest burst that the bandwidth plugin accepts, so that only the rate limits.
const BURST: u64 = (1 << 31) - 1;
const LEAST_BANDWIDTH: u64 = 1_000;
const MOST_BANDWIDTH: u64 = 1_000_000_000_000_000;

/// A Kubernetes quantity (`10M`, `1.5Gi`, `2e6`) in whole units, rounded up.
pub(crate) fn parse_quantity(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (power, base): (i32, f64) = match suffix {
        "" => (0, 10.0),
        "n" => (-9, 10.0),
        "u" => (-6, 10.0),
        "m" => (-3, 10.0),
        "k" => (3, 10.0),
        "M" => (6, 10.0),
        "G" => (9, 10.0),
        "T" => (12, 10.0),
        "P" => (15, 10.0),
        "E" => (18, 10.0),
        "Ki" => (10, 2.0),
        "Mi" => (20, 2.0),
        "Gi" => (30, 2.0),
        "Ti" => (40, 2.0),
        "Pi" => (50, 2.0),
        "Ei" => (60, 2.0),
        exponent => (exponent.strip_prefix(['e', 'E'])?.parse().ok()?, 10.0),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = number.parse::<f64>().ok().filter(|_| plain)? * base.powi(power);
    if !(0.0..=1e19).contains(&value) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was just checked, and the cast saturates"
    )]
    Some(value.ceil() as u64)
}

fn bandwidth(annotations: &BTreeMap<String, String>) -> Result<Option<Value>> {
    let mut limits = Map::new();
    for (annotation, direction) in [(INGRESS, "ingress"), (EGRESS, "egress")] {
        let Some(text) = annotations.get(annotation) else {
            continue;
        };
        let rate = parse_quantity(text)
            .filter(|rate| (LEAST_BANDWIDTH..=MOST_BANDWIDTH).contains(rate))
            .ok_or_else(|| {
                let why = format!("{text:?} is not a quantity between 1k and 1P");
                Error::invalid(format!("annotation {annotation}"), why)
            })?;
        limits.insert(format!("{direction}Rate"), json!(rate));
        limits.insert(format!("{direction}Burst"), json!(BURST));
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

#[derive(Debug, Default, Deserialize)]
struct Selection {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
    #[serde(default, rename = "infiniband-guid")]
    infiniband_guid: Option<String>,
}

fn selection(annotations: &BTreeMap<String, String>) -> Result<Selection> {
    let text = annotations.get(DEFAULT_NETWORK).map_or("", |t| t.trim());
    // A bare name only chooses a network, and there is only one to choose.
    if !text.starts_with('[') {
        return Ok(Selection::default());
    }
    let parsed: Vec<Selection> = serde_json::from_str(text)
        .map_err(|e| Error::invalid(format!("annotation {DEFAULT_NETWORK}"), e))?;
    Ok(parsed.into_iter().next().unwrap_or_default())
}

fn port_mappings(pod: &PodNetwork) -> Value {
    let wanted = pod.port_mappings.iter().filter(|p| p.host_port != 0);
    let mapping = wanted.map(|p| {
        json!({
            "hostPort": p.host_port,
            "containerPort": p.container_port,
            "protocol": p.protocol.as_str(),
            "hostIP": p.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        })
    });
    mapping.collect()
}

/// Annotations, each with the capabilities by which a plugin asks for it.
const TAKERS: [(&str, &[&str]); 3] = [
    (INGRESS, &["bandwidth"]),
    (EGRESS, &["bandwidth"]),
    (DEFAULT_NETWORK, &["ips", "mac", "infinibandGUID"]),
];

fn asks(list: &ConfList, capabilities: &[&str]) -> bool {
    let mut all = list.plugins.iter();
    all.any(|plugin| capabilities.iter().any(|name| plugin.has_capability(name)))
}

/// The pod's annotations that no plugin of the list takes: they are not even read.
pub(crate) fn unasked(pod: &PodNetwork, list: &ConfList) -> Vec<&'static str> {
    let chooses_only =
        |name: &str, text: &String| name == DEFAULT_NETWORK && !text.trim().starts_with('[');
    let is_there = |name: &str| {
        let text = pod.annotations.get(name);
        text.is_some_and(|text| !chooses_only(name, text))
    };
    let left = TAKERS
        .iter()
        .filter(|(name, takers)| is_there(name) && !asks(list, takers));
    left.map(|(name, _)| *name).collect()
}

/// All values of a pod that a plugin of the list asks for, by the capability.
pub(crate) fn arguments(pod: &PodNetwork, list: &ConfList) -> Result<Map<String, Value>> {
    let left = unasked(pod, list);
    let mut annotations = pod.annotations.clone();
    annotations.retain(|name, _| !left.contains(&name.as_str()));
    let selection = selection(&annotations)?;
    let ports = port_mappings(pod);
    let has_ports = ports.as_array().is_some_and(|p| !p.is_empty());
    let dns = json!({
        "servers": pod.dns.servers,
        "searches": pod.dns.searches,
        "options": pod.dns.options,
    });
    let has_dns = pod.dns != crisp_model::DnsConfig::default();
    let candidates = [
        ("portMappings", has_ports.then_some(ports)),
        ("bandwidth", bandwidth(&annotations)?),
        ("dns", has_dns.then_some(dns)),
        (
            "ips",
            (!selection.ips.is_empty()).then(|| json!(selection.ips)),
        ),
        ("mac", selection.mac.map(Value::String)),
        (
            "infinibandGUID",
            selection.infiniband_guid.map(Value::String),
        ),
        (
            "io.kubernetes.cri.pod-annotations",
            Some(json!(pod.annotations)),
        ),
        ("cgroupPath", Some(json!(pod.cgroup_path))),
    ];
    let told = candidates
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(told.collect())
}

/// The values whose capability a plugin declares.
pub(crate) fn declared(plugin: &Plugin, arguments: &Map<String, Value>) -> Map<String, Value> {
    let wanted = arguments
        .iter()
        .filter(|(name, _)| plugin.has_capability(name));
    wanted
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, expected) in [
            ("1", Some(1)),
            ("10M", Some(10_000_000)),
            ("1Ki", Some(1024)),
            ("1.5Gi", Some(1_610_612_736)),
            ("1500m", Some(2)),
            ("2e6", Some(2_000_000)),
            ("2E6", Some(2_000_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1 M", None),
            ("1Mb", None),
            ("inf", None),
            ("1e400", None),
        ] {
            assert_eq!(parse_quantity(text), expected, "{text:?}");
        }
    }

    #[test]
    fn annotations_become_limits_and_addresses() {
        let annotations = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let limits = bandwidth(&annotations(&[(INGRESS, "1M")]))
            .unwrap()
            .unwrap();
        assert_eq!(
            limits,
            json!({"ingressRate": 1_000_000, "ingressBurst": BURST})
        );
        assert!(bandwidth(&annotations(&[(EGRESS, "1")])).is_err());
        assert!(bandwidth(&annotations(&[(EGRESS, "much")])).is_err());
        assert_eq!(bandwidth(&annotations(&[])).unwrap(), None);
        let chosen = r#"[{"name": "n", "ips": ["10.1.0.7/24"], "mac": "02:00:00:00:00:01"}]"#;
        let chosen = selection(&annotations(&[(DEFAULT_NETWORK, chosen)])).unwrap();
        assert_eq!(chosen.ips, ["10.1.0.7/24"]);
        assert!(selection(&annotations(&[(DEFAULT_NETWORK, "[{")])).is_err());
        assert_eq!(
            selection(&annotations(&[(DEFAULT_NETWORK, "name")]))
                .unwrap()
                .ips
                .len(),
            0
        );
    }
}
