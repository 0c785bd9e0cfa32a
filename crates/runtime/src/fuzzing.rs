//! Laws for any bytes that a bundle's `config.json` may hold: the fuzzer tries bytes of
//! its own, the tests those of `fuzz/corpus`. Only what is read is tried, nothing is made.

use oci_spec::runtime::Spec;

use crate::options::Options;
use crate::{device_rules, limits, options, sysctl};

/// A spec is understood to the letter or refused with a reason.
pub fn spec(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else {
        return;
    };
    for mount in spec.mounts().iter().flatten() {
        let list = mount.options().as_deref().unwrap_or_default();
        match Options::parse(list) {
            Ok(options) => assert!(options.parameters.len() <= list.len()),
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
    let Some(linux) = spec.linux() else {
        return;
    };
    if let Some(text) = linux.rootfs_propagation() {
        drop(options::rootfs_propagation(text));
    }
    for key in linux.sysctl().iter().flat_map(|all| all.keys()) {
        if let Ok(path) = sysctl::checked_path(key) {
            let odd = |part: &str| matches!(part, "" | "." | "..");
            assert!(!path.split('/').any(odd), "{key:?} leads elsewhere");
        }
    }
    let Some(resources) = linux.resources() else {
        return;
    };
    let rules = resources.devices().as_deref().unwrap_or_default();
    if let Ok(read) = device_rules::all(rules) {
        assert_eq!(read.len(), rules.len(), "no rule is passed over");
    }
    if let Some(memory) = resources.memory() {
        let present = [None, Some(0), Some(1 << 62)];
        for present in present {
            assert!(limits::memory_v1(memory, present).len() <= 2);
            let present = present.and_then(|limit| i64::try_from(limit).ok());
            assert!(limits::memory_v2(memory, present).len() <= 2);
        }
    }
    if let Some(cpu) = resources.cpu() {
        drop(limits::cpu_max(cpu, || Some("max 100000".to_owned())));
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("oci_spec", spec)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
