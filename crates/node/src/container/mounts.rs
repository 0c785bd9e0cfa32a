//! Sources of a container's mounts: host paths as they are now, and the image's volumes.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crisp_image::ImageInfo;
use crisp_model::container::Access;
use crisp_model::{Mount, MountSource, Propagation, Volume};
use crisp_spec::ResolvedMount;
use crisp_sys::file;
use crisp_sys::mountinfo::{self, MountInfo};

use crate::blocking::blocking;
use crate::error::{Context, Error, Result};
use crate::machine::effect::CreatePlan;
use crate::shared::Shared;

/// Finds the source of every mount from the host. Blocks.
pub(crate) fn resolve(asked: &[Mount]) -> Result<Vec<ResolvedMount>> {
    let spreads = |mount: &Mount| mount.propagation != Propagation::Private;
    let table = if asked.iter().any(spreads) {
        mountinfo::mounts().context(|| "read the mount table")?
    } else {
        Vec::new()
    };
    let each = asked.iter().map(|mount| resolve_one(mount, &table));
    each.filter_map(Result::transpose).collect()
}

/// `None` for what does not come from the host.
fn resolve_one(mount: &Mount, table: &[MountInfo]) -> Result<Option<ResolvedMount>> {
    let MountSource::Host(path) = &mount.source else {
        return Ok(None);
    };
    let refuse = |why: String| Err(Error::invalid("mounts.host_path", why));
    // Symbolic links of the node may point anywhere on it; the mount shows where they lead now.
    let source = match path.canonicalize() {
        Ok(source) => source,
        Err(error) => return refuse(format!("cannot find {}: {error}", path.display())),
    };
    if let Some(why) = spreads_in_vain(mount.propagation, &source, table) {
        return refuse(why);
    }
    Ok(Some(ResolvedMount {
        destination: mount.container_path.clone(),
        source,
        propagation: mount.propagation,
        access: mount.access,
        options: mount.options.clone(),
    }))
}

/// Why mounts could not spread as asked (mount_namespaces(7)): the mount that the source lies on
/// must be shared, or for one direction at least a slave.
fn spreads_in_vain(propagation: Propagation, source: &Path, table: &[MountInfo]) -> Option<String> {
    let needed: &[&str] = match propagation {
        Propagation::Private => return None,
        Propagation::HostToContainer => &["shared:", "master:"],
        Propagation::Bidirectional => &["shared:"],
    };
    let under = table
        .iter()
        .filter(|mount| source.starts_with(&mount.target));
    // Of those mounted at one place the last one is seen.
    let mount = under.max_by_key(|mount| mount.target.components().count())?;
    let has = |prefix: &&str| {
        mount
            .propagation
            .iter()
            .any(|field| field.starts_with(*prefix))
    };
    if needed.iter().any(has) {
        return None;
    }
    let word = if needed.len() == 1 {
        "shared"
    } else {
        "shared or slave"
    };
    Some(format!(
        "{} lies on the mount {}, which is not {word}",
        source.display(),
        mount.target.display()
    ))
}

/// Makes the image's volumes that no mount of the request covers, with the image's content.
pub(crate) async fn make_volumes(
    shared: &Arc<Shared>,
    plan: &CreatePlan,
    image: &ImageInfo,
) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    let dir = shared.paths.volumes(&plan.pod.id, &plan.record.id);
    for (number, path) in wanted_volumes(plan, image).into_iter().enumerate() {
        let source = dir.join(number.to_string());
        let what = format!("make the image's volume {}", path.display());
        let (place, step) = (source.clone(), what.clone());
        blocking(move || file::make_private_dirs(&place).context(|| step)).await?;
        let text = path.to_string_lossy();
        let copied = shared
            .config
            .images
            .volume_content(image, &text, &source)
            .await;
        copied.context(|| what)?;
        volumes.push(Volume {
            container_path: path,
            source,
        });
    }
    Ok(volumes)
}

fn wanted_volumes(plan: &CreatePlan, image: &ImageInfo) -> Vec<PathBuf> {
    let asked = &plan.record.config.mounts;
    let covered = |path: &Path| {
        asked
            .iter()
            .any(|mount| clean(&mount.container_path) == path)
    };
    let mut paths: Vec<PathBuf> = image
        .config
        .volumes
        .iter()
        .map(|path| clean(Path::new(path)))
        .filter(|path| path != Path::new("/") && !covered(path))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The path without `.` and `..`, as seen from `/`: an image's words do not lead out of it.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// A volume as the spec wants it.
pub(crate) fn of_volume(volume: &Volume) -> ResolvedMount {
    ResolvedMount {
        destination: volume.container_path.clone(),
        source: volume.source.clone(),
        propagation: Propagation::Private,
        access: Access::ReadWrite,
        options: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, propagation: &[&str]) -> MountInfo {
        MountInfo {
            id: 1,
            root: "/".into(),
            target: target.into(),
            options: String::new(),
            propagation: propagation.iter().map(|p| (*p).to_owned()).collect(),
            kind: "ext4".into(),
            super_options: String::new(),
        }
    }

    #[test]
    fn volumes_stay_inside_of_the_container() {
        let cases = [
            ("/../../../etc", "/etc"),
            ("data/./x", "/data/x"),
            ("/a/../../b/", "/b"),
            ("..", "/"),
        ];
        for (written, want) in cases {
            assert_eq!(clean(Path::new(written)), Path::new(want), "{written}");
        }
    }

    #[test]
    fn propagation_needs_a_mount_that_spreads() {
        let table = [
            mount("/", &["shared:1"]),
            mount("/data", &[]),
            mount("/data/slave", &["master:1"]),
        ];
        let vain = |propagation, path| spreads_in_vain(propagation, Path::new(path), &table);
        use Propagation::{Bidirectional, HostToContainer, Private};
        assert_eq!(vain(Private, "/data/x"), None);
        assert_eq!(vain(Bidirectional, "/srv"), None);
        assert_eq!(vain(HostToContainer, "/data/slave/x"), None);
        for (propagation, path) in [
            (HostToContainer, "/data/x"),
            (Bidirectional, "/data/x"),
            (Bidirectional, "/data/slave"),
        ] {
            assert!(vain(propagation, path).is_some(), "{propagation:?} {path}");
        }
    }
}
