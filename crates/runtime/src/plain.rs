//! A container's root, images and idmapped volumes for a runtime that knows specs as the OCI writes
//! them, and nothing of Crisp's: mounted before it is called, in a mount namespace that goes with its
//! caller.
//!
//! Each program would map the owners of volumes in its own way. Crisp maps them for all, as for its
//! own containers, and the program binds what has the right owners already.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crisp_model::{IMAGE_VIEW, MAPPED_WHERE_POSSIBLE};
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes};
use crisp_sys::rootfs::open_root;
use oci_spec::runtime::{Mount, Root, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Result};
use crate::id_map::IdMap;
use crate::image_view::ImageView;
use crate::mapped_root::joined_users;
use crate::mount_label::MountLabel;
use crate::options::Options;
use crate::rootfs::{Follows, Rootfs};

/// Mounts the root at a directory, and beside it the images that mounts show and the volumes whose
/// owners are mapped, and makes the spec name them there. The mount that the directory's parent lies
/// on has to be private, so that nothing appears elsewhere. The root of a user namespace that the spec
/// joins has to reach that parent, which everybody may enter then. Returns warnings: what could not be
/// met to the letter.
///
/// # Errors
/// The kernel's refusals, and options of an image that are wrong.
pub fn mount_plainly(spec: &mut Spec, rootfs: &Rootfs, at: &Path) -> Result<Vec<String>> {
    let place = at.parent().unwrap_or(at);
    mount_place(place)?;
    std::fs::create_dir(at).context(|| format!("make {}", at.display()))?;
    let users = joined_users(spec).map(Path::to_owned);
    let label = MountLabel::of(spec).to_owned();
    let label = MountLabel::from(label.as_deref());
    rootfs.make_ready()?;
    let mapped = match &users {
        Some(users) => rootfs.mount_mapped(users, label)?,
        None => None,
    };
    rootfs.mount_at((at, label), Follows::Nobody, mapped)?;
    let mut root = Root::default();
    root.set_path(at.to_owned());
    root.set_readonly(spec.root().as_ref().and_then(Root::readonly));
    spec.set_root(Some(root));
    let users = users.as_deref().map(open_users).transpose()?;
    let users = users.as_ref().map(AsFd::as_fd);
    let (mut mounts, mut warnings) = (spec.mounts().clone().unwrap_or_default(), Vec::new());
    for (number, mount) in mounts.iter_mut().enumerate() {
        if mount.typ().as_deref() == Some(IMAGE_VIEW) {
            show(
                mount,
                (label, users),
                &place.join(format!("image-{number}")),
            )?;
        } else {
            let at = place.join(format!("volume-{number}"));
            warnings.extend(bind_ahead(mount, spec, &at)?);
        }
    }
    if users.is_some() {
        leave_out_mounted(spec, &mounts);
    }
    let_mounts_in(spec, &mounts);
    spec.set_mounts(Some(mounts));
    Ok(warnings)
}

/// Lets mounts of the host come into the container where a mount is to follow them: some programs cut
/// off the host's mounts before they bind any, unless the spec says so of the root.
fn let_mounts_in(spec: &mut Spec, mounts: &[Mount]) {
    let follows = |mount: &Mount| {
        let mut words = mount.options().iter().flatten();
        words.any(|word| matches!(word.as_str(), "slave" | "rslave"))
    };
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    if linux.rootfs_propagation().is_none() && mounts.iter().any(follows) {
        linux.set_rootfs_propagation(Some("rslave".to_owned()));
    }
}

/// In a user namespace a device is a bind of the host's at the same path. A device that a mount shows
/// already, from another path, is left out of the list: the program would look for it in vain.
fn leave_out_mounted(spec: &mut Spec, mounts: &[Mount]) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let is_mounted = |path: &Path| mounts.iter().any(|mount| mount.destination() == path);
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|device| !is_mounted(device.path()));
    linux.set_devices(Some(devices));
}

fn open_users(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("open {}", path.display()))
}

/// Covers a directory with one that is empty and that everybody may enter.
fn mount_place(place: &Path) -> Result<()> {
    let step = || {
        format!(
            "mount a place for the root file system at {}",
            place.display()
        )
    };
    let tmpfs = FsContext::open("tmpfs").and_then(|context| {
        let context = context.set("mode", "0755")?;
        context.mount(MountAttributes::default().inert())
    });
    let tmpfs = tmpfs.context(step)?;
    let covered = open_root(place).context(step)?;
    mount::attach(tmpfs.as_fd(), covered.as_fd()).context(step)
}

/// Binds ahead, at `at`, what the program could not bind as it is to be: a volume whose owners are
/// mapped, and, in a user namespace, a mount without those that are in it, which the kernel takes
/// for a way to see what they hide. The value is a warning, as of [`IdMap::apply_to`].
fn bind_ahead(volume: &mut Mount, spec: &Spec, at: &Path) -> Result<Option<String>> {
    let words = volume.options().clone().unwrap_or_default();
    let options = Options::parse(&words)?;
    let Some(depth) = options.bind else {
        return Ok(None);
    };
    let id_map = IdMap::of(volume, &options, spec)?;
    let is_alone = depth == Depth::Single && joined_users(spec).is_some();
    if id_map.is_none() && !is_alone {
        return Ok(None);
    }
    let source = volume.source().clone().unwrap_or_default();
    let target = volume.destination();
    let step = || {
        let (from, at) = (source.display(), target.display());
        format!("open the source {from} of the mount at {at}")
    };
    let tree = mount::open_tree(&source, depth).context(step)?;
    let warning = match id_map {
        Some(id_map) => id_map.apply_to(tree.as_fd(), &source, target)?,
        None => None,
    };
    attach_at(&tree, at).context(|| format!("mount {} at {}", source.display(), at.display()))?;
    let is_of_owners =
        |word: &str| matches!(word, "idmap" | "ridmap") || word == MAPPED_WHERE_POSSIBLE;
    let plain = words.into_iter().filter(|word| !is_of_owners(word));
    volume.set_options(Some(plain.collect()));
    volume.set_source(Some(at.to_owned()));
    volume.set_uid_mappings(None).set_gid_mappings(None);
    Ok(warning)
}

/// Makes the mount of an image a bind of what is mounted at `at`.
fn show(
    image: &mut Mount,
    (label, users): (MountLabel<'_>, Option<BorrowedFd<'_>>),
    at: &Path,
) -> Result<()> {
    let words = image.options().clone().unwrap_or_default();
    let options = Options::parse(&words)?;
    let view = ImageView::of(image.destination(), &options)?;
    let step = || format!("mount an image at {}", at.display());
    let tree = match users {
        Some(users) => view.mapped_tree(users, label)?,
        None => {
            let whole = at.with_extension("whole");
            std::fs::create_dir(&whole).context(step)?;
            view.tree_by(&whole, label)?
        }
    };
    attach_at(&tree, at).context(step)?;
    let is_ours = |word: &String| {
        let key = word.split('=').next().unwrap_or_default();
        options.parameters.iter().any(|(known, _)| known == key)
    };
    let mut plain = vec!["bind".to_owned(), "rprivate".to_owned()];
    plain.extend(words.into_iter().filter(|word| !is_ours(word)));
    image.set_typ(Some("bind".to_owned()));
    image.set_source(Some(at.to_owned()));
    image.set_options(Some(plain));
    Ok(())
}

/// Mounts a directory, or a file, at a path where nothing is yet.
fn attach_at(tree: &OwnedFd, at: &Path) -> std::io::Result<()> {
    make_place_like(tree, at)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(at, flags, Mode::empty())?;
    mount::attach(tree.as_fd(), place.as_fd())
}

fn make_place_like(tree: &OwnedFd, at: &Path) -> std::io::Result<()> {
    let mode = rustix::fs::fstat(tree)?.st_mode;
    match FileType::from_raw_mode(mode) {
        FileType::Directory => std::fs::create_dir(at),
        _ => File::create_new(at).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use crisp_sys::fork::{CloneFlags, unshare};
    use crisp_sys::mount::Propagation;

    use super::*;

    #[test]
    fn the_root_follows_the_host_where_a_mount_does() {
        for (option, said, told) in [
            ("rprivate", None, None),
            ("rslave", None, Some("rslave")),
            ("rslave", Some("rshared"), Some("rshared")),
        ] {
            let mut linux = oci_spec::runtime::Linux::default();
            linux.set_rootfs_propagation(said.map(str::to_owned));
            let mut spec = Spec::default();
            spec.set_linux(Some(linux));
            let mut mount = Mount::default();
            mount.set_options(Some(vec![option.to_owned()]));
            let_mounts_in(&mut spec, &[mount]);
            let linux = spec.linux().as_ref().unwrap();
            assert_eq!(linux.rootfs_propagation().as_deref(), told, "{option}");
        }
    }

    /// In a mount namespace of its own, which its thread takes with it.
    #[test]
    fn privileged_a_file_is_mounted_as_a_directory_is() {
        let looks = || {
            unshare(CloneFlags::NEWNS).unwrap();
            mount::set_propagation(Path::new("/"), Propagation::Private, Depth::Recursive).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            std::fs::create_dir(at("shown")).unwrap();
            crisp_sys::file::write_atomic(&at("shown/file"), b"text", 0o600).unwrap();
            for (source, place, read) in [
                ("shown", "as-dir", "as-dir/file"),
                ("shown/file", "as-file", "as-file"),
            ] {
                let tree = mount::open_tree(&at(source), Depth::Single).unwrap();
                attach_at(&tree, &at(place)).unwrap();
                assert_eq!(std::fs::read(at(read)).unwrap(), b"text", "{source}");
                mount::unmount(&at(place)).unwrap();
            }
        };
        std::thread::spawn(looks).join().unwrap();
    }
}
