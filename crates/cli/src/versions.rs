//! Versions of Kubernetes in the cache that `hack/tools cluster` fills: a directory for each, by its name.

use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::failure::{Failure, Result};

/// The users of this machine with their homes (passwd(5)).
const USERS: &str = "/etc/passwd";

/// A version, as v1.37.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u32>);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = text.strip_prefix('v').unwrap_or(text).split('.');
        let numbers: Option<Vec<u32>> = numbers.map(|number| number.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == 3);
        numbers
            .map(Self)
            .ok_or_else(|| "a version has three numbers, as v1.37.1".to_owned())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "v{}", numbers.join("."))
    }
}

impl Version {
    /// The version that a directory of programs has in its name, where it has one.
    pub fn of(dir: &Path) -> Option<Self> {
        let name = dir.file_name()?.to_str()?;
        name.starts_with('v').then(|| name.parse().ok())?
    }
}

/// The directory of the latest version, or of one that is wanted.
pub fn cached(wanted: Option<&Version>) -> Result<PathBuf> {
    let dir = cache();
    choose(&dir, wanted).map_err(|failure| match anothers(&dir, wanted) {
        Some((user, found)) => failure.remedy(format!(
            "{user} has built one: take it by --kubernetes {}",
            found.display()
        )),
        None => failure,
    })
}

/// Where this user's programs are cached.
fn cache() -> PathBuf {
    let home = || env::var_os("HOME").map_or("/root".into(), PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    cache.join("crisp/kubernetes")
}

fn choose(dir: &Path, wanted: Option<&Version>) -> Result<PathBuf> {
    let there = versions(dir);
    let found = match wanted {
        Some(wanted) => there.iter().find(|version| *version == wanted),
        None => there.last(),
    };
    if let Some(found) = found {
        return Ok(dir.join(found.to_string()));
    }
    let has: Vec<String> = there.iter().map(ToString::to_string).collect();
    let dir = dir.display();
    let failure = match wanted {
        Some(wanted) if !has.is_empty() => Failure::new(format!(
            "{dir}: it has {}, and not {wanted}",
            has.join(", ")
        )),
        Some(wanted) => Failure::new(format!("{dir}: Kubernetes {wanted} is not there")),
        None => Failure::new(format!("{dir}: no version of Kubernetes is there")),
    };
    Err(failure.remedy(
        "`hack/tools cluster` builds the one that hack/tools.d/kubernetes/go.mod names; \
         --kubernetes DIR names a directory with its programs",
    ))
}

/// The versions in a cache, the latest one last. Other names are none.
fn versions(dir: &Path) -> Vec<Version> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<Version> = entries
        .filter_map(|entry| Version::of(&entry.path()))
        .collect();
    found.sort();
    found
}

/// The user who had sudo(8) run this, and what is in that user's cache. Programs of another user are run as root
/// only where they are named.
fn anothers(own: &Path, wanted: Option<&Version>) -> Option<(String, PathBuf)> {
    let user = env::var("SUDO_USER").ok()?;
    let users = fs::read_to_string(USERS).ok()?;
    let dir = home_of(&users, &user)?.join(".cache/crisp/kubernetes");
    if dir == own {
        return None;
    }
    let found = choose(&dir, wanted).ok()?;
    // Only what that user has built, and nobody put there.
    let builder = fs::metadata(&found).ok()?.uid();
    let is_users = number_of(&users, &user) == Some(builder) || builder == 0;
    is_users.then_some((user, found))
}

fn fields<'a>(users: &'a str, user: &str) -> Option<Vec<&'a str>> {
    let mut lines = users.lines().map(|line| line.split(':').collect());
    lines.find(|fields: &Vec<&str>| fields.first() == Some(&user))
}

fn home_of(users: &str, user: &str) -> Option<PathBuf> {
    let home = *fields(users, user)?.get(5)?;
    home.starts_with('/').then(|| home.into())
}

fn number_of(users: &str, user: &str) -> Option<u32> {
    fields(users, user)?.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(version("1.37.1"), version("v1.37.1"));
        assert_eq!(version("1.37.1").to_string(), "v1.37.1");
        assert!(version("v1.9.3") < version("v1.37.0"));
        for wrong in ["", "v1", "1.37", "1.37.1.2", "v1.37.x", "latest"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
        assert_eq!(
            Version::of(Path::new("/c/v1.37.1")),
            Some(version("1.37.1"))
        );
        for other in ["/c/1.37.1", "/c/.v1.37.1.tmp", "/"] {
            assert_eq!(Version::of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn the_latest_or_the_wanted_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let none = choose(dir.path(), None).unwrap_err().to_string();
        assert!(
            none.contains("no version") && none.contains("hack/tools cluster"),
            "{none}"
        );
        for name in ["v1.9.3", "v1.37.1", "v1.37.0", "x", "v2.x", ".v9.9.9.tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let chosen = |wanted: Option<&str>| choose(dir.path(), wanted.map(version).as_ref());
        assert_eq!(chosen(None).unwrap(), dir.path().join("v1.37.1"));
        assert_eq!(chosen(Some("1.9.3")).unwrap(), dir.path().join("v1.9.3"));
        let missing = chosen(Some("v1.36.0")).unwrap_err().to_string();
        assert!(
            missing.contains("it has v1.9.3, v1.37.0, v1.37.1, and not v1.36.0"),
            "{missing}"
        );
    }

    #[test]
    fn homes_are_where_the_machine_says() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann,,,:/srv/ann:/bin/sh\nbad:x\n";
        assert_eq!(home_of(users, "ann"), Some("/srv/ann".into()));
        assert_eq!(number_of(users, "ann"), Some(1000));
        for other in ["an", "bad", "", "x"] {
            assert_eq!(home_of(users, other), None, "{other}");
        }
    }
}
