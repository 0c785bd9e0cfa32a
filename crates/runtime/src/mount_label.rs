//! The mount label is the SELinux label of files in what is mounted for a container: it may use them,
//! and a container with another level may not.

use std::io;
use std::os::fd::BorrowedFd;

use crisp_sys::mount::FsContext;
use crisp_sys::selinux;
use oci_spec::runtime::Spec;

/// `linux.mountLabel` of a spec, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MountLabel<'a>(Option<&'a str>);

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
        Self(label.filter(|label| !label.is_empty()))
    }

    /// As it is kept where its spec is not.
    pub(crate) fn to_owned(self) -> Option<String> {
        self.0.map(str::to_owned)
    }

    /// Tells it to a file system that is about to be made.
    pub(crate) fn tell(self, context: FsContext, kind: &str) -> io::Result<FsContext> {
        match self.0.filter(|_| way(kind) == Way::Option) {
            Some(label) => context.set("context", label),
            None => Ok(context),
        }
    }

    /// Gives it to the root of a file system that was made.
    pub(crate) fn put(self, root: BorrowedFd<'_>, kind: &str) -> io::Result<()> {
        match self.0.filter(|_| way(kind) == Way::Root) {
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
        let Some(label) = self.0 else {
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
        Self(label)
    }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(MountLabel::of(&spec), MountLabel(None));
            assert_eq!(MountLabel::of(&spec).option().unwrap(), "");
        }
        let mut linux = spec.linux().clone().unwrap();
        linux.set_mount_label(Some(LABEL.to_owned()));
        spec.set_linux(Some(linux));
        let label = MountLabel::of(&spec);
        assert_eq!(label, MountLabel(Some(LABEL)));
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
            let refused = MountLabel(Some(label)).option().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(refused.to_string().contains("linux.mountLabel"));
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
            let told = MountLabel(Some(LABEL)).tell(context, kind);
            let made = told.and_then(|context| context.mount(Default::default()));
            assert_eq!(made.is_ok(), takes, "{kind}: {made:?}");
            let context = FsContext::open(kind).unwrap();
            let unlabelled = MountLabel::default().tell(context, kind);
            let made = unlabelled.and_then(|context| context.mount(Default::default()));
            assert!(made.is_ok(), "{kind}: {made:?}");
        }
    }
}
