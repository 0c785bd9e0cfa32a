//! Processes at rest: spawning helpers, identity by pid and start time, reaping, attributes.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, getpid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::syscall::{check, check_int};

/// A command with an empty environment but for `PATH`; every other descriptor of this process is
/// close-on-exec by birth. Its process has this thread's signal mask: see [`reset_signals`].
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the one spawn helper")]
    let mut command = Command::new(program);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Has a command's process begin with no signal blocked or ignored, for callers that block signals.
/// Like execvp(3), and unlike [`command`] alone, it gives a file that the kernel cannot execute to a
/// shell.
pub fn reset_signals(command: &mut Command) {
    // SAFETY: between fork and exec it makes system calls alone, allocates nothing and takes no lock.
    unsafe { command.pre_exec(crate::signals::reset) };
}

/// Has a command's process killed when the thread that spawns it ends.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let step = move || {
        set_parent_death_signal(Signal::KILL.as_raw())?;
        // The parent may have ended before the kernel was told (prctl(2)). One outside of the child's PID
        // namespace is 0 there, alive or not (pid_namespaces(7)).
        match std::os::unix::process::parent_id() {
            0 => Ok(()),
            now if now == parent => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: between fork and exec it makes two system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(step) };
}

/// A process that can be recognised later: a pid alone may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// Host pid.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of a running process.
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: Stat::read(pid)?.start_time,
        })
    }

    /// Whether exactly this process exists and is no zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| {
            stat.start_time == self.start_time && !matches!(stat.state, b'Z' | b'X')
        })
    }
}

/// The number of `CAP_SYS_PTRACE`.
const SYS_PTRACE: u32 = 19;

/// How a process ended that its parent has not reaped yet: whoever may trace it can read that, at
/// once and on every kernel, while its parent takes its time. `None` when it is not known.
#[must_use]
pub fn status_of_zombie(id: &ProcessId) -> Option<WaitStatus> {
    // To others the kernel shows 0 for it, which would read as success.
    let may_read = crate::caps::permitted().is_ok_and(|caps| caps.has(SYS_PTRACE));
    let text = std::fs::read_to_string(format!("/proc/{}/stat", id.pid)).ok()?;
    let stat = Stat::parse(&text)?;
    if !may_read || stat.start_time != id.start_time || stat.state != b'Z' {
        return None;
    }
    let word = text.rsplit_once(')')?.1.split_whitespace().nth(49)?;
    WaitStatus::from_word(word.parse().ok()?)
}

/// The fields of `/proc/PID/stat` that Crisp uses (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter, `R`, `S`, `Z`…
    pub state: u8,
    /// Parent's pid.
    pub ppid: i32,
    /// Process group id.
    pub group: i32,
    /// Session id.
    pub session: i32,
    /// Clock ticks since boot at which it started.
    pub start_time: u64,
}

impl Stat {
    /// Reads a process' stat line.
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn read(pid: i32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
    }

    /// The command name may hold spaces and parentheses: fields count from the last `)`.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            ppid: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

/// How a process ended, as wait(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// `exit(2)` with this code.
    Code(u8),
    /// Ended by this signal.
    Signal(i32),
}

impl WaitStatus {
    /// From the status word of wait(2); `None` for stops and continues.
    #[must_use]
    pub fn from_word(word: i32) -> Option<Self> {
        if libc::WIFEXITED(word) {
            Some(Self::Code(
                u8::try_from(libc::WEXITSTATUS(word) & 0xff).unwrap_or(255),
            ))
        } else if libc::WIFSIGNALED(word) {
            Some(Self::Signal(libc::WTERMSIG(word)))
        } else {
            None
        }
    }
}

/// Reaps one ended child, if there is one.
///
/// # Errors
/// The errors of waitpid(2), but for "no children", which is `None`.
pub fn reap_any() -> io::Result<Option<(i32, WaitStatus)>> {
    reaped(rustix::process::wait(WaitOptions::NOHANG))
}

/// Reaps this child if it has ended.
///
/// # Errors
/// The errors of waitpid(2), but for "no children", which is `None`.
pub fn reap(pid: i32) -> io::Result<Option<(i32, WaitStatus)>> {
    // Without a pid, waitpid would wait for the process group.
    let child = Pid::from_raw(pid.max(0)).ok_or(io::ErrorKind::InvalidInput)?;
    reaped(waitpid(Some(child), WaitOptions::NOHANG))
}

fn reaped(
    ended: rustix::io::Result<Option<(Pid, rustix::process::WaitStatus)>>,
) -> io::Result<Option<(i32, WaitStatus)>> {
    match ended {
        Ok(ended) => Ok(ended.and_then(|(pid, status)| {
            let status = WaitStatus::from_word(status.as_raw())?;
            Some((pid.as_raw_nonzero().get(), status))
        })),
        Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until this child has ended.
///
/// # Errors
/// The errors of waitpid(2).
pub fn wait(pid: i32) -> io::Result<WaitStatus> {
    let child = Pid::from_raw(pid.max(0)).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(status) = WaitStatus::from_word(status.as_raw()) {
                    return Ok(status);
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether this process has but one thread. The kernel tells it for less than procfs does, which has
/// to make the entries of a new process first: to leave a group of threads changes nothing for a
/// thread that is alone in it, and is refused to others.
///
/// # Errors
/// Where unshare(2) is forbidden and procfs is not mounted.
pub fn has_one_thread() -> io::Result<bool> {
    match nix::sched::unshare(nix::sched::CloneFlags::CLONE_THREAD) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EINVAL) => Ok(false),
        // A directory has two links and one more for each directory in it: here, for each thread.
        Err(_) => Ok(std::fs::metadata("/proc/self/task")?.nlink() == 3),
    }
}

/// The number of this process's group; `None` where the group was made outside of this PID namespace, in
/// which it has none.
#[must_use]
pub fn own_group() -> Option<i32> {
    let group = nix::unistd::getpgrp().as_raw();
    (group > 0).then_some(group)
}

/// Orphans below this process become its children.
///
/// # Errors
/// EINVAL before Linux 3.4.
pub fn set_child_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// No execve of this thread or its children grants privileges any more.
///
/// # Errors
/// EINVAL before Linux 3.5.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Whether others may trace this process and open its `/proc` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dumpable {
    /// As usual.
    Yes,
    /// Only root of the initial user namespace.
    No,
}

/// Sets whether this process can be traced and its `/proc` files opened.
///
/// # Errors
/// The errors of prctl(2), which accepts both values.
pub fn set_dumpable(dumpable: Dumpable) -> io::Result<()> {
    let behavior = match dumpable {
        Dumpable::Yes => DumpableBehavior::Dumpable,
        Dumpable::No => DumpableBehavior::NotDumpable,
    };
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

/// Whether this process can be traced now.
///
/// # Errors
/// The errors of prctl(2).
pub fn dumpable() -> io::Result<Dumpable> {
    Ok(match rustix::process::dumpable_behavior()? {
        DumpableBehavior::Dumpable => Dumpable::Yes,
        _ => Dumpable::No,
    })
}

/// This process gets the signal when its parent ends.
///
/// # Errors
/// `InvalidInput` when the number has no name in signal(7).
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::set_parent_process_death_signal(Some(
        signal,
    ))?)
}

/// The name that `ps` and `/proc/PID/comm` show; 15 bytes of it.
///
/// # Errors
/// The errors of prctl(2).
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Sets `oom_score_adj` of a process and returns the value in force: lowering it without
/// `CAP_SYS_RESOURCE` is refused, then the present value stays.
///
/// # Errors
/// When the process is gone.
pub fn set_oom_score_adj(pid: i32, value: i32) -> io::Result<i32> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()));
    match written {
        Ok(()) => Ok(value),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
            let present = std::fs::read_to_string(&path)?;
            present.trim().parse().map_err(io::Error::other)
        }
        Err(error) => Err(error),
    }
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// Before Linux 5.11, without a procfs at `/proc`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. For a forked child that will not return to code that
/// owns descriptors.
///
/// # Errors
/// Before Linux 5.9, without a procfs at `/proc`.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

/// Closes every descriptor from `first` on but these. For a forked child that will not return to
/// code that owns other descriptors.
///
/// # Errors
/// Before Linux 5.9, without a procfs at `/proc`.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = kept
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    numbers.sort_unstable();
    let mut next = first;
    for number in numbers.into_iter().filter(|number| *number >= first) {
        if next < number {
            close_between(next, number - 1, 0)?;
        }
        next = number + 1;
    }
    close_between(next, u32::MAX, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    close_between(first, u32::MAX, flags)
}

fn close_between(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: closing is the caller's documented intent; no memory is touched.
    let closed = check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) });
    match closed.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) => Ok(()),
        // The call or its flag is newer than the kernel, or a filter of the machine hides it.
        Err((Some(libc::ENOSYS | libc::EINVAL | libc::EPERM), _)) => {
            close_one_by_one(first, last, flags)
        }
        Err((_, error)) => Err(error),
    }
}

fn close_one_by_one(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        numbers.extend(number.filter(|number| (first..=last).contains(number)));
    }
    for number in numbers {
        let number = i32::try_from(number).map_err(io::Error::other)?;
        // SAFETY: as above. The listing's own descriptor is closed by now, so that one fails.
        unsafe {
            if flags == libc::CLOSE_RANGE_CLOEXEC {
                libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            } else {
                libc::close(number);
            }
        }
    }
    Ok(())
}

/// Makes `fd` the descriptor number `number` of this process, open across exec: 0, 1 or 2.
///
/// # Errors
/// `InvalidInput` for another number, else those of dup2(2).
pub fn place(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return Ok(fcntl_setfd(fd, FdFlags::empty())?);
    }
    match number {
        0 => dup2_stdin(fd)?,
        1 => dup2_stdout(fd)?,
        2 => dup2_stderr(fd)?,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(())
}

/// Makes the number of `old` stand for what `fd` stands for, in this process; what `old` stood for
/// is closed.
///
/// # Errors
/// The errors of dup3(2).
pub fn place_over(fd: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::O_CLOEXEC;
    // SAFETY: dup3 on descriptors that are borrowed for the call; `old` stays a valid number.
    check_int(unsafe { libc::dup3(fd.as_raw_fd(), old.as_raw_fd(), flags) }).map(drop)
}

/// Replaces this process' program; returns only on failure.
#[must_use]
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    match nix::unistd::execve(path, arguments, environment) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}

/// Ends this process at once: no destructors, no atexit handlers. For forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Starts a session with this process as leader.
///
/// # Errors
/// When it leads a process group already.
pub fn set_sid() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Sets the file mode creation mask; the value is the one before.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).bits()
}

/// Changes the working directory.
///
/// # Errors
/// The errors of chdir(2).
pub fn change_dir(path: &Path) -> io::Result<()> {
    Ok(rustix::process::chdir(path)?)
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
