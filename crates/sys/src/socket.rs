//! Seqpacket sockets: whole messages, descriptors alongside, no partial reads.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with, socketpair,
};

/// The most descriptors that one message carries.
pub const MAX_FDS: usize = 8;

/// The process on the other end (unix(7), `SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its pid when it connected.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// One message and the descriptors that came with it.
pub type Message = (Vec<u8>, Vec<OwnedFd>);

/// Connects to a stream socket and sends one descriptor with a text: how OCI runtimes hand out
/// the master of a terminal, and the listener of a filter. The socket is closed then.
///
/// # Errors
/// The errors of connect(2) and sendmsg(2); `TimedOut` when nobody takes the connection, or reads
/// the text, in time.
pub fn hand_over(path: &Path, text: &[u8], fd: BorrowedFd<'_>, within: Duration) -> io::Result<()> {
    let until = Instant::now() + within;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    with_address(path, |address| {
        loop {
            match connect(&socket, address) {
                // Its queue is full. The kernel has no event for the moment when it is not.
                Err(Errno::AGAIN) if Instant::now() < until => std::thread::sleep(A_MOMENT),
                Err(Errno::AGAIN) => break Err(Errno::TIMEDOUT),
                connected => break connected,
            }
        }
    })?;
    let mut sent = 0;
    while sent < text.len().max(1) {
        wait_for(&socket, PollFlags::OUT, until)?;
        let fds: &[_] = if sent == 0 { &[fd] } else { &[] };
        match send_on(&socket, &text[sent..], fds) {
            Ok(0) => break,
            Ok(some) => sent += some,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Between two looks at a queue that is full.
const A_MOMENT: Duration = Duration::from_millis(10);

/// A stream socket that waits for one descriptor, as [`hand_over`] sends it.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

impl Receiver {
    /// Listens at a path that must not exist; the socket file has mode 0600.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        with_address(path, |address| bind(&socket, address))?;
        rustix::fs::chmod(path, Mode::from_raw_mode(0o600))?;
        listen(&socket, 1)?;
        Ok(Self(socket))
    }

    /// The descriptor, once it has come.
    ///
    /// # Errors
    /// `TimedOut` when none comes in time; the errors of accept(2) and recvmsg(2).
    pub fn receive(&self, within: Duration) -> io::Result<OwnedFd> {
        let until = Instant::now() + within;
        wait_for(&self.0, PollFlags::IN, until)?;
        let conn = Conn::from(accept_with(&self.0, SocketFlags::CLOEXEC)?);
        wait_for(&conn.socket, PollFlags::IN, until)?;
        let message = conn.recv(MAX_TEXT)?;
        let fd = message.and_then(|(_, fds)| fds.into_iter().next());
        fd.ok_or_else(|| io::Error::other("no descriptor came"))
    }
}

/// The longest text beside a descriptor that is read, bytes.
const MAX_TEXT: usize = 4096;

fn wait_for(fd: &OwnedFd, event: PollFlags, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(fd, event)], Some(&timeout))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// As many bytes as fitted were sent, and the descriptors with them.
fn send_on(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let slices = &[IoSlice::new(bytes)];
    Ok(sendmsg(socket, slices, &mut control, SendFlags::NOSIGNAL)?)
}

/// A connected seqpacket socket.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    /// Whether the peer closed with a message unread.
    unread: AtomicBool,
}

/// A listening seqpacket socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Connections that wait to be taken: a stopped listener keeps those of callers that are long gone.
const BACKLOG: i32 = 128;

fn new_socket(more: SocketFlags) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | more;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// Socket addresses hold 107 bytes: paths are shortened through a descriptor of the directory.
fn with_address<T>(
    path: &Path,
    act: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>,
) -> io::Result<T> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // A mere name has an empty parent.
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(crate::rootfs::proc_path(&dir).join(name))?;
    Ok(act(&address)?)
}

impl Listener {
    /// Listens at a path that must not exist; the socket file has mode 0600.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = new_socket(SocketFlags::empty())?;
        with_address(path, |address| bind(&socket, address))?;
        rustix::fs::chmod(path, Mode::from_raw_mode(0o600))?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// The errors of accept(2); `WouldBlock` when non-blocking and none waits.
    pub fn accept(&self) -> io::Result<Conn> {
        Ok(Conn::from(accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }
}

impl Conn {
    /// Connects to a listener, without waiting; the connection itself blocks as usual.
    ///
    /// # Errors
    /// The errors of connect(2); `WouldBlock` when the listener is there but takes no connections,
    /// so that no more fit its queue.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket(SocketFlags::NONBLOCK)?;
        with_address(path, |address| connect(&socket, address))?;
        crate::pipe::set_blocking(&socket)?;
        Ok(Self::from(socket))
    }

    /// Two ends connected to each other.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::from(one), Self::from(other)))
    }

    /// Sends one message with descriptors; never raises SIGPIPE.
    ///
    /// # Errors
    /// EPIPE when the peer is gone, EMSGSIZE when the message is larger than the socket's buffer,
    /// `WouldBlock` when non-blocking and the buffer is full.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_on(&self.socket, bytes, fds).map(drop)
    }

    /// Sends one message without descriptors by write(2), which each seccomp filter allows that
    /// anything can run under. Raises SIGPIPE in a process that has not chosen otherwise.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(rustix::io::write(&self.socket, bytes).map(drop)?)
    }

    /// Receives one message of at most `max` bytes by read(2), as [`Self::write`] sends it; `None`
    /// once the peer has closed. Descriptors that came with it are closed.
    ///
    /// # Errors
    /// The errors of read(2).
    pub fn read(&self, max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; max];
        let length = self.heard(|| Ok(rustix::io::read(&self.socket, &mut bytes)?))?;
        bytes.truncate(length);
        Ok((length > 0).then_some(bytes))
    }

    /// Receives one message of at most `max` bytes; `None` once the peer has closed.
    ///
    /// # Errors
    /// `InvalidData` when the message was longer or carried too many descriptors, `WouldBlock`
    /// when non-blocking and there is none.
    pub fn recv(&self, max: usize) -> io::Result<Option<Message>> {
        // Most messages are short: a buffer of `max` bytes would be mapped, cleared and unmapped
        // for each of them.
        let mut bytes = vec![0; self.heard(|| self.next_length(max))?];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received =
            self.heard(|| Ok(recvmsg(&self.socket, &mut *slices, &mut control, flags)?))?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        let cut = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return cut(format!(
                "descriptors of a message were lost, {} came: it carried more than {MAX_FDS}, or \
                 this process may open no more files (RLIMIT_NOFILE)",
                fds.len()
            ));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return cut(format!("a message of more than {max} bytes was cut off"));
        }
        if received.bytes == 0 && fds.is_empty() {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        bytes.shrink_to_fit();
        Ok(Some((bytes, fds)))
    }

    /// Receives once more where the peer has closed with a message of ours unread: the kernel tells
    /// that first, as ECONNRESET and once, and keeps what the peer had sent before.
    fn heard<T>(&self, mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match receive() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.unread.store(true, Ordering::Relaxed);
                }
                other => return other,
            }
        }
    }

    /// Whether the peer is known to have closed with a message of ours unread; known once
    /// [`Self::recv`] or [`Self::read`] has told its end.
    #[must_use]
    pub fn was_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The length of the message that waits, which stays where it is; `max` if it is longer or the
    /// kernel does not say: once the peer has closed, and on a stream socket that was made a `Conn`.
    /// By recvmsg(2) like the rest: a process under a seccomp filter may be allowed no other call.
    fn next_length(&self, max: usize) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let nothing = &mut RecvAncillaryBuffer::default();
        match recvmsg(&self.socket, &mut [], nothing, flags)?.bytes {
            0 => Ok(max),
            length => Ok(length.min(max)),
        }
    }

    /// Makes the socket non-blocking.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        crate::pipe::set_nonblocking(&self.socket)
    }

    /// Whether the other end is closed, so that nothing more can come or go.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        // The kernel tells an end that hung up whether it is asked for or not.
        let told = poll(&mut fds, Some(&Timespec::default()));
        told.is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// The process on the other end.
    ///
    /// # Errors
    /// The errors of getsockopt(2).
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket)?;
        Ok(PeerCredentials {
            pid: peer.pid.as_raw_nonzero().get(),
            uid: peer.uid.as_raw(),
        })
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For event loops, which register descriptors by number.
impl AsRawFd for Conn {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Conn> for OwnedFd {
    fn from(conn: Conn) -> Self {
        conn.socket
    }
}

impl From<OwnedFd> for Conn {
    fn from(socket: OwnedFd) -> Self {
        let unread = AtomicBool::new(false);
        Self { socket, unread }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
