//! The mounts of a spec: opened in the host's mount namespace where they come from the host, made
//! in the container's namespaces where they belong there, attached by descriptor.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_model::IMAGE_VIEW;
use crisp_sys::cgroup::Cgroup;
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::mount_point::{self, Missing, Place};
use crisp_sys::rootfs::{locate, locate_nofollow};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::fresh_mount::FreshMount;
use crate::guard::Guard;
use crate::id_map::{IdMap, namespace};
use crate::image_view::ImageView;
use crate::mapped_root::joined_users;
use crate::mount_label::MountLabel;
use crate::namespaces::Maps;
use crate::options::{self, Options, Reach};
use crate::peers::Host;
use crate::same::is_same;

/// One mount, ready to be attached.
#[derive(Debug)]
pub(crate) struct Prepared {
    target: PathBuf,
    options: Options,
    id_map: Option<IdMap>,
    source: Source,
    warning: Option<String>,
}

impl Prepared {
    /// In the child: makes the view of an image, or clones a source that is below the container's
    /// root. Within either its links stay.
    fn with_source_in(self, root: BorrowedFd<'_>, label: MountLabel<'_>) -> Result<Self> {
        let (path, depth) = match &self.source {
            Source::Inside { path, depth } => (path, depth),
            Source::Image(view) => {
                let step = || format!("show an image at {}", self.target.display());
                let tree = bind_attributes(view.tree(label)?, &self.options).context(step)?;
                let is_dir = file_type(tree.as_fd())? == FileType::Directory;
                let source = Source::Tree { tree, is_dir };
                return Ok(Self { source, ..self });
            }
            _ => return Ok(self),
        };
        let step = || format!("open the source {} in the root", path.display());
        let found = locate(root, &Path::new("/").join(path)).context(step)?;
        let tree = mount::open_tree_at(found.as_fd(), Path::new(""), *depth)
            .and_then(|tree| bind_attributes(tree, &self.options))
            .context(step)?;
        if let Some(id_map) = &self.id_map {
            id_map.apply(tree.as_fd()).context(step)?;
        }
        let is_dir = file_type(tree.as_fd())? == FileType::Directory;
        let source = Source::Tree { tree, is_dir };
        Ok(Self { source, ..self })
    }

    fn is_dir(&self) -> bool {
        match self.source {
            Source::Tree { is_dir, .. }
            | Source::Followed { is_dir, .. }
            | Source::Shared { is_dir, .. } => is_dir,
            Source::Inside { .. }
            | Source::Image(_)
            | Source::Fresh { .. }
            | Source::CgroupV1(_) => true,
        }
    }

    /// The part of the mount that could not be met to the letter.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Whether what is mounted in it appears on the host as well.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.source, Source::Shared { .. })
    }
}

#[derive(Debug)]
enum Source {
    /// A detached tree of the host.
    Tree { tree: OwnedFd, is_dir: bool },
    /// A tree of the host that follows the host's mounts, and is therefore bound only when it is
    /// attached: a detached tree is told nothing.
    Followed {
        path: PathBuf,
        depth: Depth,
        is_dir: bool,
    },
    /// A tree that the host shares, which the parent clones once it can be attached at once.
    Shared {
        path: PathBuf,
        depth: Depth,
        is_dir: bool,
    },
    /// A place below the container's root, which earlier mounts may have to provide.
    Inside { path: PathBuf, depth: Depth },
    /// An image's layers, to be mounted inside the container's mount namespace.
    Image(ImageView),
    /// A file system to be made inside the container's namespaces.
    Fresh { kind: String, name: String },
    /// Version 1 cgroup directories, each with the name that it gets.
    CgroupV1(Vec<(String, OwnedFd)>),
}

/// In the parent: opens everything that comes from the host.
pub(crate) fn prepare(spec: &Spec, cgroup: &Cgroup, from: Origin<'_>) -> Result<Vec<Prepared>> {
    let new = Named::of(spec);
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    mounts
        .iter()
        .map(|mount| prepare_one(mount, cgroup, from, new))
        .collect()
}

/// The directories that sources of binds are read from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) bundle: &'a Path,
    /// Where the container's root will be.
    pub(crate) place: &'a Path,
}

/// The namespaces that the spec names, some of which change how mounts are made, and whether mounts
/// may go out to the host.
#[derive(Clone, Copy)]
struct Named<'a> {
    spec: &'a Spec,
    namespaces: &'a [LinuxNamespace],
    shares: bool,
}

impl<'a> Named<'a> {
    fn of(spec: &'a Spec) -> Self {
        let linux = spec.linux().as_ref();
        let list = linux.and_then(|linux| linux.namespaces().as_deref());
        Self {
            spec,
            namespaces: list.unwrap_or_default(),
            shares: options::root_is_shared(spec),
        }
    }

    fn has(self, kind: LinuxNamespaceType) -> bool {
        self.namespaces
            .iter()
            .any(|namespace| namespace.typ() == kind)
    }
}

fn prepare_one(
    mount: &Mount,
    cgroup: &Cgroup,
    from: Origin<'_>,
    new: Named<'_>,
) -> Result<Prepared> {
    let target = mount.destination().clone();
    let mut options = Options::parse(mount.options().as_deref().unwrap_or_default())?;
    let kind = mount.typ().as_deref().unwrap_or("bind");
    if options.copy_up && (options.bind.is_some() || kind != "tmpfs") {
        let why = format!("tmpcopyup of {}: it is no tmpfs", target.display());
        return Err(Error::invalid("mounts.options", why));
    }
    let id_map = IdMap::of(mount, &options, new.spec)?;
    if id_map.is_some() {
        if options.bind.is_none() && kind != "bind" {
            let why = format!("{}: only a bind mount can be idmapped", target.display());
            return Err(Error::invalid("mounts.uidMappings", why));
        }
        options.id_map.get_or_insert(Reach::One);
    }
    let source = match (options.bind, kind) {
        (Some(depth), _) => host_tree(mount, from, depth, (&options, new))?,
        (None, "bind") => host_tree(mount, from, Depth::Recursive, (&options, new))?,
        (None, "cgroup" | "cgroup2") => {
            cgroup_source(cgroup, new.has(LinuxNamespaceType::Cgroup), &options)?
        }
        (None, IMAGE_VIEW) => image_source(ImageView::of(&target, &options)?, &options, new)?,
        (None, kind) => fresh(kind, mount),
    };
    let warning = match (&source, &id_map) {
        (Source::Tree { tree, .. }, Some(id_map)) => {
            let source = from.bundle.join(mount.source().clone().unwrap_or_default());
            id_map.apply_to(tree.as_fd(), &source, &target)?
        }
        _ => None,
    };
    Ok(Prepared {
        target,
        options,
        id_map,
        source,
        warning,
    })
}

/// In a user namespace the parent makes the view: nobody there may map the owners of layers.
fn image_source(view: ImageView, options: &Options, new: Named<'_>) -> Result<Source> {
    if !new.has(LinuxNamespaceType::User) {
        return Ok(Source::Image(view));
    }
    let users = match joined_users(new.spec) {
        Some(path) => {
            OwnedFd::from(File::open(path).context(|| format!("open {}", path.display()))?)
        }
        None => namespace(&Maps::of(new.spec)?)?,
    };
    let tree = view.mapped_tree(users.as_fd(), MountLabel::of(new.spec))?;
    let tree =
        bind_attributes(tree, options).context(|| "set the attributes of an image's mount")?;
    let is_dir = file_type(tree.as_fd())? == FileType::Directory;
    Ok(Source::Tree { tree, is_dir })
}

fn host_tree(
    mount: &Mount,
    from: Origin<'_>,
    depth: Depth,
    (options, new): (&Options, Named<'_>),
) -> Result<Source> {
    let source = mount.source().as_ref().ok_or_else(|| {
        Error::invalid(
            "mounts",
            format!("{} has no source", mount.destination().display()),
        )
    })?;
    let path = from.bundle.join(source);
    if let Ok(inside) = path.strip_prefix(from.place) {
        let path = inside.to_owned();
        return Ok(Source::Inside { path, depth });
    }
    let step = || {
        let target = mount.destination().display();
        format!(
            "open the source {} of the mount at {target}",
            path.display()
        )
    };
    // Only a detached tree can be idmapped.
    let is_bound_late = options.id_map.is_none();
    if is_bound_late && options.is_shared() && new.shares {
        let path = std::fs::canonicalize(&path).context(step)?;
        let is_dir = path.is_dir();
        return Ok(Source::Shared {
            path,
            depth,
            is_dir,
        });
    }
    // The root of a user namespace may not reach the path.
    if is_bound_late && options.follows_host() && !new.has(LinuxNamespaceType::User) {
        let is_dir = std::fs::metadata(&path).context(step)?.is_dir();
        return Ok(Source::Followed {
            path,
            depth,
            is_dir,
        });
    }
    let tree = mount::open_tree(&path, depth)
        .and_then(|tree| bind_attributes(tree, options))
        .context(step)?;
    let is_dir = file_type(tree.as_fd())? == FileType::Directory;
    Ok(Source::Tree { tree, is_dir })
}

/// The container sees its own cgroup as the root: by its cgroup namespace on version 2, by binds of
/// its own directories otherwise.
fn cgroup_source(cgroup: &Cgroup, private: bool, options: &Options) -> Result<Source> {
    let layout = cgroup.layout();
    if layout.is_v2() {
        if private {
            return Ok(Source::Fresh {
                kind: "cgroup2".to_owned(),
                name: "cgroup".to_owned(),
            });
        }
        let root = layout.unified().unwrap_or(Path::new("/sys/fs/cgroup"));
        let tree = mount::open_tree(root, Depth::Single).context(|| "open the cgroup tree")?;
        let tree = bind_attributes(tree, options).context(|| "bind the cgroup tree")?;
        return Ok(Source::Tree { tree, is_dir: true });
    }
    let mut trees = Vec::new();
    for root in layout.v1_roots() {
        let Some(name) = root.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let dir = root.join(cgroup.path());
        let inert = MountAttributes::default().inert();
        let tree = mount::open_tree(&dir, Depth::Single)
            .and_then(|tree| bind_attributes(tree, options))
            .and_then(|tree| {
                mount::set_attributes(tree.as_fd(), inert, Depth::Single).map(|()| tree)
            })
            .context(|| format!("open the cgroup {}", dir.display()))?;
        trees.push((name.to_owned(), tree));
    }
    Ok(Source::CgroupV1(trees))
}

/// Of any type: the kernel says which ones it has.
fn fresh(kind: &str, mount: &Mount) -> Source {
    let source = mount.source().as_ref().and_then(|source| source.to_str());
    Source::Fresh {
        kind: kind.to_owned(),
        name: source.unwrap_or(kind).to_owned(),
    }
}

pub(crate) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType> {
    let stat = rustix::fs::fstat(fd).map_err(|error| Error::setup("stat", error))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// In the child: makes and attaches the mount below `root`. The value is a mount that has to become
/// read-only once all that belongs in it is there: mount points, device nodes, links.
pub(crate) fn attach(
    prepared: Prepared,
    root: BorrowedFd<'_>,
    label: MountLabel<'_>,
    (guard, host): (Guard<'_>, &Host<'_>),
) -> Result<Option<OwnedFd>> {
    let target = prepared.target.clone();
    let step = || format!("mount at {}", target.display());
    refuse_false_kernel_files(&prepared, root)?;
    let prepared = prepared.with_source_in(root, label)?;
    let missing = match prepared.is_dir() {
        true => Missing::Dir(0o755),
        false => Missing::File(0o644),
    };
    let covered = locate(root, &target).ok();
    let place = mount_point::find(root, &target, missing)
        .context(|| format!("make the mount point {}", target.display()))?;
    if is_same(place.fd.as_fd(), root).context(step)? {
        // A mount on the root would never be seen.
        return Err(Error::setup(step(), "it is the container's root"));
    }
    let Prepared {
        options, source, ..
    } = prepared;
    match source {
        Source::Tree { tree, .. } => {
            mount::attach(tree.as_fd(), place.fd.as_fd()).context(step)?;
        }
        Source::Followed { path, depth, .. } => {
            bind_followed(&path, depth, &place, &options).context(step)?;
        }
        Source::Shared { path, depth, .. } => {
            host.share((&path, depth), &place, |tree| spread(tree, &options))?;
        }
        Source::Fresh { kind, name } => {
            let fresh = FreshMount {
                target: &target,
                kind: &kind,
                name: &name,
                options,
                label,
            };
            return fresh.attach(&place, covered, guard);
        }
        Source::Inside { .. } | Source::Image(_) => {
            return Err(Error::setup(step(), "its source was not opened"));
        }
        Source::CgroupV1(trees) => {
            attach_cgroup_v1(trees, &place.fd, &options, guard).context(step)?;
        }
    }
    Ok(None)
}

/// From this mount namespace, whose mounts are slaves of the host's: so is the new one, from its
/// first moment on.
fn bind_followed(
    path: &Path,
    depth: Depth,
    place: &Place,
    options: &Options,
) -> std::io::Result<()> {
    let source = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    mount::bind_at_once(source.as_fd(), place.fd.as_fd(), depth)?;
    let top = place.top()?;
    let (wanted, found) = (rustix::fs::fstat(&source)?, rustix::fs::fstat(&top)?);
    if (wanted.st_dev, wanted.st_ino) != (found.st_dev, found.st_ino) {
        return Err(std::io::Error::other("the mount point was moved meanwhile"));
    }
    bind_attributes(top, options).map(drop)
}

/// A symlink at /proc or /sys would put the kernel's files elsewhere and leave the image's own in
/// their place, for whoever writes there next to fall into.
fn refuse_false_kernel_files(prepared: &Prepared, root: BorrowedFd<'_>) -> Result<()> {
    match &prepared.source {
        Source::Fresh { kind, .. } if kind == "proc" || kind == "sysfs" => {}
        _ => return Ok(()),
    }
    match locate_nofollow(root, &prepared.target) {
        Ok(fd) if file_type(fd.as_fd())? == FileType::Directory => Ok(()),
        Ok(_) => {
            let target = prepared.target.display();
            Err(Error::setup(
                format!("mount at {target}"),
                "the image has no directory there",
            ))
        }
        Err(_) => Ok(()),
    }
}

/// Cuts a tree off from the host, whose mounts it is told at most, and gives it what was asked for.
fn bind_attributes(tree: OwnedFd, options: &Options) -> std::io::Result<OwnedFd> {
    // The tree is a peer of the host's: nothing of it may stay so when only its top is told.
    let cut = MountAttributes::default().propagating(Propagation::Slave);
    mount::set_attributes(tree.as_fd(), cut, Depth::Recursive)?;
    spread(tree, options)
}

/// Gives a tree the propagation and the attributes that were asked for.
fn spread(tree: OwnedFd, options: &Options) -> std::io::Result<OwnedFd> {
    let (propagation, depth) = options
        .propagation
        .unwrap_or((Propagation::Private, Depth::Recursive));
    let spread = MountAttributes::default().propagating(propagation);
    mount::set_attributes(tree.as_fd(), spread, depth)?;
    if !options.attributes.is_empty() {
        mount::set_attributes(tree.as_fd(), options.attributes, Depth::Single)?;
    }
    if !options.recursive.is_empty() {
        mount::set_attributes(tree.as_fd(), options.recursive, Depth::Recursive)?;
    }
    Ok(tree)
}

fn attach_cgroup_v1(
    trees: Vec<(String, OwnedFd)>,
    place: &OwnedFd,
    options: &Options,
    guard: Guard<'_>,
) -> std::io::Result<()> {
    let inert = MountAttributes::default().inert();
    let holder = FsContext::open("tmpfs")?.set("mode", "755")?.mount(inert)?;
    guard.attach(holder.as_fd(), place.as_fd())?;
    for (name, tree) in trees {
        let dir = mount_point::make(holder.as_fd(), Path::new(&name), Missing::Dir(0o755))?;
        mount::attach(tree.as_fd(), dir.as_fd())?;
        // Controllers that are mounted together are found under their own names too.
        for alone in name.split(',').filter(|alone| *alone != name) {
            rustix::fs::symlinkat(&name, &holder, alone)?;
        }
    }
    mount::set_attributes(holder.as_fd(), options.attributes, Depth::Single)
}
