//! Sources of a container's mounts: host paths as they are now, and the image's volumes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crisp_image::ImageInfo;
use crisp_model::container::Access;
use crisp_model::path::clean_from_root;
use crisp_model::{Field, IdMap, Mount, MountSource, Propagation, Volume};
use crisp_spec::ResolvedMount;
use crisp_sys::file;
use crisp_sys::mountinfo::{self, MountInfo};
use tokio::sync::Notify;

use super::look;
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
    let refuse = |why: String| Err(Error::invalid(Field::MountSource, why));
    let source = match found_or_made(path) {
        Ok(source) => source,
        Err(why) => return refuse(why),
    };
    if let Some(why) = spreads_in_vain(mount.propagation, &source, table) {
        return refuse(why);
    }
    Ok(Some(ResolvedMount {
        root_of_procfs: is_root_of_procfs(&source),
        destination: mount.container_path.clone(),
        source,
        propagation: mount.propagation,
        access: mount.access,
        options: mount.options.clone(),
        id_map: mount.id_map.clone(),
    }))
}

/// Where the path leads now: symbolic links of the node may point anywhere on it. A missing path is
/// made as a directory: the CRI's words want an error, but charts rely on the directory that
/// containerd and CRI-O make for a `hostPath` without a type. A symbolic link to nothing is refused,
/// because nobody said that its target is to be a directory.
fn found_or_made(path: &Path) -> std::result::Result<PathBuf, String> {
    let found = path.canonicalize().or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        file::make_public_dirs(path)?;
        path.canonicalize()
    });
    found.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "{} is, or lies below, a symbolic link to nothing: make the link's target first",
            path.display()
        ),
        _ => format!("cannot find {} or make it: {error}", path.display()),
    })
}

fn is_root_of_procfs(source: &Path) -> bool {
    // The kernel numbers the root of each procfs so (PROC_ROOT_INO).
    const ROOT: u64 = 1;
    let procfs =
        rustix::fs::statfs(source).is_ok_and(|fs| fs.f_type == rustix::fs::PROC_SUPER_MAGIC);
    procfs && source.metadata().is_ok_and(|root| root.ino() == ROOT)
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

/// Makes the image's volumes that no mount of the request covers, with the image's content. They
/// may be large: when nobody wants the container any more, the copy that is under way ends.
pub(crate) async fn make_volumes(
    shared: &Arc<Shared>,
    plan: &CreatePlan,
    (image, cancel): (&ImageInfo, &Notify),
) -> Result<Vec<Volume>> {
    let unwanted = Arc::new(AtomicBool::new(false));
    let copies = copy_volumes(shared, plan, (image, &unwanted));
    match end_if(cancel, &unwanted, copies).await {
        Some(made) => made,
        None => Err(look::unwanted(&plan.record.config.name)),
    }
}

/// The outcome of copies that end soon after `unwanted` is set; `None` when it was. Their remains
/// can be removed only once they write no more, so that their end is waited for either way.
async fn end_if<T>(
    cancel: &Notify,
    unwanted: &AtomicBool,
    copies: impl Future<Output = T>,
) -> Option<T> {
    let mut copies = std::pin::pin!(copies);
    tokio::select! {
        made = &mut copies => Some(made),
        () = cancel.notified() => {
            unwanted.store(true, Ordering::Relaxed);
            copies.await;
            None
        }
    }
}

async fn copy_volumes(
    shared: &Arc<Shared>,
    plan: &CreatePlan,
    (image, unwanted): (&ImageInfo, &Arc<AtomicBool>),
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
            .volume_content(image, &text, (&source, unwanted))
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
            .any(|mount| clean_from_root(&mount.container_path) == path)
    };
    let mut paths: Vec<PathBuf> = image
        .config
        .volumes
        .iter()
        .map(|path| clean_from_root(Path::new(path)))
        .filter(|path| path != Path::new("/") && !covered(path))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// A volume as the spec wants it.
pub(crate) fn of_volume(volume: &Volume, users: Option<&IdMap>) -> ResolvedMount {
    ResolvedMount {
        destination: volume.container_path.clone(),
        source: volume.source.clone(),
        root_of_procfs: false,
        propagation: Propagation::Private,
        access: Access::ReadWrite,
        options: Vec::new(),
        // The image's files have the image's owners.
        id_map: users.cloned(),
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
    fn host_paths_are_found_or_made() {
        let dir = std::env::temp_dir().join(format!("crisp-host-path-{}", std::process::id()));
        file::make_private_dirs(&dir).unwrap();
        for (link, target) in [("link", "real/x"), ("dangling", "nothing")] {
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }
        file::write_atomic(&dir.join("file"), b"", 0o600).unwrap();
        let refused = |name: &str| found_or_made(&dir.join(name)).unwrap_err();
        for dangling in ["link", "dangling", "dangling/below"] {
            let why = refused(dangling);
            assert!(why.contains("symbolic link to nothing"), "{why}");
        }
        assert!(refused("file/below").contains("cannot find"));
        for (asked, shown) in [
            ("new/dir", "new/dir"),
            ("real/x", "real/x"),
            ("link", "real/x"),
            ("file", "file"),
        ] {
            let found = found_or_made(&dir.join(asked)).unwrap();
            assert_eq!(found, dir.canonicalize().unwrap().join(shown), "{asked}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn copies_that_nobody_wants_are_ended_and_waited_for() {
        let (cancel, unwanted) = (Notify::new(), AtomicBool::new(false));
        assert_eq!(end_if(&cancel, &unwanted, async { 7 }).await, Some(7));
        let ended = AtomicBool::new(false);
        let copy = async {
            while !unwanted.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            ended.store(true, Ordering::Relaxed);
        };
        cancel.notify_one();
        assert_eq!(end_if(&cancel, &unwanted, copy).await, None);
        assert!(ended.load(Ordering::Relaxed), "nothing writes any more");
    }

    #[test]
    fn only_the_root_of_a_procfs_is_one() {
        assert!(is_root_of_procfs(Path::new("/proc")));
        for other in ["/", "/proc/self", "/proc/sys", "/sys"] {
            assert!(!is_root_of_procfs(Path::new(other)), "{other}");
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
