//! Tests of seqpacket sockets: what comes whole, in time, and after the other end has closed.

use super::*;
use std::io::{Read, Write};

#[test]
fn the_last_words_of_a_peer_that_left_something_unread_are_heard() {
    type Receive = fn(&Conn) -> io::Result<Option<Vec<u8>>>;
    let ways: [Receive; 2] = [
        |conn| Ok(conn.recv(16)?.map(|(bytes, _)| bytes)),
        |conn| conn.read(16),
    ];
    for receive in ways {
        let (ours, theirs) = Conn::pair().unwrap();
        ours.send(b"one", &[]).unwrap();
        ours.send(b"two", &[]).unwrap();
        assert_eq!(theirs.recv(16).unwrap().unwrap().0, b"one");
        theirs.send(b"last words", &[]).unwrap();
        drop(theirs);
        assert_eq!(receive(&ours).unwrap().unwrap(), b"last words");
        assert!(receive(&ours).unwrap().is_none() && ours.was_unread());
        let (ours, theirs) = Conn::pair().unwrap();
        ours.send(b"read", &[]).unwrap();
        theirs.recv(16).unwrap().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none() && !ours.was_unread());
    }
}

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
    let accept = || Conn::from(accept_with(&receiver.0, SocketFlags::CLOEXEC).unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let conn = accept();
            let (bytes, fds) = conn.recv(1 << 10).unwrap().unwrap();
            let mut rest = Vec::new();
            std::fs::File::from(conn.socket)
                .read_to_end(&mut rest)
                .unwrap();
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
