//! Laws for any bytes that a vendor may have in a spec file: the fuzzer tries bytes of its own, the
//! tests those of `fuzz/corpus`.

use std::collections::BTreeSet;

use oci_spec::runtime::Spec;

use crate::apply;
use crate::document::{Document, Edits};
use crate::name::Name;

/// A spec file. The devices of one that is read have qualified names, and their edits make a spec
/// that is read again as it was written, or leave it as it was.
pub fn cdi_spec(data: &[u8]) {
    let Ok(document) = Document::parse(data) else {
        return;
    };
    let mut names = BTreeSet::new();
    for device in &document.devices {
        let text = format!("{}={}", document.kind, device.name);
        let name = Name::parse(&text).expect("a device of a file that is read has a name");
        assert_eq!(name.to_string(), text);
        assert!(names.insert(text), "a device twice");
        let mut edits = document.container_edits.clone();
        edits.extend(&device.container_edits);
        check(&edits);
    }
}

fn check(edits: &Edits) {
    let mut spec = Spec::default();
    let before = spec.clone();
    if apply(edits, &mut spec).is_err() {
        assert_eq!(spec, before, "edits that are refused change nothing");
        return;
    }
    let text = serde_json::to_vec(&spec).expect("a spec can be written");
    let again: Spec = serde_json::from_slice(&text).expect("and read");
    assert_eq!(again, spec);
    let process = spec.process().as_ref().expect("a process");
    let env = process.env().iter().flatten();
    let count = env.clone().count();
    let names: BTreeSet<_> = env.map(|text| text.split('=').next()).collect();
    assert_eq!(names.len(), count, "a variable twice");
    assert!(edits.env.iter().all(|text| !text.contains('\0')));
    let mounts = spec.mounts().iter().flatten();
    let depths = mounts.map(|mount| mount.destination().components().count());
    // Without mounts of its own, the spec's stay in the order that they had.
    let are_sorted = edits.mounts.is_empty() || depths.is_sorted();
    assert!(are_sorted, "a mount hides another");
    let paths = edits.mounts.iter().map(|mount| &mount.container_path);
    let paths = paths.chain(edits.device_nodes.iter().map(|node| &node.path));
    for path in paths {
        let text = path.to_str().expect("JSON and YAML are of characters");
        assert!(path.is_absolute() && !text.split('/').any(|part| part == ".."));
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("cdi_spec", cdi_spec)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
