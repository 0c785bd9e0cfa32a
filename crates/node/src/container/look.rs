//! Finds which pod and which mounts a look at the host's paths is about, so that the lane of such
//! looks has one at a time for each. No file system is waited for here: the kernel is asked which
//! mount it knows a path to lie on.

use std::io;
use std::path::{Path, PathBuf};

use crisp_model::{ContainerName, MountSource, Profile};
use crisp_sys::mount_at::{self, MountId};
use crisp_tasks::Refused;

use crate::error::Error;
use crate::machine::effect::CreatePlan;
use crate::shared::Shared;

/// The answer to callers of a creation that nobody wants any more.
pub(super) fn unwanted(container: &ContainerName) -> Error {
    Error::Unavailable(format!("container {container} is no longer wanted"))
}

/// The names of the pod and of the mounts that the paths of a container lie on. Mounts that wait
/// for no server are not among them: the root file system, the engine's own root, the kernel's
/// memory.
pub(super) async fn things(shared: &Shared, plan: &CreatePlan) -> Vec<String> {
    let paths = paths(shared, plan);
    let mounts = match asked(&paths, &shared.config.root) {
        Ok(mounts) => mounts,
        // A kernel before 6.8; or a mount that has just gone, which the table tells as well.
        Err(_) => crisp_tasks::blocking(move || listed(&paths))
            .await
            .unwrap_or_default(),
    };
    let named = |mount: &PathBuf| format!("the mount {}", mount.display());
    let mut things: Vec<String> = mounts.iter().map(named).collect();
    things.push(format!("the paths of pod {}", plan.pod.id));
    things.sort();
    things.dedup();
    things
}

/// The mounts of paths, as the kernel tells them.
fn asked(paths: &[PathBuf], ours: &Path) -> io::Result<Vec<PathBuf>> {
    let known = [mount_at::of(Path::new("/"))?, mount_at::of(ours)?];
    let each = paths.iter().filter(|path| path.is_absolute());
    let mut ids: Vec<MountId> = each
        .map(|path| mount_at::of(path))
        .collect::<io::Result<_>>()?;
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| !known.contains(id));
    let mounts: Vec<mount_at::Mount> = ids
        .into_iter()
        .map(mount_at::describe)
        .collect::<io::Result<_>>()?;
    let strange = mounts.into_iter().filter(|mount| !mount.is_in_memory);
    Ok(strange.map(|mount| mount.point).collect())
}

/// The mounts of paths by the whole mount table, as far as the paths tell without being followed.
fn listed(paths: &[PathBuf]) -> Vec<PathBuf> {
    let table = crisp_sys::mountinfo::mounts().unwrap_or_default();
    let targets: Vec<PathBuf> = table.into_iter().map(|mount| mount.target).collect();
    let mounts = paths.iter().filter_map(|path| mount_of(path, &targets));
    mounts.map(Path::to_owned).collect()
}

fn paths(shared: &Shared, plan: &CreatePlan) -> Vec<PathBuf> {
    let config = &plan.record.config;
    let volumes = config
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Host(path) => Some(path.clone()),
            _ => None,
        });
    let devices = config.devices.iter().map(|device| device.host_path.clone());
    let profile = match &config.security.seccomp {
        Profile::Localhost(name) => Some(shared.config.seccomp_dir.join(name)),
        _ => None,
    };
    let is_named = super::cdi::asked(config).is_ok_and(|names| !names.is_empty());
    let specs = is_named.then(|| shared.cdi.dirs().to_vec());
    let specs = specs.into_iter().flatten();
    let logs = plan.pod.config.log_directory.clone();
    let devices = devices.chain(specs);
    volumes.chain(devices).chain(profile).chain(logs).collect()
}

/// The longest mount point that a path begins with, but for the root.
fn mount_of<'a>(path: &Path, targets: &'a [PathBuf]) -> Option<&'a Path> {
    let around = targets.iter().filter(|target| path.starts_with(target));
    let longest = around.max_by_key(|target| target.as_os_str().len())?;
    (longest.as_os_str() != "/").then_some(longest.as_path())
}

/// The caller's error when nothing was looked at.
pub(super) fn refused(container: &ContainerName, refused: &Refused) -> Error {
    match refused {
        Refused::Failed(failed) => Error::fault(failed),
        Refused::Stuck { .. } | Refused::Full { .. } => Error::Unavailable(format!(
            "container {container}: {refused}; does the server of that file system answer?"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_without_a_server_are_no_things() {
        let ours = std::env::temp_dir();
        let paths = ["/proc/sys", "/etc/never/seen", "relative"].map(PathBuf::from);
        // A kernel before 6.8 does not tell.
        if let Ok(mounts) = asked(&paths, &ours) {
            assert_eq!(mounts, <[PathBuf; 0]>::default());
        }
    }

    #[test]
    fn a_path_lies_on_its_longest_mount() {
        let targets = ["/", "/var", "/var/nfs"].map(PathBuf::from);
        for (path, mount) in [
            ("/var/nfs/a", Some("/var/nfs")),
            ("/var/nfsx", Some("/var")),
            ("/etc", None),
            ("relative", None),
        ] {
            let found = mount_of(Path::new(path), &targets);
            assert_eq!(found, mount.map(Path::new), "{path}");
        }
    }
}
