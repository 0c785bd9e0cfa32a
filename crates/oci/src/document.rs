//! Documents as others write them, made fit for our types: these know fewer words than the kernel of
//! tomorrow, and spell some differently than the specification.

use std::path::Path;

use crisp_model::nul::place_of_nul;
use oci_spec::runtime::Capability;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};

/// Refuses a text that no path, argument or variable can have, before anything is made: a hook that
/// runs after the container's end would else be the first to meet it.
pub(crate) fn refuse_nul(path: &Path, document: &Value) -> Result<()> {
    let Some(place) = place_of_nul(document) else {
        return Ok(());
    };
    let path = path.display();
    let why = format!("invalid spec: {place}: holds a NUL byte (in {path})");
    Err(Failure::Refused(why))
}

/// Fits the process of a bundle; returns what was left out.
pub(crate) fn fit_spec(spec: &mut Value) -> Vec<String> {
    if let Some(resources) = spec.pointer_mut("/linux/resources") {
        fit_resources(resources);
    }
    // Our types spell both in their own way.
    if let Some(Value::Object(rdt)) = spec.pointer_mut("/linux/intelRdt") {
        for (name, ours) in [("enableCMT", "enableCmt"), ("enableMBM", "enableMbm")] {
            if let Some(value) = rdt.remove(name) {
                rdt.insert(ours.to_owned(), value);
            }
        }
    }
    spec.get_mut("process")
        .filter(|process| process.is_object())
        .map(fit_process)
        .unwrap_or_default()
}

/// Fits limits: a limit of tasks that names no number is none, and not one of 0.
pub(crate) fn fit_resources(resources: &mut Value) {
    let unsaid = |pids: &Value| pids.get("limit").is_none_or(Value::is_null);
    if let Value::Object(limits) = resources
        && limits
            .get("pids")
            .is_some_and(|pids| pids.is_object() && unsaid(pids))
    {
        limits.remove("pids");
    }
}

/// Fits a process: one without a user is root's, and capabilities that no kernel here has are left
/// out and told, as a runtime that is older than the kernel has to.
pub(crate) fn fit_process(process: &mut Value) -> Vec<String> {
    let Value::Object(fields) = process else {
        return Vec::new();
    };
    let user = fields.entry("user").or_insert(Value::Null);
    if user.is_null() {
        *user = json!({});
    }
    spell_flags(process);
    let mut unknown = Vec::new();
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        if let Value::Array(names) = set {
            names.retain(|name| is_known(name, &mut unknown));
        }
    }
    if unknown.is_empty() {
        return Vec::new();
    }
    let names = unknown.join(", ");
    vec![format!("unknown capabilities are ignored: {names}")]
}

/// Notes a name that is not known, once. A value that is no text stays, for the types to refuse.
fn is_known(name: &Value, unknown: &mut Vec<String>) -> bool {
    let Some(text) = name.as_str() else {
        return true;
    };
    let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
    if !known && !unknown.iter().any(|noted| noted == text) {
        unknown.push(text.to_owned());
    }
    known
}

/// The scheduler's flags, two of which our types spell in their own way.
fn spell_flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = json!("SCHED_RESET_ON_FORK"),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = json!("SCHED_FLAG_D_L_OVERRUN"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Process, Spec};

    use super::*;

    #[test]
    fn what_is_not_known_is_left_out_and_told() {
        let mut spec = json!({ "ociVersion": "1.0.0", "process": { "cwd": "/", "capabilities": {
            "bounding": ["CAP_KILL", "CAP_TOMORROW"], "effective": ["CAP_TOMORROW"],
            "permitted": null
        } } });
        let told = fit_spec(&mut spec);
        assert_eq!(told, ["unknown capabilities are ignored: CAP_TOMORROW"]);
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.user().uid(), 0);
        let sets = process.capabilities().as_ref().unwrap();
        let count = |set: &Option<oci_spec::runtime::Capabilities>| set.as_ref().map(|s| s.len());
        assert_eq!(
            (count(sets.bounding()), count(sets.effective())),
            (Some(1), Some(0))
        );
        assert_eq!(
            fit_spec(&mut json!({ "process": null })),
            Vec::<String>::new()
        );
    }

    #[test]
    fn no_limit_of_tasks_is_not_one_of_0() {
        for (pids, kept) in [
            (json!({}), false),
            (json!({ "limit": null }), false),
            (json!({ "limit": 0 }), true),
            (json!({ "limit": 5 }), true),
        ] {
            let mut spec = json!({ "linux": { "resources": { "pids": pids } } });
            fit_spec(&mut spec);
            let left = spec.pointer("/linux/resources/pids");
            assert_eq!(left.is_some(), kept, "{pids}");
        }
    }

    /// All flags of the specification are read.
    #[test]
    fn flags_of_the_scheduler_have_their_names() {
        let flags = [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ]
        .map(|flag| format!("SCHED_FLAG_{flag}"));
        let mut process =
            json!({ "cwd": "/", "scheduler": { "policy": "SCHED_RR", "flags": flags } });
        fit_process(&mut process);
        let process: Process = serde_json::from_value(process).unwrap();
        let scheduler = process.scheduler().as_ref().unwrap();
        assert_eq!(scheduler.flags().as_ref().unwrap().len(), flags.len());
    }
}
