//! The mount label is the SELinux label of files in what is mounted for a container: it may use them,
//! and a container with another level may not.

use std::io;
use std::os::fd::BorrowedFd;

use crisp_sys::mount::FsContext;
use crisp_sys::selinux;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

/// `linux.mountLabel` of a spec, or none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountLabel<'a> {
    text: Option<&'a str>,
    /// The spec has an IPC namespace. Without one the container's message queues are the host's, all
    /// of which have one root.
    own_queues: bool,
}

/// How the files of a file system get the label.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By the option `context`, all of them, whatever labels are on the disk.
    Option,
    /// On its root, once it is mounted: an IPC namespace has one file system of message queues, which
    /// is older than the mount, and the kernel refuses to give that another context.
    Root,
    /// From the policy alone, which knows the kernel's own files one by one.
    Policy,
}

fn way(kind: &str) -> Way {
    match kind {
        "mqueue" => Way::Root,
        "proc" | "sysfs" | "cgroup" | "cgroup2" => Way::Policy,
        _ => Way::Option,
    }
}

impl<'a> MountLabel<'a> {
    pub(crate) fn of(spec: &'a Spec) -> Self {
        let linux = spec.linux().as_ref();
        let label = linux.and_then(|linux| linux.mount_label().as_deref());
        let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
        let mut namespaces = namespaces.into_iter().flatten();
        Self {
            text: label.filter(|label| !label.is_empty()),
            own_queues: namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Ipc),
        }
    }

    /// Whether files are labelled alike.
    pub(crate) fn is(self, text: Option<&str>) -> bool {
        self.text == text
    }

    /// As it is kept where its spec is not.
    pub(crate) fn to_owned(self) -> Option<String> {
        self.text.map(str::to_owned)
    }

    /// Tells it to a file system that is about to be made.
    pub(crate) fn tell(self, context: FsContext, kind: &str) -> io::Result<FsContext> {
        match self.text.filter(|_| way(kind) == Way::Option) {
            Some(label) => context.set("context", label),
            None => Ok(context),
        }
    }

    /// Gives it to the root of a file system that was made.
    pub(crate) fn put(self, root: BorrowedFd<'_>, kind: &str) -> io::Result<()> {
        let is_labelled = self.own_queues && way(kind) == Way::Root;
        match self.text.filter(|_| is_labelled) {
            Some(label) => selinux::set_label(root, label),
            None => Ok(()),
        }
    }

    /// The end of an option string of mount(2), in which the commas between categories have to be
    /// quoted.
    ///
    /// # Errors
    /// `InvalidInput` for a text that has other characters than labels have: a quote would end the
    /// label, and what follows it would be options of the mount.
    pub(crate) fn option(self) -> io::Result<String> {
        let Some(label) = self.text else {
            return Ok(String::new());
        };
        let may = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:,".contains(&byte);
        if !label.bytes().all(may) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{label:?} of linux.mountLabel is no SELinux label"),
            ));
        }
        Ok(format!(",context=\"{label}\""))
    }
}

impl<'a> From<Option<&'a str>> for MountLabel<'a> {
    fn from(label: Option<&'a str>) -> Self {
        Self {
            text: label,
            own_queues: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use oci_spec::runtime::LinuxNamespace;

    use super::*;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    #[test]
    fn each_file_system_is_labelled_in_its_way() {
        for (kind, wanted) in [
            ("overlay", Way::Option),
            ("tmpfs", Way::Option),
            ("devpts", Way::Option),
            ("ramfs", Way::Option),
            ("mqueue", Way::Root),
            ("proc", Way::Policy),
            ("sysfs", Way::Policy),
            ("cgroup2", Way::Policy),
        ] {
            assert_eq!(way(kind), wanted, "{kind}");
        }
    }

    #[test]
    fn a_spec_without_a_label_changes_no_mount() {
        let mut spec = Spec::default();
        for label in [None, Some(String::new())] {
            let linux = oci_spec::runtime::LinuxBuilder::default();
            let mut linux = linux.build().unwrap();
            linux.set_mount_label(label);
            spec.set_linux(Some(linux));
            assert!(MountLabel::of(&spec).is(None));
            assert_eq!(MountLabel::of(&spec).option().unwrap(), "");
        }
        let mut linux = spec.linux().clone().unwrap();
        linux.set_mount_label(Some(LABEL.to_owned()));
        spec.set_linux(Some(linux));
        let label = MountLabel::of(&spec);
        assert!(label.is(Some(LABEL)));
        let wanted = ",context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
        assert_eq!(label.option().unwrap(), wanted);
    }

    #[test]
    fn a_label_adds_no_option_to_a_mount() {
        for label in [
            "system_u:object_r:t:s0\",lowerdir=/,fscontext=\"s0",
            "u:r:t:s0\\",
            "u:r:t:s0 ",
            "u:r:t:s0\n",
            "u=r",
        ] {
            let refused = MountLabel::from(Some(label)).option().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("linux.mountLabel"));
        }
    }

    /// A kernel without SELinux keeps the attribute, which is all that is looked at here.
    #[test]
    fn privileged_queues_of_the_host_keep_their_label() {
        if selinux::is_on() {
            return;
        }
        for (kind, wanted) in [
            (LinuxNamespaceType::Mount, None),
            (LinuxNamespaceType::Ipc, Some(LABEL)),
        ] {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            let mut linux = oci_spec::runtime::Linux::default();
            linux.set_mount_label(Some(LABEL.to_owned()));
            linux.set_namespaces(Some(vec![namespace]));
            let mut spec = Spec::default();
            spec.set_linux(Some(linux));
            let dir = tempfile::tempdir().unwrap();
            let root = std::fs::File::open(dir.path()).unwrap();
            MountLabel::of(&spec).put(root.as_fd(), "mqueue").unwrap();
            assert_eq!(
                selinux::label(&root).unwrap().as_deref(),
                wanted,
                "{kind:?}"
            );
        }
    }

    /// A kernel without SELinux refuses the option, so each kind of mount here tells that it has it.
    #[test]
    fn privileged_the_label_reaches_the_kernel() {
        if selinux::is_on() {
            return;
        }
        for (kind, takes) in [("tmpfs", false), ("devpts", false), ("proc", true)] {
            let context = FsContext::open(kind).unwrap();
            let told = MountLabel::from(Some(LABEL)).tell(context, kind);
            let made = told.and_then(|context| context.mount(Default::default()));
            assert_eq!(made.is_ok(), takes, "{kind}: {made:?}");
            let context = FsContext::open(kind).unwrap();
            let unlabelled = MountLabel::default().tell(context, kind);
            let made = unlabelled.and_then(|context| context.mount(Default::default()));
            assert!(made.is_ok(), "{kind}: {made:?}");
        }
    }
}
