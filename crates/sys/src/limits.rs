//! Resource limits (getrlimit(2)).

use std::io;

use crate::syscall::check_int;

/// The number of a limit by its name, `RLIMIT_NOFILE` and so on.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    Some(match name {
        "RLIMIT_CPU" => 0,
        "RLIMIT_FSIZE" => 1,
        "RLIMIT_DATA" => 2,
        "RLIMIT_STACK" => 3,
        "RLIMIT_CORE" => 4,
        "RLIMIT_RSS" => 5,
        "RLIMIT_NPROC" => 6,
        "RLIMIT_NOFILE" => 7,
        "RLIMIT_MEMLOCK" => 8,
        "RLIMIT_AS" => 9,
        "RLIMIT_LOCKS" => 10,
        "RLIMIT_SIGPENDING" => 11,
        "RLIMIT_MSGQUEUE" => 12,
        "RLIMIT_NICE" => 13,
        "RLIMIT_RTPRIO" => 14,
        "RLIMIT_RTTIME" => 15,
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
pub fn set(number: u32, soft: u64, hard: u64) -> io::Result<Set> {
    match set_exact(number, soft, hard) {
        Ok(()) => Ok(Set::Whole),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let present = hard_limit(number)?;
            set_exact(number, soft.min(present), hard.min(present))?;
            Ok(Set::Clamped)
        }
        Err(error) => Err(error),
    }
}

fn set_exact(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the struct outlives the call.
    check_int(unsafe { libc::setrlimit(number, &raw const limit) }).map(drop)
}

fn hard_limit(number: u32) -> io::Result<u64> {
    Ok(read(number)?.rlim_max)
}

fn read(number: u32) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct outlives the call.
    check_int(unsafe { libc::getrlimit(number, &raw mut limit) })?;
    Ok(limit)
}

/// Raises the soft limit of open files to the hard one: a daemon that holds many pods needs them.
/// Returns the soft limit as it was: programs that use select(2), or close all that could be open,
/// count on a low one, so containers are to get it back by [`restore_open_files`].
///
/// # Errors
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let number = libc::RLIMIT_NOFILE;
    let born = read(number)?;
    set_exact(number, born.rlim_max, born.rlim_max)?;
    Ok(born.rlim_cur)
}

/// Sets the soft limit of open files, as far as the hard one allows; that stays.
///
/// # Errors
/// Those of setrlimit(2).
pub fn restore_open_files(soft: u64) -> io::Result<()> {
    let number = libc::RLIMIT_NOFILE;
    let hard = hard_limit(number)?;
    set_exact(number, soft.min(hard), hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_goes_up_and_back() {
        let soft = || read(libc::RLIMIT_NOFILE).unwrap().rlim_cur;
        let hard = hard_limit(libc::RLIMIT_NOFILE).unwrap();
        let low = soft().min(512);
        restore_open_files(low).unwrap();
        assert_eq!(raise_open_files().unwrap(), low);
        assert_eq!(soft(), hard);
        assert_eq!(raise_open_files().unwrap(), hard);
        restore_open_files(u64::MAX).unwrap();
        assert_eq!(hard_limit(libc::RLIMIT_NOFILE).unwrap(), hard);
    }
}
