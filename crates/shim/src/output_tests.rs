//! Streams with a client that does not read.

use super::*;
use std::fs::File;
use std::io::{Read, Write};

use crisp_shim_api::AttachedInput;
use crisp_sys::pipe::{pipe, set_capacity};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

const MUCH: usize = 512 << 10;

/// A client of standard output: its end of the stream, and of the lease.
fn attach(output: &mut Output) -> (File, OwnedFd) {
    let ((reader, sink), (leased, lease)) = (pipe().unwrap(), pipe().unwrap());
    let client = NewClient {
        id: "a".to_owned(),
        asker: 1,
        lease,
        sinks: vec![(Channel::Stdout, sink)],
        input: AttachedInput::StaysOpen,
        patience: i64::MAX,
    };
    output.attach(client).unwrap();
    (File::from(reader), leased)
}

/// Ends all streams, and returns what is left for the client.
fn rest(output: &mut Output, mut reader: File) -> Vec<u8> {
    output.finish();
    let reading = std::thread::spawn(move || {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        rest
    });
    while output.sinks.until().is_some() {
        output.sinks.flush(0);
        std::thread::yield_now();
    }
    reading.join().unwrap()
}

#[test]
fn a_pipe_is_read_whether_its_clients_take_or_not() {
    let (source, far) = pipe().unwrap();
    set_capacity(&far, MUCH).unwrap();
    let mut output = Output::new(None);
    output.add(Channel::Stdout, source).unwrap();
    let (reader, _leased) = attach(&mut output);
    let mut far = File::from(far);
    let text: Vec<u8> = (0..=u8::MAX).cycle().take(MUCH).collect();
    far.write_all(&text).unwrap();
    while held(&output.streams[0].source).unwrap() > 0 {
        output.pump(Channel::Stdout);
    }
    assert!(output.sinks.is_behind(Channel::Stdout));
    assert_eq!((output.sources().count(), output.ends().count()), (1, 1));
    drop(far);
    assert!(rest(&mut output, reader) == text);
}

#[test]
fn a_terminal_is_read_as_fast_as_its_clients_take() {
    let (master, _) = pty::open().unwrap();
    let other = pty::peer(&master).unwrap();
    let mut raw = tcgetattr(&other).unwrap();
    raw.make_raw();
    tcsetattr(&other, OptionalActions::Now, &raw).unwrap();
    let mut output = Output::new(None);
    output.add_terminal(master).unwrap();
    let (mut reader, _leased) = attach(&mut output);
    // As much as there is room for all the way.
    set_nonblocking(&other).unwrap();
    let mut other = File::from(other);
    let mut written = 0;
    while output.sources().count() > 0 {
        written += other.write(&[b'x'; 1000]).unwrap_or(0);
        output.pump(Channel::Stdout);
    }
    assert_eq!(output.ends().count(), 1);
    written += other.write(&[b'y'; 1000]).unwrap();
    output.pump(Channel::Stdout);
    assert_eq!(output.sources().count(), 0);
    let mut taken = vec![0; usize::try_from(held(&reader).unwrap()).unwrap()];
    reader.read_exact(&mut taken).unwrap();
    output.sinks.flush(0);
    assert_eq!(output.sources().count(), 1);
    // Once the container has ended nobody is waited for, and nothing is lost.
    drop(other);
    output.let_end();
    assert_eq!(output.sources().count(), 1);
    let rest = rest(&mut output, reader);
    assert_eq!(taken.len() + rest.len(), written);
    assert!(rest.ends_with(&[b'y'; 1000]));
}
