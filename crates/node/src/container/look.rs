//! Which pod and which mounts a look at the host's paths is about, so that the lane of such looks
//! has one at a time for each. The paths themselves are not touched here.

use std::path::{Path, PathBuf};

use crisp_model::{ContainerName, MountSource, Profile};
use crisp_tasks::Refused;

use crate::error::Error;
use crate::machine::effect::CreatePlan;

/// The names of the pod and of the mounts that the paths of a container lie on, as far as the paths
/// tell without being followed. The root file system has no server that could be gone.
pub(super) fn things(plan: &CreatePlan) -> Vec<String> {
    let table = crisp_sys::mountinfo::mounts().unwrap_or_default();
    let targets: Vec<PathBuf> = table.into_iter().map(|mount| mount.target).collect();
    let pod = format!("the paths of pod {}", plan.pod.id);
    let mut things = vec![pod];
    for path in paths(plan) {
        if let Some(mount) = mount_of(&path, &targets) {
            things.push(format!("the mount {}", mount.display()));
        }
    }
    things.sort();
    things.dedup();
    things
}

fn paths(plan: &CreatePlan) -> Vec<PathBuf> {
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
        Profile::Localhost(name) => Some(PathBuf::from(name)),
        _ => None,
    };
    let logs = plan.pod.config.log_directory.clone();
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
