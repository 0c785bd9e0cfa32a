//! Makes edits in an OCI runtime spec. Device nodes are left to the caller, who looks at the host's
//! and knows which cgroup rules they need.

use std::collections::BTreeSet;

use oci_spec::runtime::{Hook as OciHook, Hooks, Mount as OciMount, Spec};

use crate::document::{Edits, Hook, Mount};
use crate::{Error, Result};

/// Adds environment, mounts, hooks and groups. A mount replaces one at the same place, and mounts
/// are put in order of their depth, so that none hides another.
///
/// # Errors
/// When an edit is one that Crisp does not make; the spec is as it was then.
pub fn apply(edits: &Edits, spec: &mut Spec) -> Result<()> {
    refuse(edits)?;
    if let Some(process) = spec.process_mut() {
        let env = process.env().clone().unwrap_or_default();
        let name = |variable: &String| variable.split('=').next().map(str::to_owned);
        process.set_env(Some(with_last(env, edits.env.clone(), name)));
        let mut user = process.user().clone();
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        let mut known: BTreeSet<u32> = groups.iter().copied().collect();
        let more = edits.additional_gids.iter().copied();
        groups.extend(more.filter(|group| *group != 0 && known.insert(*group)));
        user.set_additional_gids(Some(groups));
        process.set_user(user);
    }
    if !edits.mounts.is_empty() {
        let mounts = spec.mounts().clone().unwrap_or_default();
        let added = edits.mounts.iter().map(mounted).collect();
        let mut mounts = with_last(mounts, added, |mount| mount.destination().clone());
        mounts.sort_by_key(|mount| mount.destination().components().count());
        spec.set_mounts(Some(mounts));
    }
    if !edits.hooks.is_empty() {
        let mut hooks = spec.hooks().clone().unwrap_or_default();
        edits.hooks.iter().for_each(|hook| add(&mut hooks, hook));
        spec.set_hooks(Some(hooks));
    }
    Ok(())
}

/// Adds items, each of which replaces all earlier ones with its key. One look at each: a file may
/// have as many as its size allows.
fn with_last<T, K: Ord>(known: Vec<T>, added: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let keys: BTreeSet<K> = added.iter().map(&key).collect();
    let mut all = known;
    all.retain(|item| !keys.contains(&key(item)));
    let mut seen = BTreeSet::new();
    let mut last: Vec<T> = added
        .into_iter()
        .rev()
        .filter(|item| seen.insert(key(item)))
        .collect();
    last.reverse();
    all.append(&mut last);
    all
}

fn refuse(edits: &Edits) -> Result<()> {
    let cannot = |edit: &str, why: &str| {
        let (edit, why) = (edit.to_owned(), why.to_owned());
        Err(Error::Edit { edit, why })
    };
    if !edits.net_devices.is_empty() {
        return cannot(
            "netDevices",
            "Crisp moves no network interfaces into containers",
        );
    }
    if edits.intel_rdt.is_some() {
        return cannot("intelRdt", "classes of resctrl are not set for devices");
    }
    for mount in &edits.mounts {
        let spreads = |option: &&String| matches!(option.as_str(), "shared" | "rshared");
        if let Some(option) = mount.options.iter().find(spreads) {
            let edit = format!("the mount at {}", mount.container_path.display());
            let why = format!("option {option:?}: mounts in it would go out to the host");
            return Err(Error::Edit { edit, why });
        }
    }
    Ok(())
}

fn mounted(mount: &Mount) -> OciMount {
    let mut made = OciMount::default();
    made.set_destination(mount.container_path.clone());
    made.set_source(Some(mount.host_path.clone()));
    let kind = mount.r#type.clone().filter(|kind| !kind.is_empty());
    made.set_typ(kind);
    made.set_options(Some(mount.options.clone()));
    made
}

fn add(hooks: &mut Hooks, hook: &Hook) {
    let mut made = OciHook::default();
    made.set_path(hook.path.clone());
    made.set_args(Some(hook.args.clone()).filter(|args| !args.is_empty()));
    made.set_env(Some(hook.env.clone()).filter(|env| !env.is_empty()));
    made.set_timeout(hook.timeout);
    let list = match hook.hook_name.as_str() {
        "prestart" => hooks.prestart_mut(),
        "createRuntime" => hooks.create_runtime_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        // No other name passes the check of a file.
        _ => hooks.poststop_mut(),
    };
    list.get_or_insert_default().push(made);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(json: &str) -> Edits {
        serde_json::from_str(json).unwrap()
    }

    fn spec() -> Spec {
        serde_json::from_str(
            r#"{
                "ociVersion": "1.0.2",
                "root": {"path": "rootfs"},
                "process": {
                    "cwd": "/", "env": ["A=1", "B=2"],
                    "user": {"uid": 0, "gid": 0, "additionalGids": [5]}
                },
                "mounts": [
                    {"destination": "/a/b", "type": "tmpfs", "source": "tmpfs"},
                    {"destination": "/x", "type": "bind", "source": "/old"}
                ]
            }"#,
        )
        .unwrap()
    }

    #[test]
    fn everything_is_added_and_the_last_word_counts() {
        let edits = edits(
            r#"{
                "env": ["A=3", "C=4"],
                "mounts": [
                    {"hostPath": "/new", "containerPath": "/x", "options": ["ro", "bind"]},
                    {"hostPath": "/h", "containerPath": "/a", "type": "none", "options": ["rbind"]}
                ],
                "hooks": [
                    {"hookName": "createContainer", "path": "/bin/h", "args": ["h", "1"]},
                    {"hookName": "createContainer", "path": "/bin/i", "timeout": 3},
                    {"hookName": "poststop", "path": "/bin/j", "env": ["E=f"]}
                ],
                "additionalGids": [0, 5, 6]
            }"#,
        );
        let mut spec = spec();
        apply(&edits, &mut spec).unwrap();
        let process = spec.process().clone().unwrap();
        assert_eq!(process.env().clone().unwrap(), ["B=2", "A=3", "C=4"]);
        assert_eq!(process.user().additional_gids().clone().unwrap(), [5, 6]);
        let mounts = spec.mounts().clone().unwrap();
        let shown: Vec<String> = mounts
            .iter()
            .map(|m| format!("{} {:?}", m.destination().display(), m.source()))
            .collect();
        let of = |path: &str, source: &str| format!("{path} {:?}", Some(source));
        assert_eq!(
            shown,
            [of("/x", "/new"), of("/a", "/h"), of("/a/b", "tmpfs")]
        );
        assert_eq!(*mounts[0].typ(), None);
        let hooks = spec.hooks().clone().unwrap();
        let created = hooks.create_container().clone().unwrap();
        assert_eq!(created[0].args().clone().unwrap(), ["h", "1"]);
        assert_eq!((created.len(), created[1].timeout()), (2, Some(3)));
        assert_eq!(hooks.poststop().clone().unwrap().len(), 1);
        assert_eq!(*hooks.prestart(), None);
    }

    /// A file of 1 MiB can have as many: compared each with each, they would take minutes.
    #[test]
    fn many_edits_take_no_longer_than_their_number() {
        let many = 60_000;
        let edits = Edits {
            env: (0..many).map(|n| format!("V{n}=")).collect(),
            additional_gids: (1..=many).collect(),
            ..Edits::default()
        };
        let begun = std::time::Instant::now();
        let mut spec = spec();
        apply(&edits, &mut spec).unwrap();
        let took = begun.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
        let process = spec.process().clone().unwrap();
        assert_eq!(process.env().clone().unwrap().len(), 60_002);
        let groups = process.user().additional_gids().clone().unwrap();
        assert_eq!(groups.len(), 60_000);
    }

    #[test]
    fn an_edit_that_is_not_made_is_refused_by_name_and_changes_nothing() {
        for (json, told) in [
            (
                r#"{"env": ["A=9"], "netDevices": [{"hostInterfaceName": "e"}]}"#,
                "netDevices",
            ),
            (
                r#"{"env": ["A=9"], "intelRdt": {"closID": "x"}}"#,
                "intelRdt",
            ),
            (
                r#"{"mounts": [{"hostPath": "/h", "containerPath": "/c", "options": ["rshared"]}]}"#,
                "rshared",
            ),
        ] {
            let mut changed = spec();
            let error = apply(&edits(json), &mut changed).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert_eq!(changed, spec());
        }
    }
}
