//! Which namespaces a spec wants: new ones, or those of a path.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::credentials;
use crisp_sys::fork::{self, CloneFlags};
use crisp_sys::ns::{self, Kind};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::error::{Context, Error, Result};

/// The namespaces of a container to be.
#[derive(Debug)]
pub(crate) struct Namespaces {
    new: Vec<Kind>,
    joined: Vec<(Kind, OwnedFd)>,
    maps: Option<Maps>,
}

/// Which ids of a new user namespace stand for which of the host, as `uid_map` and `gid_map` are
/// written.
#[derive(Debug)]
pub(crate) struct Maps {
    users: String,
    groups: String,
}

impl Namespaces {
    /// Reads the spec and opens what is to be joined.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let mut found = Self {
            new: Vec::new(),
            joined: Vec::new(),
            maps: None,
        };
        let list = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_deref());
        for namespace in list.unwrap_or_default() {
            let kind = kind(namespace.typ());
            if found.has(kind) {
                return Err(Error::invalid(
                    "linux.namespaces",
                    format!("two of {kind:?}"),
                ));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    let file = File::open(path).context(|| format!("open {}", path.display()))?;
                    found.joined.push((kind, file.into()));
                }
                _ => found.new.push(kind),
            }
        }
        found.check(spec)?;
        Ok(found)
    }

    fn check(&mut self, spec: &Spec) -> Result<()> {
        if self.joins(Kind::Mount) {
            let what = "to join a Mount namespace".to_owned();
            return Err(Error::Unsupported(what));
        }
        if self.is_new(Kind::User) {
            self.maps = Some(Maps::of(spec)?);
        }
        Ok(())
    }

    /// The ids of the new user namespace, if there is one, for the parent to write.
    pub(crate) fn take_maps(&mut self) -> Option<Maps> {
        self.maps.take()
    }

    fn has(&self, kind: Kind) -> bool {
        self.new.contains(&kind) || self.joins(kind)
    }

    fn joins(&self, kind: Kind) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container is in another user namespace than the caller.
    pub(crate) fn has_users(&self) -> bool {
        self.has(Kind::User)
    }

    /// Whether the container gets a new namespace of this kind.
    pub(crate) fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Whether the container shares the caller's namespace of this kind.
    pub(crate) fn is_callers(&self, kind: Kind) -> bool {
        !self.has(kind)
    }

    /// The namespace of this kind that the container joins, if it joins one.
    pub(crate) fn joined(&self, kind: Kind) -> Option<BorrowedFd<'_>> {
        let mut joined = self.joined.iter();
        joined.find_map(|(joined, fd)| (*joined == kind).then(|| fd.as_fd()))
    }

    /// Flags for the fork. Always a new mount namespace; the cgroup namespace comes later, when
    /// the child is in its cgroup, and the time namespace is made before (`clocks.rs`).
    pub(crate) fn clone_flags(&self) -> CloneFlags {
        match self.takes_two() {
            true => CloneFlags::NONE,
            false => self.new_flags(),
        }
    }

    /// Whether a first child has to join namespaces before a second one, the container's init, is
    /// born in new ones: the root of a new user namespace has no say over those of others, and new
    /// ones are to belong to a user namespace that is joined.
    pub(crate) fn takes_two(&self) -> bool {
        let joins = self.joined.iter().any(|(kind, _)| *kind != Kind::Pid);
        joins && self.has_users()
    }

    fn new_flags(&self) -> CloneFlags {
        let early = self
            .new
            .iter()
            .filter(|kind| !matches!(kind, Kind::Cgroup | Kind::Mount | Kind::Time));
        early.fold(CloneFlags::NEWNS, |flags, kind| flags | kind.flag())
    }

    /// A copy that holds only the PID namespace to be joined.
    pub(crate) fn pid_only(&self) -> Result<Self> {
        let pid = self.joined.iter().filter(|(kind, _)| *kind == Kind::Pid);
        let joined =
            pid.map(|(kind, fd)| Ok((*kind, fd.try_clone().context(|| "copy a descriptor")?)));
        Ok(Self {
            new: Vec::new(),
            joined: joined.collect::<Result<_>>()?,
            maps: None,
        })
    }

    /// Runs `fork` so that the child is born in the PID namespace that is joined, if any.
    pub(crate) fn in_pid_namespace<T>(&self, fork: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some((_, target)) = self.joined.iter().find(|(kind, _)| *kind == Kind::Pid) else {
            return fork();
        };
        let own = ns::open_own(Kind::Pid).context(|| "open the own PID namespace")?;
        ns::enter(target.as_fd(), Kind::Pid).context(|| "join the PID namespace")?;
        let forked = fork();
        ns::enter(own.as_fd(), Kind::Pid).context(|| "return to the own PID namespace")?;
        forked
    }

    /// In the first child of two: joins what is others', and leaves for a user namespace.
    pub(crate) fn leave(&self) -> Result<()> {
        self.join()?;
        match self.is_new(Kind::User) {
            true => fork::unshare(Kind::User.flag()).context(|| "make a user namespace"),
            false => Ok(()),
        }
    }

    /// In the first child of two, once its user namespace has its ids: makes the rest, of which the
    /// PID namespace is for its children.
    pub(crate) fn make_rest(&self) -> Result<()> {
        become_root()?;
        let new = self.new.iter().filter(|kind| **kind != Kind::User);
        let rest = Self {
            new: new.copied().collect(),
            joined: Vec::new(),
            maps: None,
        };
        fork::unshare(rest.new_flags()).context(|| "make the namespaces")
    }

    /// In the child that becomes init: joins the rest.
    pub(crate) fn enter(&self) -> Result<()> {
        if self.takes_two() {
            return Ok(());
        }
        self.join()?;
        if self.is_new(Kind::User) {
            become_root()?;
        }
        Ok(())
    }

    /// The user namespace comes last: the caller's root has the say over all, whosever they are.
    fn join(&self) -> Result<()> {
        let of_users = |(kind, _): &&(Kind, OwnedFd)| *kind == Kind::User;
        let later = self.joined.iter().filter(|(kind, _)| *kind != Kind::Pid);
        let (users, others): (Vec<_>, Vec<_>) = later.partition(of_users);
        for (kind, namespace) in others.into_iter().chain(users) {
            ns::enter(namespace.as_fd(), *kind)
                .context(|| format!("join the {kind:?} namespace"))?;
        }
        Ok(())
    }
}

/// In a user namespace: root of it, before which no file that is made has an owner.
pub(crate) fn become_root() -> Result<()> {
    credentials::set_groups(&[])
        .and_then(|()| credentials::set_gid(0))
        .and_then(|()| credentials::set_uid(0))
        .context(|| "become root of the user namespace")
}

impl Maps {
    /// In the parent: tells the user namespace of `pid` its ids.
    pub(crate) fn write(&self, pid: i32) -> Result<()> {
        for (file, text) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            let path = format!("/proc/{pid}/{file}");
            let opened = File::options().write(true).open(&path);
            opened
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .context(|| format!("write {path}"))?;
        }
        Ok(())
    }

    /// The root alone, who is this id of the host.
    pub(crate) fn of_root(host: u32) -> Self {
        let table = format!("0 {host} 1\n");
        Self {
            users: table.clone(),
            groups: table,
        }
    }

    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        Self::read(
            linux.and_then(|linux| linux.uid_mappings().as_deref()),
            linux.and_then(|linux| linux.gid_mappings().as_deref()),
        )
    }

    pub(crate) fn read(
        users: Option<&[LinuxIdMapping]>,
        groups: Option<&[LinuxIdMapping]>,
    ) -> Result<Self> {
        Ok(Self {
            users: lines(users)?,
            groups: lines(groups)?,
        })
    }
}

fn lines(mappings: Option<&[LinuxIdMapping]>) -> Result<String> {
    let mappings = mappings
        .filter(|mappings| !mappings.is_empty())
        .ok_or_else(|| {
            Error::invalid("linux.uidMappings", "a user namespace needs both mappings")
        })?;
    let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
    Ok(mappings.iter().map(line).collect())
}

fn kind(typ: LinuxNamespaceType) -> Kind {
    match typ {
        LinuxNamespaceType::Mount => Kind::Mount,
        LinuxNamespaceType::Cgroup => Kind::Cgroup,
        LinuxNamespaceType::Uts => Kind::Uts,
        LinuxNamespaceType::Ipc => Kind::Ipc,
        LinuxNamespaceType::Pid => Kind::Pid,
        LinuxNamespaceType::Network => Kind::Net,
        LinuxNamespaceType::User => Kind::User,
        LinuxNamespaceType::Time => Kind::Time,
    }
}
