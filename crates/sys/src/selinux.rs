//! SELinux: labels of files, and what the loaded policy knows.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::rootfs::proc_path;

/// The extended attribute that holds a file's label.
const ATTRIBUTE: &str = "security.selinux";
/// Where the kernel answers questions about the policy, where it is mounted.
const SELINUXFS: &str = "/sys/fs/selinux";
/// Longest label that is read: one with all categories named singly.
const LONGEST: usize = 8192;

/// Whether this kernel runs with SELinux, enforcing or not: only then it has its file system, mounted
/// or not.
#[must_use]
pub fn is_on() -> bool {
    let systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    systems.lines().any(|line| line.ends_with("\tselinuxfs"))
}

/// Asks the kernel whether its policy allows a label to exist.
///
/// # Errors
/// EINVAL where the policy does not know a part of it; ENOENT where nobody can be asked.
pub fn check(label: &str) -> io::Result<()> {
    let place = Path::new(SELINUXFS).join("context");
    let mut file = fs::OpenOptions::new().write(true).open(place)?;
    // One write is one question.
    let asked = io::Write::write(&mut file, label.as_bytes())?;
    if asked == label.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Labels what a descriptor is open on, of which it may be the mere location (`O_PATH`).
///
/// # Errors
/// The errors of setxattr(2): ENOTSUP where the file system keeps no labels.
pub fn set_label(fd: impl AsFd, label: &str) -> io::Result<()> {
    let place = proc_path(fd.as_fd());
    Ok(setxattr(
        place,
        ATTRIBUTE,
        label.as_bytes(),
        XattrFlags::empty(),
    )?)
}

/// The label of what a descriptor is open on; none where nobody has given it one.
///
/// # Errors
/// The errors of getxattr(2): ENOTSUP where the file system keeps no labels.
pub fn label(fd: impl AsFd) -> io::Result<Option<String>> {
    let mut buffer = vec![0; LONGEST];
    let read = match getxattr(proc_path(fd.as_fd()), ATTRIBUTE, &mut buffer) {
        Err(rustix::io::Errno::NODATA) => return Ok(None),
        read => read?,
    };
    // The kernel ends its answers with a NUL.
    let text = buffer[..read].split(|byte| *byte == 0).next();
    let text = String::from_utf8_lossy(text.unwrap_or_default());
    Ok(Some(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::locate_nofollow;

    #[test]
    fn privileged_labels_are_read_as_they_were_set() {
        const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";
        let dir = std::env::temp_dir().join(format!("crisp-selinux-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let root = crate::rootfs::open_root(&dir).unwrap();
        crate::file::write_atomic(&dir.join("file"), b"", 0o600).unwrap();
        std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
        for name in ["file", "link", "."] {
            let fd = locate_nofollow(root.as_fd(), Path::new(name)).unwrap();
            if !is_on() {
                assert_eq!(
                    label(&fd).unwrap(),
                    None,
                    "{name}: the link led to the file"
                );
            }
            // Where there is SELinux its policy may not know the label.
            if set_label(&fd, LABEL).is_ok() || !is_on() {
                assert_eq!(label(&fd).unwrap().as_deref(), Some(LABEL), "{name}");
            }
        }
        if !is_on() {
            // A file that is handed over is open until its label is set.
            set_label(fs::File::open(dir.join("file")).unwrap(), "other").unwrap();
            let file = fs::File::open(dir.join("file")).unwrap();
            assert_eq!(label(file).unwrap().as_deref(), Some("other"));
        }
        fs::remove_dir_all(&dir).unwrap();
        let proc = fs::File::open("/proc/self").unwrap();
        assert!(set_label(&proc, LABEL).is_err(), "procfs takes none");
    }

    #[test]
    fn a_kernel_without_selinux_knows_no_label() {
        if !is_on() {
            let refused = check("system_u:system_r:container_t:s0").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        }
    }
}
