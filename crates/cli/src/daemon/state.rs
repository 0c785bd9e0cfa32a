//! The state of the outer crispd: sockets and bundles, which are of one boot. Elsewhere they are on a tmpfs; here
//! they are on the disk of clusters, and go before the first start after a boot.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::failure::{Context as _, Result};

/// Mounts of this program's namespace (proc(5)).
const MOUNTS: &str = "/proc/self/mountinfo";
/// Seconds since the boot, as the first word.
const UPTIME: &str = "/proc/uptime";

/// Removes a state that a former boot has left. Its crispd does not run, and has noted itself in a file.
pub fn begin_anew(state: &Path, note: &Path) -> Result<()> {
    let noted = fs::metadata(note).and_then(|data| data.modified()).ok();
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    if !is_former(noted, booted()) || has_mounts(&mounts, state) {
        return Ok(());
    }
    crisp_sys::file::remove_tree_if_there(state)
        .context(|| format!("{}: remove it", state.display()))
}

/// When this boot began.
fn booted() -> Option<SystemTime> {
    let text = fs::read_to_string(UPTIME).ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    SystemTime::now().checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Whether a time is before the boot. Times that are not known are no reason to remove anything.
fn is_former(noted: Option<SystemTime>, booted: Option<SystemTime>) -> bool {
    noted
        .zip(booted)
        .is_some_and(|(noted, booted)| noted < booted)
}

/// Whether something is mounted below a directory: no mount outlives a boot.
fn has_mounts(mounts: &str, dir: &Path) -> bool {
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places
        .into_iter()
        .any(|place| Path::new(place).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    #[test]
    fn only_a_state_of_a_former_boot_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (state, note) = (dir.path().join("state"), dir.path().join("process.json"));
        fs::create_dir_all(state.join("pods/x")).unwrap();
        begin_anew(&state, &note).unwrap();
        assert!(state.exists(), "nobody knows when it ran");
        write(&note, b"").unwrap();
        begin_anew(&state, &note).unwrap();
        assert!(state.exists(), "it ran in this boot");
        let before = booted().unwrap() - Duration::from_secs(60);
        let file = fs::File::options().write(true).open(&note).unwrap();
        file.set_modified(before).unwrap();
        begin_anew(&state, &note).unwrap();
        assert!(!state.exists());
        begin_anew(&state, &note).unwrap();
    }

    #[test]
    fn mounts_below_it_are_seen() {
        let mounts =
            "22 1 0:21 / /proc rw - proc proc rw\n23 1 0:22 / /d/state/x rw - tmpfs t rw\n";
        assert!(has_mounts(mounts, Path::new("/d/state")));
        for other in ["/d/stat", "/d/state/y", "/e"] {
            assert!(!has_mounts(mounts, Path::new(other)), "{other}");
        }
    }
}
