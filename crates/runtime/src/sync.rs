//! The conversation between the parent and the child that becomes the container's init.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crisp_sys::mount::Depth;
use crisp_sys::signals::SignalFd;
use crisp_sys::socket::Conn;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// A message of either side.
#[derive(Debug)]
pub(crate) enum Word {
    /// Parent: cgroup and hooks are done, go on. Child: I wait for the hooks.
    Proceed,
    /// Child: set up, waiting at the gate.
    Ready,
    /// Parent: start the program.
    Start,
    /// First child of two: the container's init is this one.
    Init(OwnedFd),
    /// Child: clone this tree of the host for me.
    Lend(PathBuf, Depth),
    /// Parent: here it is.
    Lent(OwnedFd),
    /// Child: my filter is loaded, and tells of calls on the descriptor of mine with this number.
    Listens(i32),
    /// Child: the master of my terminal.
    Console(OwnedFd),
    /// Child: something that was not done to the letter.
    Warning(String),
    /// Child: this failed.
    Failed(Error),
}

/// In the child: gives up the parent's end, of which the fork made a copy. Only then does the
/// child notice that the parent is gone.
pub(crate) fn let_go_of(ours: &Conn, theirs: &Conn) -> Result<()> {
    // Safe Rust has no way to close what it borrows: the copy becomes another of our own end.
    crisp_sys::process::place_over(theirs.as_fd(), ours.as_fd())
        .context(|| "let go of the parent's socket")
}

const MAX: usize = 64 * 1024;
/// The parent's words without descriptors are one letter.
const MAX_PLAIN: usize = 16;

/// Most children answer sooner, and cost one system call more.
const MOMENT: Duration = Duration::from_millis(500);

/// Words that need no descriptor travel by write(2): under a filter that knows but the calls of its
/// program, sendmsg(2) may be refused.
pub(crate) fn say(conn: &Conn, word: &Word) -> io::Result<()> {
    match word {
        Word::Proceed => conn.write(b"p"),
        Word::Ready => conn.write(b"r"),
        Word::Start => conn.write(b"s"),
        Word::Listens(descriptor) => conn.write(format!("l{descriptor}").as_bytes()),
        Word::Init(pidfd) => conn.send(b"i", &[pidfd.as_fd()]),
        Word::Lend(path, depth) => {
            let kind: &[u8] = match depth {
                Depth::Single => b"1",
                Depth::Recursive => b"R",
            };
            conn.write(&[kind, path.as_os_str().as_bytes()].concat())
        }
        Word::Lent(tree) => conn.send(b"t", &[tree.as_fd()]),
        Word::Console(master) => conn.send(b"c", &[master.as_fd()]),
        Word::Warning(text) => conn.write(format!("w{text}").as_bytes()),
        Word::Failed(Error::Program(text)) => conn.write(format!("x{text}").as_bytes()),
        Word::Failed(Error::NotRunning) => conn.write(b"n"),
        Word::Failed(Error::Setup {
            step,
            message,
            errno,
        }) => {
            let errno = errno.unwrap_or_default();
            conn.write(format!("e{errno}\0{step}\0{message}").as_bytes())
        }
        Word::Failed(other) => conn.write(format!("e0\0set up\0{other}").as_bytes()),
    }
}

/// In the child, also under its filter: the next word, which comes without descriptors; `None` when the
/// parent is gone.
pub(crate) fn hear_plainly(conn: &Conn) -> Result<Option<Word>> {
    let received = received(|| conn.read(MAX_PLAIN), "hear from the runtime")?;
    Ok(received.map(|bytes| word(&bytes, Vec::new())))
}

/// The next message, as `receive` waits for it; `None` when the other side has closed.
fn received<T>(receive: impl Fn() -> io::Result<Option<T>>, step: &str) -> Result<Option<T>> {
    loop {
        match receive() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.context(|| step),
        }
    }
}

/// In the child: waits until the parent lets it go on.
pub(crate) fn proceed(conn: &Conn) -> Result<()> {
    match hear_plainly(conn)? {
        Some(Word::Proceed) => Ok(()),
        _ => Err(Error::Vanished("the runtime is gone".to_owned())),
    }
}

/// In the child: whether the parent is there. When the parent was killed, the program must not run.
pub(crate) fn still_wanted(conn: &Conn) -> Result<()> {
    let at_once = Timespec::default();
    let mut fds = [PollFd::new(conn, PollFlags::IN)];
    let said = rustix::event::poll(&mut fds, Some(&at_once)).map_err(io::Error::from);
    match said.context(|| "look at the runtime's socket")? {
        0 => Ok(()),
        _ => Err(Error::Vanished("the runtime is gone".to_owned())),
    }
}

/// In the parent: the next word, as with [`hear`]. A wait of more than a moment ends when this
/// process is asked to end while it blocks the signals for that, and when the child is silent for
/// too long.
pub(crate) fn hear_from_child(conn: &Conn, within: Option<Duration>) -> Result<Option<Word>> {
    let mut fds = [PollFd::new(conn, PollFlags::IN)];
    if await_any(&mut fds, Some(MOMENT))? == 0 {
        let ends = SignalFd::of_ends().context(|| "watch for signals")?;
        let mut fds = [
            PollFd::new(conn, PollFlags::IN),
            PollFd::new(&ends, PollFlags::IN),
        ];
        let ready = await_any(&mut fds, within)?;
        let why = match (ready, fds[0].revents().is_empty()) {
            (0, _) => "it does not answer: it may wait for a file system, or be frozen",
            (_, true) => "this process is asked to end",
            (_, false) => return hear(conn),
        };
        return Err(Error::setup("wait for the container's init", why));
    }
    hear(conn)
}

fn await_any(fds: &mut [PollFd<'_>], within: Option<Duration>) -> Result<usize> {
    let within = within.map(Timespec::try_from).transpose();
    let within = within
        .map_err(io::Error::other)
        .context(|| "tell the time")?;
    loop {
        match rustix::event::poll(fds, within.as_ref()) {
            Err(Errno::INTR) => {}
            other => break other.map_err(io::Error::from).context(|| "poll"),
        }
    }
}

/// Waits for the next word; `None` when the other side closed, which a program's start does too.
pub(crate) fn hear(conn: &Conn) -> Result<Option<Word>> {
    let received = received(|| conn.recv(MAX), "hear from the container's init")?;
    Ok(received.map(|(bytes, fds)| word(&bytes, fds)))
}

fn word(bytes: &[u8], mut fds: Vec<OwnedFd>) -> Word {
    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
    match bytes.first() {
        Some(b'p') => Word::Proceed,
        Some(b'r') => Word::Ready,
        Some(b's') => Word::Start,
        Some(b'w') => Word::Warning(text),
        Some(b'x') => Word::Failed(Error::Program(text)),
        Some(b'n') => Word::Failed(Error::NotRunning),
        Some(b'l') => Word::Listens(text.parse().unwrap_or(-1)),
        Some(b'i') if !fds.is_empty() => Word::Init(fds.remove(0)),
        Some(b'1') => Word::Lend(path(bytes), Depth::Single),
        Some(b'R') => Word::Lend(path(bytes), Depth::Recursive),
        Some(b't') if !fds.is_empty() => Word::Lent(fds.remove(0)),
        Some(b'c') if !fds.is_empty() => Word::Console(fds.remove(0)),
        _ => Word::Failed(set_up(&text)),
    }
}

/// A failed step, as [`say`] writes it.
fn set_up(text: &str) -> Error {
    let (errno, said) = text.split_once('\0').unwrap_or(("", text));
    let (step, message) = said.split_once('\0').unwrap_or(("set up", said));
    Error::Setup {
        step: step.to_owned(),
        message: message.to_owned(),
        errno: errno.parse().ok().filter(|number| *number != 0),
    }
}

fn path(word: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(word.get(1..).unwrap_or_default()))
}
