//! The profiles of the node that a container names: the file of a seccomp profile, and whether an
//! `AppArmor` profile is loaded. Both are looked up when the container is made: at its start the
//! caller could only learn that it failed.

use std::path::Path;

use crisp_model::{Field, Profile};
use crisp_sys::file;

use crate::error::{Error, Result};

/// The profiles that the kernel has loaded, one a line: `NAME (MODE)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
/// No sane seccomp profile, and no node's list of `AppArmor` profiles, is larger.
const MOST: u64 = 4 << 20;

/// The text of the seccomp profile, if it is a file of the node.
///
/// # Errors
/// When the file cannot be read or is too large.
pub(super) fn seccomp(dir: &Path, profile: &Profile) -> Result<Option<Vec<u8>>> {
    let Profile::Localhost(name) = profile else {
        return Ok(None);
    };
    // An absolute path replaces the directory.
    let path = dir.join(name);
    let read = file::read_bounded(&path, MOST);
    let refuse = |error| {
        let why = format!("cannot read {}: {error}", path.display());
        Error::invalid(Field::Seccomp, why)
    };
    read.map(Some).map_err(refuse)
}

/// Refuses an `AppArmor` profile by name that the kernel has not loaded. Where the kernel's list
/// cannot be read, the start finds out.
///
/// # Errors
/// When it is not loaded.
pub(super) fn check_apparmor(profile: &Profile) -> Result<()> {
    let Profile::Localhost(name) = profile else {
        return Ok(());
    };
    match file::read_bounded(Path::new(LOADED), MOST) {
        Ok(list) if !is_loaded(name, &String::from_utf8_lossy(&list)) => {
            let why = format!(
                "profile {name:?} is not loaded on this node: load it with apparmor_parser(8)"
            );
            Err(Error::invalid(Field::Apparmor, why))
        }
        _ => Ok(()),
    }
}

/// Whether the list has the profile. A stack of several, or one of another namespace, does not
/// stand in it.
fn is_loaded(name: &str, list: &str) -> bool {
    let is_plain = !name.starts_with(':') && !name.contains("//&");
    let names = list
        .lines()
        .filter_map(|line| Some(line.rsplit_once(" (")?.0));
    !is_plain || names.into_iter().any(|loaded| loaded == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_loaded_when_the_list_has_its_whole_name() {
        let list = "crisp-default (enforce)\n/usr/bin/man (complain)\nwith space (x) (kill)\n";
        for (name, wanted) in [
            ("crisp-default", true),
            ("crisp", false),
            ("crisp-default (enforce)", false),
            ("/usr/bin/man", true),
            ("with space (x)", true),
            ("", false),
            (":other:mine", true),
            ("one//&two", true),
        ] {
            assert_eq!(is_loaded(name, list), wanted, "{name}");
        }
        assert!(!is_loaded("any", ""));
    }
}
