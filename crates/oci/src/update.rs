//! `update`: limits by flags or by a document, on top of those that were set before.

use std::io;
use std::path::{Path, PathBuf};

use crisp_sys::file;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::arguments::{LimitArgs, UpdateArgs};
use crate::document::fit_resources;
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::scope;
use crate::status::{Container, Status};

const MAX_RESOURCES: u64 = 1024 * 1024;

type Sections = Map<String, Value>;

/// Changes the limits of a container.
pub(crate) fn update(invocation: &Invocation, arguments: &UpdateArgs) -> Result<()> {
    let wanted = match &arguments.resources {
        Some(path) => read(path)?,
        None => flags(&arguments.limits)?,
    };
    let found = Container::find(&invocation.store, &arguments.id)?;
    let _turn = invocation.store.lock(&found.id)?;
    let mut container = Container::find(&invocation.store, &arguments.id)?;
    if matches!(container.status, Status::Creating | Status::Stopped) {
        return Err(Failure::refused("container not running"));
    }
    share(invocation, &container, &arguments.limits)?;
    let before = present(&container)?;
    let merged = merge(&before, &wanted);
    let only = |all: &Sections| -> Sections {
        let touched = all.iter().filter(|(key, _)| wanted.contains_key(*key));
        touched
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let changed = resources(only(&merged))?;
    for warning in crisp_runtime::update(&container.cgroup, &changed)? {
        invocation.journal.warning(&warning);
    }
    if let Some(unit) = &container.record.unit {
        unit.set(scope::of_limits(&changed)?)?;
    }
    let merged = resources(merged)?;
    if let Some(linux) = container.record.spec.linux_mut() {
        linux.set_resources(Some(merged));
    }
    invocation.store.save(&container.id, &container.record)
}

/// Limits beside those of cgroups.
fn share(invocation: &Invocation, container: &Container, flags: &LimitArgs) -> Result<()> {
    let former = [
        ("--kernel-memory", &flags.kernel_memory),
        ("--kernel-memory-tcp", &flags.kernel_memory_tcp),
    ];
    for (name, _) in former.iter().filter(|(_, value)| value.is_some()) {
        let text = format!("{name} is ignored: Linux has no such limit any more");
        invocation.journal.warning(&text);
    }
    let schemata = [&flags.l3_cache_schema, &flags.mem_bw_schema];
    let schemata: Vec<String> = schemata.into_iter().flatten().cloned().collect();
    if schemata.is_empty() {
        return Ok(());
    }
    let id = container.id.as_str();
    let shared = crisp_runtime::intel_rdt::share(&container.record.spec, id, &schemata);
    Ok(shared?)
}

fn resources(sections: Sections) -> Result<LinuxResources> {
    serde_json::from_value(Value::Object(sections)).map_err(document("resources"))
}

fn document(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Failure {
    let path = path.into();
    |source| Failure::Document { path, source }
}

/// The limits that are on record.
fn present(container: &Container) -> Result<Sections> {
    let linux = container.record.spec.linux().as_ref();
    match linux.and_then(|linux| linux.resources().as_ref()) {
        Some(resources) => sections(resources),
        None => Ok(Sections::new()),
    }
}

fn sections(resources: &LinuxResources) -> Result<Sections> {
    match serde_json::to_value(resources).map_err(document("resources"))? {
        Value::Object(sections) => Ok(sections),
        _ => Ok(Sections::new()),
    }
}

/// A document is checked whole. Devices are not changed by an update, as with other runtimes.
fn read(path: &Path) -> Result<Sections> {
    let bytes = if path == Path::new("-") {
        file::read_all_bounded(io::stdin().lock(), MAX_RESOURCES)
    } else {
        file::read_bounded(path, MAX_RESOURCES)
    };
    let bytes = bytes.context(|| format!("read {}", path.display()))?;
    let mut written = serde_json::from_slice(&bytes).map_err(document(path))?;
    fit_resources(&mut written);
    let parsed = serde_json::from_value(written).map_err(document(path))?;
    let mut sections = sections(&parsed)?;
    sections.remove("devices");
    Ok(sections)
}

/// New values over old ones, section by section: some limits depend on each other.
fn merge(before: &Sections, wanted: &Sections) -> Sections {
    let mut merged = before.clone();
    for (key, value) in wanted {
        match (merged.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            _ => drop(merged.insert(key.clone(), value.clone())),
        }
    }
    merged
}

fn flags(flags: &LimitArgs) -> Result<Sections> {
    let memory = [
        ("limit", size(flags.memory.as_deref())?),
        ("reservation", size(flags.memory_reservation.as_deref())?),
        ("swap", size(flags.memory_swap.as_deref())?),
    ];
    let cpu = [
        ("shares", flags.cpu_share.map(Value::from)),
        ("quota", flags.cpu_quota.map(Value::from)),
        ("period", flags.cpu_period.map(Value::from)),
        ("burst", flags.cpu_burst.map(Value::from)),
        ("idle", flags.cpu_idle.map(Value::from)),
        ("realtimePeriod", flags.cpu_rt_period.map(Value::from)),
        ("realtimeRuntime", flags.cpu_rt_runtime.map(Value::from)),
        ("cpus", flags.cpuset_cpus.clone().map(Value::from)),
        ("mems", flags.cpuset_mems.clone().map(Value::from)),
    ];
    let pids = [("limit", flags.pids_limit.map(Value::from))];
    let io = [("weight", flags.blkio_weight.map(Value::from))];
    let named = [
        ("memory", section(memory)),
        ("cpu", section(cpu)),
        ("pids", section(pids)),
        ("blockIO", section(io)),
    ];
    let given = named.into_iter().filter(|(_, section)| !section.is_empty());
    Ok(given
        .map(|(name, section)| (name.to_owned(), Value::Object(section)))
        .collect())
}

fn section(values: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Sections {
    let given = values.into_iter();
    given
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

/// Bytes: a number, perhaps with a unit (powers of 1024), or -1.
fn size(text: Option<&str>) -> Result<Option<Value>> {
    let Some(text) = text else { return Ok(None) };
    if text == "-1" {
        return Ok(Some(json!(-1)));
    }
    let refuse = || Failure::Refused(format!("{text:?} is no size in bytes"));
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at(end);
    let exponent = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(refuse()),
    };
    let number: i64 = digits.parse().map_err(|_| refuse())?;
    let bytes = number.checked_mul(1024_i64.pow(exponent));
    bytes.map(|bytes| Some(json!(bytes))).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("2k", Some(2048)),
            ("1GiB", Some(1 << 30)),
            ("-1", Some(-1)),
            ("-2", None),
            ("1x", None),
            ("", None),
            ("k", None),
            ("9999999999t", None),
        ] {
            let got = size(Some(text)).ok().flatten();
            assert_eq!(got, expected.map(Value::from), "{text:?}");
        }
    }

    #[test]
    fn new_limits_lie_over_old_ones() {
        let before = json!({ "memory": { "limit": 1, "swap": 2 }, "pids": { "limit": 3 } });
        let wanted = json!({ "memory": { "limit": 9 }, "cpu": { "shares": 4 } });
        let (Value::Object(before), Value::Object(wanted)) = (before, wanted) else {
            panic!("no objects");
        };
        let expected = json!({
            "memory": { "limit": 9, "swap": 2 }, "pids": { "limit": 3 }, "cpu": { "shares": 4 }
        });
        assert_eq!(Value::Object(merge(&before, &wanted)), expected);
    }
}
