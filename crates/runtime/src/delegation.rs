//! Delegation of a container's cgroup (version 2): where a container with a user namespace sees its
//! own cgroup writable, that cgroup belongs to its user, who may make others below it, as systemd in
//! a container does. Its limits stay the host's: the kernel lists the files that can be given away.

use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use crisp_sys::cgroup::Cgroup;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};

use crate::error::{Context, Result};
use crate::id_map::user_on_host;

/// The kernel's list, one name a line.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// The files that can be given away where the kernel has no list (before Linux 4.15).
const ALWAYS: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// Gives the cgroup to the user of the container's process, if it is the container's to use.
pub(crate) fn delegate(cgroup: &Cgroup, spec: &Spec) -> Result<()> {
    let (true, Some(dir)) = (cgroup.layout().is_v2(), cgroup.unified_dir()) else {
        return Ok(());
    };
    let Some(owner) = owner(spec) else {
        return Ok(());
    };
    let list = std::fs::read_to_string(LIST);
    let list = list.unwrap_or_else(|_| ALWAYS.to_owned());
    give(&dir, &list, owner).context(|| format!("give {} to user {owner}", dir.display()))
}

fn give(dir: &Path, list: &str, owner: u32) -> io::Result<()> {
    chown(dir, Some(owner), None)?;
    list.lines().try_for_each(|file| {
        // The kernel lists files of controllers that this cgroup may not have.
        match chown(dir.join(file), Some(owner), None) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// The host's id of the container's user, where the cgroup is to be that user's.
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let named = |kind| {
        let mut namespaces = linux.namespaces().iter().flatten();
        namespaces.find(move |namespace| namespace.typ() == kind)
    };
    let is_new = |namespace: &LinuxNamespace| namespace.path().is_none();
    let has_users = named(LinuxNamespaceType::User).is_some();
    let is_its_own = has_users && named(LinuxNamespaceType::Cgroup).is_some_and(is_new);
    let mut mounts = spec.mounts().iter().flatten();
    if !is_its_own || !mounts.any(shows_writable) {
        return None;
    }
    user_on_host(spec, spec.process().as_ref()?.user().uid())
}

fn shows_writable(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref();
    let mut options = mount.options().iter().flatten();
    let last = options.rfind(|option| matches!(option.as_str(), "ro" | "rw"));
    matches!(kind, Some("cgroup" | "cgroup2"))
        && mount.destination() == Path::new("/sys/fs/cgroup")
        && last.is_none_or(|option| option == "rw")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::os::unix::fs::MetadataExt as _;

    fn spec(change: impl Fn(&mut Value)) -> Spec {
        let mut spec = json!({
            "ociVersion": "1.0.0",
            "process": { "cwd": "/", "user": { "uid": 7, "gid": 0 } },
            "mounts": [{ "destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid"] }],
            "linux": {
                "namespaces": [{ "type": "user" }, { "type": "cgroup" }],
                "uidMappings": [
                    { "containerID": 0, "hostID": 1000, "size": 1 },
                    { "containerID": 1, "hostID": 100_000, "size": 65536 }
                ]
            }
        });
        change(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_cgroup_is_given_away_only_where_it_can_be_used() {
        assert_eq!(owner(&spec(|_| {})), Some(100_006));
        let root = |spec: &mut Value| spec["process"]["user"]["uid"] = json!(0);
        assert_eq!(owner(&spec(root)), Some(1000));
        let options =
            |options: Value| move |spec: &mut Value| spec["mounts"][0]["options"] = options.clone();
        assert_eq!(owner(&spec(options(json!(["ro", "rw"])))), Some(100_006));
        let changes: [&dyn Fn(&mut Value); 6] = [
            &options(json!(["rw", "ro"])),
            &|spec| spec["mounts"] = json!([]),
            &|spec| spec["linux"]["namespaces"] = json!([{ "type": "cgroup" }]),
            &|spec| spec["linux"]["namespaces"] = json!([{ "type": "user" }]),
            &|spec| spec["linux"]["namespaces"][1]["path"] = json!("/proc/1/ns/cgroup"),
            &|spec| spec["process"]["user"]["uid"] = json!(65_537),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(owner(&spec(change)), None, "change {number}");
        }
    }

    #[test]
    fn privileged_files_that_are_missing_are_passed_over_and_limits_stay() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["cgroup.procs", "memory.max"] {
            std::fs::File::create(dir.path().join(file)).unwrap();
        }
        give(dir.path(), ALWAYS, 100_006).unwrap();
        let owner = |name: &str| dir.path().join(name).metadata().unwrap().uid();
        assert_eq!([owner(""), owner("cgroup.procs")], [100_006; 2]);
        assert_eq!(owner("memory.max"), 0);
    }
}
