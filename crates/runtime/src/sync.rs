//! The conversation between the parent and the child that becomes the container's init.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crisp_sys::socket::Conn;

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

pub(crate) fn say(conn: &Conn, word: &Word) -> io::Result<()> {
    match word {
        Word::Proceed => conn.send(b"p", &[]),
        Word::Ready => conn.send(b"r", &[]),
        Word::Start => conn.send(b"s", &[]),
        Word::Console(master) => conn.send(b"c", &[master.as_fd()]),
        Word::Warning(text) => conn.send(format!("w{text}").as_bytes(), &[]),
        Word::Failed(Error::Program(text)) => conn.send(format!("x{text}").as_bytes(), &[]),
        Word::Failed(Error::Setup { step, message }) => {
            conn.send(format!("e{step}\0{message}").as_bytes(), &[])
        }
        Word::Failed(other) => conn.send(format!("eset up\0{other}").as_bytes(), &[]),
    }
}

/// Waits for the next word; `None` when the other side closed, which a program's start does too.
pub(crate) fn hear(conn: &Conn) -> Result<Option<Word>> {
    let received = loop {
        match conn.recv(MAX) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => break other.context(|| "hear from the container's init")?,
        }
    };
    let Some((bytes, mut fds)) = received else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
    Ok(Some(match bytes.first() {
        Some(b'p') => Word::Proceed,
        Some(b'r') => Word::Ready,
        Some(b's') => Word::Start,
        Some(b'w') => Word::Warning(text),
        Some(b'x') => Word::Failed(Error::Program(text)),
        Some(b'c') if !fds.is_empty() => Word::Console(fds.remove(0)),
        _ => {
            let (step, message) = text.split_once('\0').unwrap_or(("set up", &text));
            Word::Failed(Error::setup(step, message))
        }
    }))
}
