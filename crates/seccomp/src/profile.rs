//! Profiles of the node (`Localhost`): OCI's own JSON, and Docker's with its conditions.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Map, Value};

use crate::{Arch, Result};

/// Reads a profile. Docker's `includes` and `excludes` are decided by the capabilities and the
/// architecture; `archMap` is not needed, since foreign ABIs are refused as a whole.
///
/// # Errors
/// When it is not the JSON of a profile.
pub fn parse_profile(json: &[u8], arch: Arch, granted: &BTreeSet<String>) -> Result<LinuxSeccomp> {
    let mut value: Value = serde_json::from_slice(json)?;
    if let Some(profile) = value.as_object_mut() {
        profile.remove("archMap");
        profile.remove("architectures");
        if let Some(Value::Array(rules)) = profile.get_mut("syscalls") {
            rules.retain(|rule| applies(rule, arch, granted));
            rules
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(normalise);
        }
    }
    Ok(serde_json::from_value(value)?)
}

/// Older profiles have one `name` instead of `names`; comments and conditions are not OCI's.
fn normalise(rule: &mut Map<String, Value>) {
    if let Some(name) = rule.remove("name") {
        rule.entry("names")
            .or_insert_with(|| Value::Array(vec![name]));
    }
    for key in ["comment", "includes", "excludes"] {
        rule.remove(key);
    }
    if rule.get("args").is_some_and(Value::is_null) {
        rule.remove("args");
    }
}

fn applies(rule: &Value, arch: Arch, granted: &BTreeSet<String>) -> bool {
    let list = |condition: &str, key: &str| -> Vec<String> {
        let words = rule
            .get(condition)
            .and_then(|c| c.get(key))
            .and_then(Value::as_array);
        words
            .into_iter()
            .flatten()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect()
    };
    let arch = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    let is_arch = |names: &[String]| names.iter().any(|name| name == arch);
    let arches = list("includes", "arches");
    let included = list("includes", "caps")
        .iter()
        .all(|cap| granted.contains(cap))
        && (arches.is_empty() || is_arch(&arches));
    let excluded = list("excludes", "caps")
        .iter()
        .any(|cap| granted.contains(cap))
        || is_arch(&list("excludes", "arches"));
    included && !excluded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_profiles_are_read_with_their_conditions() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[],"syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{},"excludes":{}},
            {"name":"mount","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["x"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
        let names = |caps: &[&str]| {
            let caps = caps.iter().map(|cap| (*cap).to_owned()).collect();
            let profile = parse_profile(json, Arch::X86_64, &caps).unwrap();
            let rules = profile.syscalls().clone().unwrap();
            rules
                .iter()
                .map(|rule| rule.names()[0].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["read", "clone"]);
        assert_eq!(names(&["CAP_SYS_ADMIN"]), ["read", "mount"]);
        assert!(parse_profile(b"{", Arch::X86_64, &BTreeSet::new()).is_err());
        assert!(parse_profile(b"[]", Arch::X86_64, &BTreeSet::new()).is_err());
    }
}
