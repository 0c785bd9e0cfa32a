//! Seqpacket sockets: whole messages, descriptors alongside, no partial reads.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
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
        let conn = Conn(accept_with(&self.0, SocketFlags::CLOEXEC)?);
        wait_for(&conn.0, PollFlags::IN, until)?;
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
pub struct Conn(OwnedFd);

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
        Ok(Conn(accept_with(&self.0, SocketFlags::CLOEXEC)?))
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
        Ok(Self(socket))
    }

    /// Two ends connected to each other.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one message with descriptors; never raises SIGPIPE.
    ///
    /// # Errors
    /// EPIPE when the peer is gone, EMSGSIZE when the message is larger than the socket's buffer,
    /// `WouldBlock` when non-blocking and the buffer is full.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send_on(&self.0, bytes, fds).map(drop)
    }

    /// Sends one message without descriptors by write(2), which each seccomp filter allows that
    /// anything can run under. Raises SIGPIPE in a process that has not chosen otherwise.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(rustix::io::write(&self.0, bytes).map(drop)?)
    }

    /// Receives one message of at most `max` bytes by read(2), as [`Self::write`] sends it; `None`
    /// once the peer has closed. Descriptors that came with it are closed.
    ///
    /// # Errors
    /// The errors of read(2).
    pub fn read(&self, max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; max];
        let length = rustix::io::read(&self.0, &mut bytes)?;
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
        let mut bytes = vec![0; self.next_length(max)?];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
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

    /// The length of the message that waits, which stays where it is; `max` if it is longer or the
    /// kernel does not say: once the peer has closed, and on a stream socket that was made a `Conn`.
    /// By recvmsg(2) like the rest: a process under a seccomp filter may be allowed no other call.
    fn next_length(&self, max: usize) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let nothing = &mut RecvAncillaryBuffer::default();
        match recvmsg(&self.0, &mut [], nothing, flags)?.bytes {
            0 => Ok(max),
            length => Ok(length.min(max)),
        }
    }

    /// Makes the socket non-blocking.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        crate::pipe::set_nonblocking(&self.0)
    }

    /// Whether the other end is closed, so that nothing more can come or go.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        // The kernel tells an end that hung up whether it is asked for or not.
        let told = poll(&mut fds, Some(&Timespec::default()));
        told.is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// The process on the other end.
    ///
    /// # Errors
    /// The errors of getsockopt(2).
    pub fn peer(&self) -> io::Result<PeerCredentials> {
        let peer = rustix::net::sockopt::socket_peercred(&self.0)?;
        Ok(PeerCredentials {
            pid: peer.pid.as_raw_nonzero().get(),
            uid: peer.uid.as_raw(),
        })
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For event loops, which register descriptors by number.
impl AsRawFd for Conn {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Conn> for OwnedFd {
    fn from(conn: Conn) -> Self {
        conn.0
    }
}

impl From<OwnedFd> for Conn {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn messages_stay_whole_and_carry_descriptors() {
        let (one, other) = Conn::pair().unwrap();
        let (read, write) = crate::pipe::pipe().unwrap();
        one.send(b"first", &[write.as_fd()]).unwrap();
        one.send(b"second", &[]).unwrap();
        drop(write);
        let (bytes, mut fds) = other.recv(64).unwrap().unwrap();
        assert_eq!(bytes, b"first");
        std::fs::File::from(fds.remove(0))
            .write_all(b"through")
            .unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(other.recv(64).unwrap().unwrap().0, b"second");
        one.send(&[7; 65], &[]).unwrap();
        let too_long = other.recv(64).unwrap_err();
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidData);
        one.send(&[7; 64], &[]).unwrap();
        assert_eq!(other.recv(64).unwrap().unwrap().0, [7; 64]);
        other.set_nonblocking().unwrap();
        let none = other.recv(64).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(other.recv(64).unwrap().is_none());
    }

    #[test]
    fn a_message_that_did_not_come_whole_says_what_is_lost() {
        // The buffer is aligned, so that a few more than are allowed may fit.
        const MANY: usize = MAX_FDS * 2;
        let (one, other) = Conn::pair().unwrap();
        one.send(b"too long", &[]).unwrap();
        let error = other.recv(3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("more than 3 bytes"), "{error}");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MANY))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let many = [other.as_fd(); MANY];
        assert!(control.push(SendAncillaryMessage::ScmRights(&many)));
        let text = [IoSlice::new(b"many")];
        sendmsg(&one, &text, &mut control, SendFlags::NOSIGNAL).unwrap();
        let error = other.recv(16).unwrap_err().to_string();
        assert!(error.contains("RLIMIT_NOFILE"), "{error}");
        one.send(b"whole", &[other.as_fd()]).unwrap();
        assert_eq!(other.recv(16).unwrap().unwrap().1.len(), 1);
    }

    #[test]
    fn a_listener_that_takes_nobody_keeps_nobody_waiting() {
        let dir = std::env::temp_dir().join(format!("crisp-backlog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = Listener::bind(&dir.join("s")).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match Conn::connect(&dir.join("s")) {
                Ok(conn) => waiting.push(conn),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(waiting.len() >= 100, "{}", waiting.len());
        // Both ends block as before: this waits for the message.
        let server = listener.accept().unwrap();
        let first = waiting.remove(0);
        let thread = std::thread::spawn(move || server.recv(16).unwrap().unwrap().0);
        std::thread::sleep(std::time::Duration::from_millis(20));
        first.send(b"hello", &[]).unwrap();
        assert_eq!(thread.join().unwrap(), b"hello");
        let flags = rustix::fs::fcntl_getfl(&first).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_descriptor_is_handed_over_in_time_and_whole_or_not() {
        let dir = std::env::temp_dir().join(format!("crisp-hand-over-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let fd = std::fs::File::open(&dir).unwrap();
        let text = "t".repeat(1 << 20);
        let hand = || hand_over(&path, text.as_bytes(), fd.as_fd(), A_MOMENT * 20);
        let receiver = Receiver::bind(&path).unwrap();
        let accept = || Conn(accept_with(&receiver.0, SocketFlags::CLOEXEC).unwrap());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let conn = accept();
                let (bytes, fds) = conn.recv(1 << 10).unwrap().unwrap();
                let mut rest = Vec::new();
                std::fs::File::from(conn.0).read_to_end(&mut rest).unwrap();
                (bytes.len() + rest.len(), fds.len())
            });
            hand().unwrap();
            assert_eq!(reader.join().unwrap(), (text.len(), 1));
        });
        // Connections that nobody takes fill the queue.
        for _ in 0..4 {
            assert_eq!(hand().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn long_paths_work() {
        let base = std::env::temp_dir().join(format!("crisp-socket-{}", std::process::id()));
        let dir = base.join("d".repeat(150));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = Listener::bind(&dir.join("s")).unwrap();
        let client = Conn::connect(&dir.join("s")).unwrap();
        let server = listener.accept().unwrap();
        client.send(b"hello", &[]).unwrap();
        assert_eq!(server.recv(16).unwrap().unwrap().0, b"hello");
        assert_eq!(server.peer().unwrap().uid, 0);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
