//! Runs one plugin program: writes its input, reads its output, and kills it at the deadline.
//!
//! One loop polls the program's pipes and its pidfd, so that no further thread is needed. It blocks
//! the calling thread for as long as the program runs.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crisp_sys::pidfd::PidFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::group;

const MOST_STDOUT: usize = 4 << 20;
const MOST_STDERR: usize = 64 << 10;
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The end of a program.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It exited.
    Done {
        /// `None` when another part of this process reaped it first, and the status is lost.
        status: Option<ExitStatus>,
        stdout: Vec<u8>,
        stderr: Vec<u8>,
    },
    /// It did not exit by the deadline, and was killed with all of its process group.
    Hung,
    /// It cannot be started.
    NotStarted(io::Error),
}

/// The program's stdout or stderr, and the bytes read from it.
struct Output<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
    most: usize,
}

impl<R: Read + AsFd> Output<R> {
    fn new(pipe: Option<R>, most: usize) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
            most,
        })
    }

    /// Reads until the pipe is empty; bytes over the limit are dropped.
    fn drain(&mut self) {
        let mut chunk = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(n) => {
                    let room = self.most.saturating_sub(self.bytes.len()).min(n);
                    self.bytes.extend_from_slice(&chunk[..room]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

fn spawn(program: &Path, env: &[(&str, String)]) -> io::Result<Child> {
    let mut command = crisp_sys::process::command(program);
    command
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0);
    let mut tries = 0;
    loop {
        match command.spawn() {
            // ETXTBSY: the program is being installed, or a fork of this process still holds a
            // descriptor by which it was written.
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

fn write_some<'a>(pipe: &mut impl Write, mut rest: &'a [u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        match pipe.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Some(rest),
            // A program may end without reading its input.
            Err(_) => return None,
        }
    }
    None
}

fn wait(fds: &[(BorrowedFd<'_>, PollFlags)], left: Duration) -> io::Result<()> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
        .collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Ends the program and all that it started to do its work.
fn end_group(child: &mut Child) -> Option<ExitStatus> {
    let mut status = None;
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match leader {
        Some(leader) => group::end(leader, || status = child.wait().ok()),
        None => status = child.wait().ok(),
    }
    status
}

/// Whether it was killed, while it is not reaped.
fn was_killed(pidfd: &io::Result<PidFd>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let ended = pidfd
        .as_ref()
        .ok()
        .map(|fd| waitid(WaitId::PidFd(fd.as_fd()), options));
    matches!(ended, Some(Ok(Some(end))) if end.killed() || end.dumped())
}

/// Runs a program to its end or to the deadline.
///
/// # Errors
/// When it cannot be watched.
pub(crate) fn run(
    program: &Path,
    env: &[(&str, String)],
    input: &[u8],
    timeout: Duration,
) -> io::Result<Outcome> {
    let deadline = Instant::now() + timeout;
    let mut child = match spawn(program, env) {
        Ok(child) => child,
        Err(why) => return Ok(Outcome::NotStarted(why)),
    };
    let pidfd = PidFd::open(i32::try_from(child.id()).unwrap_or(0));
    let mut stdin = child.stdin.take();
    if let Some(pipe) = &stdin {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let mut stdout = Output::new(child.stdout.take(), MOST_STDOUT)?;
    let mut stderr = Output::new(child.stderr.take(), MOST_STDERR)?;
    let mut rest = input;
    let has_exited = |pidfd: &io::Result<PidFd>| pidfd.as_ref().map_or(true, PidFd::has_exited);
    while !has_exited(&pidfd) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            end_group(&mut child);
            return Ok(Outcome::Hung);
        }
        if let Some(pipe) = &mut stdin {
            match write_some(pipe, rest) {
                Some(unwritten) => rest = unwritten,
                None => stdin = None,
            }
        }
        stdout.drain();
        stderr.drain();
        let reading = PollFlags::IN | PollFlags::HUP;
        let mut fds = Vec::with_capacity(4);
        fds.extend(pidfd.as_ref().ok().map(|fd| (fd.as_fd(), PollFlags::IN)));
        fds.extend(stdin.as_ref().map(|fd| (fd.as_fd(), PollFlags::OUT)));
        fds.extend(stdout.pipe.as_ref().map(|fd| (fd.as_fd(), reading)));
        fds.extend(stderr.pipe.as_ref().map(|fd| (fd.as_fd(), reading)));
        wait(&fds, left)?;
    }
    drop(stdin);
    // A program that was killed has children that do not know: they would go on with what it is
    // asked to undo next.
    let status = match was_killed(&pidfd) {
        true => end_group(&mut child),
        false => child.wait().ok(),
    };
    stdout.drain();
    stderr.drain();
    Ok(Outcome::Done {
        status,
        stdout: stdout.bytes,
        stderr: stderr.bytes,
    })
}

/// An exit status as a text.
pub(crate) fn describe(status: Option<ExitStatus>) -> String {
    match status {
        None => "exit status lost".into(),
        Some(status) => match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => format!("exit status {}", status.code().unwrap_or(-1)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: u64) -> Outcome {
        let env = [("SCRIPT", script.to_owned())];
        let program = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let text = "#!/bin/sh\neval \"$SCRIPT\"\n";
        crisp_sys::file::write_atomic(&program, text.as_bytes(), 0o700).unwrap();
        let input = vec![b'x'; 200_000];
        run(&program, &env, &input, Duration::from_millis(timeout)).unwrap()
    }

    #[test]
    fn large_input_and_output_pass_at_once() {
        let Outcome::Done {
            status,
            stdout,
            stderr,
        } = shell("cat; echo note >&2", 10_000)
        else {
            panic!("hung");
        };
        assert!(status.unwrap().success());
        assert_eq!((stdout.len(), stderr.as_slice()), (200_000, &b"note\n"[..]));
    }

    #[test]
    fn unread_input_is_no_error_and_a_child_left_behind_no_wait() {
        let start = Instant::now();
        let Outcome::Done { status, stdout, .. } = shell("sleep 3 & echo out; exit 3", 10_000)
        else {
            panic!("hung");
        };
        assert_eq!(
            (status.unwrap().code(), stdout.as_slice()),
            (Some(3), &b"out\n"[..])
        );
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    /// Runs a script that has a child, and proves that the child is gone with it.
    fn with_child(script: &str, timeout: u64) -> Outcome {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let outcome = shell(&format!("sleep 60 & echo $! > {path}\n{script}"), timeout);
        let child = std::fs::read_to_string(file.path()).unwrap();
        let child: i32 = child.trim().parse().unwrap();
        let stat = crisp_sys::process::Stat::read(child);
        let is_over = |stat: &crisp_sys::process::Stat| stat.state == b'Z';
        assert!(stat.as_ref().map_or(true, is_over), "{stat:?}");
        outcome
    }

    #[test]
    fn a_program_that_is_killed_takes_its_children_along() {
        assert!(matches!(with_child("sleep 60", 200), Outcome::Hung));
        let outcome = with_child("kill -9 $$", 10_000);
        let Outcome::Done { status, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(status.unwrap().signal(), Some(9));
    }
}
