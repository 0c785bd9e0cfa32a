//! Resource limits (getrlimit(2)).

use std::io;
use std::sync::{Mutex, PoisonError};

pub use rustix::process::Resource;
use rustix::process::{Rlimit, getrlimit, setrlimit};

/// A limit by its name, `RLIMIT_NOFILE` and so on.
#[must_use]
pub fn by_name(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

/// Whether a limit was set as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// As asked.
    Whole,
    /// Raising the hard limit was refused: the soft limit is as near as the hard one allows.
    Clamped,
}

/// Sets a limit of this process, clamped to the present hard limit when raising is refused.
///
/// # Errors
/// EINVAL when soft is above hard.
pub fn set(resource: Resource, soft: u64, hard: u64) -> io::Result<Set> {
    match set_exact(resource, soft, hard) {
        Ok(()) => Ok(Set::Whole),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let (_, present) = read(resource);
            set_exact(resource, soft.min(present), hard.min(present))?;
            Ok(Set::Clamped)
        }
        Err(error) => Err(error),
    }
}

fn set_exact(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let [current, maximum] = [soft, hard].map(|value| (value != u64::MAX).then_some(value));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

/// Soft and hard limit; without one it is the largest number (getrlimit(2)).
fn read(resource: Resource) -> (u64, u64) {
    let limit = getrlimit(resource);
    let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
    (number(limit.current), number(limit.maximum))
}

/// The hard limit of open files of this process.
#[must_use]
pub fn most_open_files() -> u64 {
    read(Resource::Nofile).1
}

/// Raises the soft limit of open files almost to the hard one: a daemon that holds many pods needs
/// them; the rest is a [`Reserve`]. Returns the soft limit as it was: programs that use select(2),
/// or close all that could be open, count on a low one, so containers are to get it back by
/// [`restore_open_files`].
///
/// # Errors
/// The errors of setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = read(Resource::Nofile);
    set_exact(Resource::Nofile, without_reserve(hard), hard)?;
    Ok(soft)
}

fn without_reserve(hard: u64) -> u64 {
    hard - RESERVED.min(hard / 4)
}

/// Open files that are kept back for removals.
const RESERVED: u64 = 32;

/// Open files that are lent to whoever gives some back: without them a process at its limit could
/// not even remove what holds them.
#[derive(Debug, Default)]
pub struct Reserve {
    lent: Mutex<u32>,
}

/// The reserve in use, until it is dropped.
#[derive(Debug)]
pub struct Lent<'a>(&'a Reserve);

impl Reserve {
    /// Lets the process open the reserved files too.
    #[must_use]
    pub fn lend(&self) -> Lent<'_> {
        self.count(1);
        Lent(self)
    }

    fn count(&self, change: i32) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *lent;
        *lent = before.saturating_add_signed(change);
        if (before == 0) != (*lent == 0) {
            let (_, hard) = read(Resource::Nofile);
            let soft = if *lent == 0 {
                without_reserve(hard)
            } else {
                hard
            };
            // A daemon that cannot have the reserve works on without it.
            set_exact(Resource::Nofile, soft, hard).ok();
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.count(-1);
    }
}

/// Sets the soft limit of open files, as far as the hard one allows; that stays.
///
/// # Errors
/// The errors of setrlimit(2).
pub fn restore_open_files(soft: u64) -> io::Result<()> {
    let (_, hard) = read(Resource::Nofile);
    set_exact(Resource::Nofile, soft.min(hard), hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_goes_up_and_back() {
        let soft = || read(Resource::Nofile).0;
        let hard = read(Resource::Nofile).1;
        let low = soft().min(512);
        restore_open_files(low).unwrap();
        assert_eq!(raise_open_files().unwrap(), low);
        let raised = soft();
        assert!(
            raised < hard && hard - raised <= RESERVED,
            "{raised} of {hard}"
        );
        let reserve = Reserve::default();
        let lent = [reserve.lend(), reserve.lend()];
        assert_eq!(soft(), hard);
        let [first, last] = lent;
        drop(first);
        assert_eq!(soft(), hard, "it is lent still");
        drop(last);
        assert_eq!(soft(), raised);
        assert_eq!(raise_open_files().unwrap(), raised);
        restore_open_files(u64::MAX).unwrap();
        assert_eq!(read(Resource::Nofile).1, hard);
    }
}
