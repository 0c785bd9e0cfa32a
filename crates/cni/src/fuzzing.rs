//! Laws for any bytes that a plugin prints, a configuration holds, the disk gives
//! back or netlink answers: the fuzzer tries bytes of its own, the tests those of `fuzz/corpus`.

use std::path::Path;

use serde_json::Value;

use crate::builtin::Settings;
use crate::client::{Complaint, ConfList, parse_record};
use crate::netlink::{link, read_all, wire};
use crate::nft::uncomment;
use crate::protocol::{CniResult, Version};

/// Plugins of a configuration that is taken can be called: neither they nor the network are paths.
pub fn conf(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    if let Ok(list) = ConfList::inline(&value) {
        assert!(!list.plugins.is_empty() && !list.name.contains('/'));
        assert!(list.version().is_supported());
        for plugin in &list.plugins {
            let kind = plugin.kind();
            assert!(!kind.is_empty() && !kind.contains('/') && kind != "..");
            drop(plugin.base(&list.name, list.version()));
        }
        let kept = serde_json::to_vec(&list).expect("a list can be kept");
        assert_eq!(serde_json::from_slice::<ConfList>(&kept).ok(), Some(list));
    }
    if let Ok(settings) = Settings::parse(&value, Path::new("/var/lib/x")) {
        assert!(!settings.bridge.contains('/') && !settings.subnets.is_empty());
    }
}

/// A result keeps its addresses in every version that has lists of them.
pub fn result(data: &[u8]) {
    let complaint = Complaint::read(data);
    assert!(complaint.is_none_or(|complaint| !complaint.text.is_empty()));
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    drop(Complaint::of_success(&value));
    let Ok(result) = CniResult::parse(&value) else {
        return;
    };
    for version in Version::ALL {
        let written = result.render(version);
        let again = CniResult::parse(&written).expect("what was written is read");
        if version >= Version::LISTS_OF_IPS {
            assert_eq!(again.addresses(), result.addresses(), "{version}");
        }
        drop(again.attachment(version));
    }
}

/// A record of an attachment is read as it was written.
pub fn record(data: &[u8]) {
    if let Ok(record) = parse_record(data) {
        let written = serde_json::to_vec(&record).expect("a record can be written");
        let again = parse_record(&written).expect("what was written is read");
        assert_eq!(again.result().is_some(), record.result().is_some());
        assert_eq!(again.list, record.list);
    }
}

/// An answer of the kernel is never read beyond its end.
pub fn netlink(data: &[u8]) {
    let attributes: usize = wire::attributes(data).map(|(_, value)| value.len()).sum();
    assert!(attributes <= data.len());
    drop((uncomment(data), wire::text(data)));
    read_all(data);
    drop(link::parse(data));
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[
    ("cni_conf", conf),
    ("cni_result", result),
    ("cni_record", record),
    ("netlink", netlink),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
