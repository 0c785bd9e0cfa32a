//! Which process the outer crispd is: the one that was noted when it was started, or the one that its
//! lock names, where the note was never written.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_sys::file::lock_exclusive;
use crisp_sys::holder;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;

use crate::disk::write_private;
use crate::failure::{Context as _, Failure, Result};

/// How long the lock of a daemon that has ended may be held, by a child that it had just forked.
const GOES_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
const SIGTERM: i32 = 15;

/// The places by which the process is known.
#[derive(Debug)]
pub struct Process {
    note: PathBuf,
    lock: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Of the daemon with all that is its own in a directory.
    pub fn of(dir: &Path) -> Self {
        Self {
            note: dir.join("process.json"),
            lock: dir.join("root/crispd.lock"),
            log: dir.join("crispd.log"),
        }
    }

    /// The file in which it is noted.
    pub fn noted_in(&self) -> &Path {
        &self.note
    }

    /// Notes it, so that it can be ended.
    pub fn note(&self, pid: i32) -> Result<()> {
        let step = || "crispd: note its process".to_owned();
        let id = ProcessId::of(pid).context(step)?;
        let text = serde_json::to_vec(&id).context(step)?;
        write_private(&self.note, &text)
    }

    /// The process, when it lives.
    pub fn living(&self) -> Result<Option<ProcessId>> {
        Ok(self.noted()?.or_else(|| self.holder()))
    }

    /// Notes the one that its lock names, where the note is of none that lives.
    pub fn note_holder(&self) -> Result<()> {
        match (self.noted()?, self.holder()) {
            (None, Some(holder)) => self.note(holder.pid),
            _ => Ok(()),
        }
    }

    fn noted(&self) -> Result<Option<ProcessId>> {
        let step = || format!("{}: read which process crispd is", self.note.display());
        let text = match std::fs::read(&self.note) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(step),
        };
        // A note that cannot be read tells of nobody; the lock still does.
        let id: Option<ProcessId> = serde_json::from_slice(&text).ok();
        Ok(id.filter(ProcessId::is_alive))
    }

    fn holder(&self) -> Option<ProcessId> {
        let pid = holder::other(&self.lock)?;
        ProcessId::of(pid).ok()
    }

    /// Ends it where it lives, and waits until it is gone: nobody has its lock then.
    pub fn end(&self, within: Duration) -> Result<()> {
        let step = || "crispd: end it".to_owned();
        while let Some(id) = self.living()? {
            let Some(process) = PidFd::open_exact(&id).context(step)? else {
                continue;
            };
            process.signal(SIGTERM).context(step)?;
            if !process.ends_within(within).context(step)? {
                return Err(self.stays(&format!("process {} does not end", id.pid), within));
            }
        }
        let deadline = Instant::now() + GOES_WITHIN;
        while self.is_locked()? {
            if Instant::now() > deadline {
                let who = format!("an unknown process holds {}", self.lock.display());
                return Err(self.stays(&who, GOES_WITHIN));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn is_locked(&self) -> Result<bool> {
        if !self.lock.exists() {
            return Ok(false);
        }
        let locked = lock_exclusive(&self.lock);
        let locked = locked.context(|| format!("{}: look who holds it", self.lock.display()))?;
        Ok(locked.is_none())
    }

    fn stays(&self, who: &str, within: Duration) -> Failure {
        let text = format!("crispd: {who}, for {} s now", within.as_secs());
        Failure::new(text).remedy(format!(
            "kill it and do this again; its log is {}",
            self.log.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{make_dir, write};

    fn sleeper() -> std::process::Child {
        crisp_sys::process::command("sleep")
            .arg("20")
            .spawn()
            .unwrap()
    }

    fn pid(child: &std::process::Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    #[test]
    fn one_that_never_ran_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::of(dir.path());
        assert_eq!(process.living().unwrap(), None);
        process.end(GOES_WITHIN).unwrap();
        write(&dir.path().join("process.json"), b"{").unwrap();
        process.end(GOES_WITHIN).unwrap();
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::of(dir.path());
        let mut child = sleeper();
        let mut other = ProcessId::of(pid(&child)).unwrap();
        other.start_time += 1;
        write(&process.note, &serde_json::to_vec(&other).unwrap()).unwrap();
        process.end(GOES_WITHIN).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_was_never_noted_is_known_by_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::of(dir.path());
        make_dir(&dir.path().join("root")).unwrap();
        let mut child = sleeper();
        let id = ProcessId::of(pid(&child)).unwrap();
        let name = format!("{} {}\n", id.pid, id.start_time);
        write(&process.lock, name.as_bytes()).unwrap();
        assert_eq!(process.living().unwrap(), Some(id));
        process.note_holder().unwrap();
        assert_eq!(process.noted().unwrap(), Some(id));
        std::fs::remove_file(&process.note).unwrap();
        process.end(Duration::from_secs(10)).unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_lock_that_somebody_holds_is_told_and_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::of(dir.path());
        make_dir(&dir.path().join("root")).unwrap();
        let held = lock_exclusive(&process.lock).unwrap().unwrap();
        let refused = process.end(GOES_WITHIN).unwrap_err().to_string();
        assert!(refused.contains("crispd.lock"), "{refused}");
        drop(held);
        process.end(GOES_WITHIN).unwrap();
    }
}
