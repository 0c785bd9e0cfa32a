//! The holder of a lock names itself in the locked file, so that whoever finds the lock taken knows
//! whether to wait. The lock decides, and the name only explains it: the lock may outlive the
//! holder for a moment, in a child that was forked before the holder was killed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::owned;
use crate::process::ProcessId;

/// A name is one line: a pid and its start time.
const LONGEST: u64 = 64;
/// A process that was just killed has gone by then.
const GOES_WITHIN: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);

/// Writes into a locked file that this process holds it and will go on to.
///
/// # Errors
/// When the disk fails: others do not know then whether to wait.
pub fn name(locked: &File) -> io::Result<()> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let ProcessId { pid, start_time } = ProcessId::of(pid)?;
    unname(locked)?;
    locked.write_all_at(format!("{pid} {start_time}\n").as_bytes(), 0)
}

/// Takes the name away: the lock will be free soon, and others shall wait for it.
///
/// # Errors
/// When the disk fails.
pub fn unname(locked: &File) -> io::Result<()> {
    locked.set_len(0)
}

/// The other process that named itself in a file, if it lives and goes on to. Blocks while one that
/// was killed goes.
#[must_use]
pub fn other(path: &Path) -> Option<i32> {
    let deadline = Instant::now() + GOES_WITHIN;
    loop {
        let holder = read(path).filter(ProcessId::is_alive)?;
        if u32::try_from(holder.pid) == Ok(std::process::id()) {
            return None;
        }
        if Instant::now() > deadline {
            return Some(holder.pid);
        }
        std::thread::sleep(PAUSE);
    }
}

fn read(path: &Path) -> Option<ProcessId> {
    let bytes = owned::read(path, LONGEST).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let (pid, start_time) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(ProcessId {
        pid: pid.parse().ok()?,
        start_time: start_time.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock_exclusive;
    use crate::process::command;

    #[test]
    fn a_holder_is_known_as_long_as_it_lives_and_stays() {
        let name_of_test = format!("crisp-holder-{}", std::process::id());
        let path = std::env::temp_dir().join(name_of_test);
        let locked = lock_exclusive(&path).unwrap().unwrap();
        assert_eq!(other(&path), None, "not named yet");
        name(&locked).unwrap();
        let own = read(&path).unwrap();
        assert_eq!(u32::try_from(own.pid), Ok(std::process::id()));
        assert_eq!(other(&path), None, "no other process");
        let mut child = command("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ProcessId { start_time, .. } = ProcessId::of(pid).unwrap();
        let write = |text: String| locked.write_all_at(text.as_bytes(), 0);
        unname(&locked).unwrap();
        write(format!("{pid} {start_time}\n")).unwrap();
        assert_eq!(other(&path), Some(pid));
        for no_name in [
            format!("{pid} {}\n", start_time + 1),
            format!("{pid} {start_time}"),
            format!("{pid}\n"),
            "x".repeat(100),
        ] {
            unname(&locked).unwrap();
            write(no_name.clone()).unwrap();
            assert_eq!(other(&path), None, "{no_name}");
        }
        unname(&locked).unwrap();
        write(format!("{pid} {start_time}\n")).unwrap();
        child.kill().unwrap();
        assert_eq!(other(&path), None, "killed");
        child.wait().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
