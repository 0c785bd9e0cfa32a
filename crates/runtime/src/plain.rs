//! A container's root and images for a runtime that knows specs as the OCI writes them, and nothing
//! of Crisp's: mounted before it is called, in a mount namespace that goes with its caller.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crisp_model::IMAGE_VIEW;
use crisp_sys::mount::{self, FsContext, MountAttributes};
use crisp_sys::rootfs::open_root;
use oci_spec::runtime::{Mount, Root, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Result};
use crate::image_view::ImageView;
use crate::mount_label::MountLabel;
use crate::options::Options;
use crate::rootfs::{Follows, Rootfs};

/// Mounts the root at a directory and the images that mounts show beside it, and makes the spec name
/// them there. The mount that the directory's parent lies on has to be private, so that nothing appears
/// elsewhere.
///
/// # Errors
/// The kernel's refusals, and options of an image that are wrong.
pub fn mount_plainly(spec: &mut Spec, rootfs: &Rootfs, at: &Path) -> Result<()> {
    let place = at.parent().unwrap_or(at);
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
    mount::attach(tmpfs.as_fd(), covered.as_fd()).context(step)?;
    std::fs::create_dir(at).context(step)?;
    rootfs.make_ready()?;
    let label = MountLabel::of(spec).to_owned();
    let label = MountLabel::from(label.as_deref());
    rootfs.mount_at((at, label), Follows::Nobody, None)?;
    let mut root = Root::default();
    root.set_path(at.to_owned());
    root.set_readonly(spec.root().as_ref().and_then(Root::readonly));
    spec.set_root(Some(root));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (number, image) in mounts.iter_mut().enumerate() {
        if image.typ().as_deref() == Some(IMAGE_VIEW) {
            show(image, label, &place.join(format!("image-{number}")))?;
        }
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Makes the mount of an image a bind of what is mounted at `at`.
fn show(image: &mut Mount, label: MountLabel<'_>, at: &Path) -> Result<()> {
    let words = image.options().clone().unwrap_or_default();
    let options = Options::parse(&words)?;
    let view = ImageView::of(image.destination(), &options)?;
    let step = || format!("mount an image at {}", at.display());
    let whole = at.with_extension("whole");
    std::fs::create_dir(&whole).context(step)?;
    let tree = view.tree_by(&whole, label)?;
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
    use crisp_sys::mount::{Depth, Propagation};

    use super::*;

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
