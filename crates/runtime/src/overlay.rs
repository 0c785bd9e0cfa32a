//! Overlays: the ways in which kernels of different ages mount one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_sys::mount::{self, Depth, FsContext, MountAttributes};
use crisp_sys::process;
use crisp_sys::rootfs::open_root;
use rustix::fs::CWD;

use crate::mount_label::MountLabel;

/// The directories of an overlay.
pub(crate) struct Overlay<'a> {
    /// Read-only layers, topmost first.
    pub(crate) lower: &'a [PathBuf],
    /// Writable layer and work directory; without them nobody can make the overlay writable.
    pub(crate) writable: Option<(&'a Path, &'a Path)>,
    /// The label of its files, whatever labels the layers have.
    pub(crate) label: MountLabel<'a>,
}

impl Overlay<'_> {
    pub(crate) fn mount_at(&self, place: &Path) -> io::Result<OwnedFd> {
        let tree = self
            .tree(Flush::Never)
            .or_else(|_| self.tree(Flush::AtUnmount));
        match tree {
            Ok(tree) => attach(tree, place),
            // Before Linux 6.8 layers cannot be added one by one; what the newer way said tells
            // more when both fail.
            Err(error) => self.mount_classic_at(place).map_err(|_| error),
        }
    }

    /// Mounts it without a place. Its layers may lie in the working directory, which has then to be
    /// in a mount namespace that nobody else sees.
    pub(crate) fn apart(&self) -> io::Result<OwnedFd> {
        let tree = self
            .tree(Flush::Never)
            .or_else(|_| self.tree(Flush::AtUnmount));
        tree.or_else(|error| {
            let place = Path::new("root");
            std::fs::create_dir(place)?;
            self.mount_classic(place, None).map_err(|_| error)?;
            mount::open_tree(place, Depth::Single)
        })
    }

    pub(crate) fn tree(&self, flush: Flush) -> io::Result<OwnedFd> {
        let mut context = FsContext::open("overlay")?.set("source", "overlay")?;
        for layer in self.lower {
            context = context.set_path("lowerdir+", layer)?;
        }
        context = context.set("index", "off")?.set("metacopy", "off")?;
        if let Some((upper, work)) = self.writable {
            context = context
                .set_path("upperdir", upper)?
                .set_path("workdir", work)?;
            if flush == Flush::Never {
                context = context.flag("volatile")?;
            }
        }
        let context = self.label.tell(context, "overlay")?;
        context.mount(MountAttributes::default())
    }

    /// The options of mount(2) have to fit in a page, so paths are told relative to the directory
    /// that all share. The caller changes its working directory later anyway.
    fn mount_classic_at(&self, place: &Path) -> io::Result<OwnedFd> {
        let base = self.common_base();
        process::change_dir(&base)?;
        self.mount_classic(place, Some(&base))?;
        open_root(place)
    }

    /// Paths below `base` are told relative to it.
    fn mount_classic(&self, place: &Path, base: Option<&Path>) -> io::Result<()> {
        let below = |path: &Path| Some(escape(path.strip_prefix(base?).ok()?));
        let relative = |path: &Path| below(path).unwrap_or_else(|| escape(path));
        let lower: Vec<String> = self.lower.iter().map(|layer| relative(layer)).collect();
        let lower = lower.join(":");
        let mut data = format!("lowerdir={lower},index=off,metacopy=off");
        if let Some((upper, work)) = self.writable {
            let (upper, work) = (relative(upper), relative(work));
            data = format!("{data},upperdir={upper},workdir={work}");
        }
        data.push_str(&self.label.option()?);
        let volatile = format!("{data},volatile");
        let first = self.writable.map_or(&data, |_| &volatile);
        mount::mount_classic("overlay", place, "overlay", first)
            .or_else(|_| mount::mount_classic("overlay", place, "overlay", &data))
    }

    fn common_base(&self) -> PathBuf {
        let writable = self.writable.into_iter();
        let writable = writable.flat_map(|(upper, work)| [upper, work]);
        let mut paths = writable.chain(self.lower.iter().map(PathBuf::as_path));
        let mut base = paths.next().unwrap_or(Path::new("/")).to_owned();
        for path in paths {
            while !path.starts_with(&base) && base.pop() {}
        }
        base
    }
}

/// Whether an unmount flushes dirty pages to disk. A container is never mounted a second time, so
/// the state that a power cut leaves in its writable layer is never read again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Never,
    AtUnmount,
}

/// Separators of the option string are escaped with a backslash.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for letter in path.to_string_lossy().chars() {
        if matches!(letter, ':' | ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The root of a user namespace may not reach the place, but the process is in it already.
pub(crate) fn attach(tree: OwnedFd, place: &Path) -> io::Result<OwnedFd> {
    match open_root(place) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            mount::attach(tree.as_fd(), CWD)?;
        }
        opened => mount::attach(tree.as_fd(), opened?.as_fd())?,
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_what_they_share() {
        let overlay = Overlay {
            lower: &["/v/s/a:b/fs".into(), "/v/s/c/fs".into()],
            writable: Some((Path::new("/v/s/u/fs"), Path::new("/v/s/u/work"))),
            label: MountLabel::default(),
        };
        assert_eq!(overlay.common_base(), Path::new("/v/s"));
        let read_only = Overlay {
            writable: None,
            ..overlay
        };
        assert_eq!(read_only.common_base(), Path::new("/v/s"));
        assert_eq!(escape(Path::new("a:b,c\\d")), "a\\:b\\,c\\\\d");
    }
}
