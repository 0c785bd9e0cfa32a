//! An image that is shown at a path of the container: its layers as an overlay that nobody can write
//! to, or the directory or file at a path in it. It exists in the container's mount namespace alone.
//! In a user namespace its files have the owners there that they have in the image.
//!
//! In a spec it is a mount of a type of Crisp's own (`crisp_model::IMAGE_VIEW`): overlayfs has no
//! option for a path in it, and before Linux 6.8 none that many layers fit into.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth};
use crisp_sys::rootfs::{locate, open_root};
use rustix::fs::FileType;

use crate::error::{Context, Error, Result};
use crate::mapped_root::mount_part;
use crate::mount_label::MountLabel;
use crate::options::Options;
use crate::overlay::Overlay;

/// Layers, topmost first, and the path in the image that is shown. The options `lower=DIRECTORY` and
/// `sub_path=PATH` name them.
#[derive(Debug)]
pub(crate) struct ImageView {
    target: PathBuf,
    lower: Vec<PathBuf>,
    sub_path: PathBuf,
}

impl ImageView {
    /// From the parameters of a mount, all of which have to be known.
    pub(crate) fn of(target: &Path, options: &Options) -> Result<Self> {
        let refuse = |why: String| {
            let why = format!("the image at {}: {why}", target.display());
            Err(Error::invalid("mounts.options", why))
        };
        let mut view = Self {
            target: target.to_owned(),
            lower: Vec::new(),
            sub_path: PathBuf::new(),
        };
        for (key, value) in &options.parameters {
            match (key.as_str(), value) {
                ("lower", Some(path)) if Path::new(path).is_absolute() => {
                    view.lower.push(path.into());
                }
                ("sub_path", Some(path)) => view.sub_path = path.into(),
                _ => return refuse(format!("{key:?} is no option of it, or has a wrong value")),
            }
        }
        if view.lower.len() < 2 {
            return refuse("overlayfs needs two lower directories".to_owned());
        }
        Ok(view)
    }

    /// In the child, whose mount namespace is cut off from the host's: a detached tree of a
    /// directory or a file. The overlay is attached for a moment, since before Linux 6.15 only what
    /// is attached can be cloned from, at the place of its topmost layer, which it shows anyway.
    pub(crate) fn tree(&self, label: MountLabel<'_>) -> Result<OwnedFd> {
        self.tree_by(&self.lower[0], label)
    }

    /// The same by another place, whose mount has to be private.
    pub(crate) fn tree_by(&self, place: &Path, label: MountLabel<'_>) -> Result<OwnedFd> {
        let target = self.target.display();
        let overlay = Overlay {
            lower: &self.lower,
            writable: None,
            label,
        };
        let whole = overlay
            .mount_at(place)
            .context(|| format!("mount the image that is shown at {target}"))?;
        let part = self.part(whole.as_fd());
        let detached = mount::detach(whole.as_fd());
        detached.context(|| format!("detach the image that is shown at {target}"))?;
        part
    }

    /// In the parent: such a tree with the owners of a user namespace, whose root may map none. The
    /// overlay ends with the mount namespace that it is attached in, and the tree stays.
    pub(crate) fn mapped_tree(
        &self,
        users: BorrowedFd<'_>,
        label: MountLabel<'_>,
    ) -> Result<OwnedFd> {
        let step = || format!("show an image at {}", self.target.display());
        let overlay = Overlay {
            lower: &self.lower,
            writable: None,
            label,
        };
        mount_part(&overlay, users, |whole| {
            let place = Path::new("image");
            std::fs::create_dir(place).context(step)?;
            let place = open_root(place).context(step)?;
            mount::attach(whole.as_fd(), place.as_fd()).context(step)?;
            self.part(whole.as_fd())
        })
        .map_err(|error| Error::setup(step(), error))
    }

    /// Clones what is at the path in the image, of which `whole` is the attached overlay. Links lead
    /// nowhere out of the image: the kernel resolves the path with the overlay as `/`.
    fn part(&self, whole: BorrowedFd<'_>) -> Result<OwnedFd> {
        let target = self.target.display();
        let step = || {
            format!(
                "open {:?} in the image that is shown at {target}",
                self.sub_path
            )
        };
        let found = locate(whole, &self.sub_path).context(step)?;
        let stat = rustix::fs::fstat(&found).map_err(|error| Error::setup(step(), error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(Error::setup(
                step(),
                "it is no directory and no regular file",
            ));
        }
        mount::open_tree_at(found.as_fd(), Path::new(""), Depth::Single).context(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_path_come_from_the_options_and_nothing_else_does() {
        let view = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
            ImageView::of(Path::new("/data"), &Options::parse(&list).unwrap())
        };
        let whole = view(&["ro", "noexec", "lower=/b=1,x", "lower=/a", "sub_path=x/y"]).unwrap();
        assert_eq!(whole.lower, [Path::new("/b=1,x"), Path::new("/a")]);
        assert_eq!(whole.sub_path, Path::new("x/y"));
        for wrong in [
            &["lower=/a"][..],
            &["lower=/a", "lower=b"],
            &["lower=/a", "lower=/b", "upperdir=/c"],
            &["lower=/a", "lower=/b", "sub_path"],
        ] {
            assert!(view(wrong).is_err(), "{wrong:?}");
        }
    }
}
