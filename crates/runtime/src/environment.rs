//! The environment of a program: one entry a name, and a home directory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crisp_sys::rootfs::open_in;
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};
use crate::mounts::file_type;

/// The file comes from the image: what is beyond this is not read.
const MAX_PASSWD: u64 = 8 * 1024 * 1024;

/// Refuses an entry that is no variable: programs would read something else into it, or nothing.
pub(crate) fn check(environment: &[String]) -> Result<()> {
    let is_variable = |entry: &&String| entry.find('=').is_some_and(|at| at > 0);
    match environment.iter().find(|entry| !is_variable(entry)) {
        None => Ok(()),
        Some(entry) => {
            let why = format!("{entry:?} is not NAME=value");
            Err(Error::invalid("process.env", why))
        }
    }
}

/// The later of two entries of one name wins, as in a shell; it keeps its place. Without this the
/// program would see both, and most C libraries take the first.
pub(crate) fn one_entry_a_name(mut environment: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    environment.reverse();
    environment.retain(|entry| {
        let name = entry
            .split_once('=')
            .map_or(entry.as_str(), |(name, _)| name);
        seen.insert(name.to_owned())
    });
    environment.reverse();
    environment
}

/// Whether the environment names a home that is more than an empty word.
pub(crate) fn has_home(environment: &[Vec<u8>]) -> bool {
    let home = environment
        .iter()
        .find_map(|entry| entry.strip_prefix(b"HOME="));
    home.is_some_and(|home| !home.is_empty())
}

/// In the child, in the container's root: the home of a user as the image's `/etc/passwd` has it.
/// A user who is not there, or has no absolute path, is at home in `/`.
pub(crate) fn home_of(uid: u32, root: BorrowedFd<'_>) -> String {
    // The image may hold a FIFO there, for which nobody is to wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open_in(root, Path::new("/etc/passwd"), flags, Mode::empty());
    let plain = opened
        .ok()
        .filter(|file| file_type(file.as_fd()).is_ok_and(|kind| kind == FileType::RegularFile));
    let found =
        plain.and_then(|file| look_up(BufReader::new(File::from(file).take(MAX_PASSWD)), uid));
    found.unwrap_or_else(|| "/".to_owned())
}

fn look_up(passwd: impl BufRead, uid: u32) -> Option<String> {
    let lines = passwd.split(b'\n').map_while(std::io::Result::ok);
    for line in lines {
        let Ok(line) = String::from_utf8(line) else {
            continue;
        };
        let mut fields = line.split(':');
        if fields.nth(2).and_then(|id| id.trim().parse().ok()) != Some(uid) {
            continue;
        }
        let home = fields.nth(2).map(str::trim).unwrap_or_default();
        let is_path = home.starts_with('/') && !home.contains(char::is_control);
        return is_path.then(|| home.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_name_and_a_value() {
        for (entry, good) in [
            ("A=", true),
            ("A=b=c", true),
            ("A", false),
            ("=b", false),
            ("", false),
        ] {
            assert_eq!(check(&[entry.to_owned()]).is_ok(), good, "{entry:?}");
        }
    }

    #[test]
    fn the_later_entry_wins() {
        let entries = ["A=1", "B=2", "A=3", "C", "D=", "C"].map(str::to_owned);
        assert_eq!(
            one_entry_a_name(entries.to_vec()),
            ["B=2", "A=3", "D=", "C"]
        );
    }

    #[test]
    fn an_empty_home_is_none() {
        let has = |entry: &str| has_home(&[entry.as_bytes().to_vec()]);
        assert!(has("HOME=/x") && !has("HOME=") && !has("XHOME=/x") && !has("HOME"));
    }

    #[test]
    fn homes_are_found_by_id() {
        let passwd: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n#\n\xff:x:1:1::/bad:\nshort:x:5\n\
            rel:x:6:6::home:\nempty:x:7:7:::\nlast:x:8:8:a,b:/srv/last:/bin/sh";
        for (uid, home) in [
            (0, Some("/root")),
            (1, None),
            (5, None),
            (6, None),
            (7, None),
            (8, Some("/srv/last")),
            (9, None),
        ] {
            assert_eq!(look_up(passwd, uid).as_deref(), home, "{uid}");
        }
    }
}
