//! Sessions with containers, whose shim the test plays.

use super::*;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crisp_model::Timestamp;
use crisp_shim_api::{Event, ExitRecord, FromShim};
use crisp_sys::pty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::session::fake_shim::{FakeShim, container, fake, file};

const EVERYTHING: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
    terminal: false,
};

/// The fate of an input that one client has alone.
const ONCE: AttachedInput = AttachedInput::IsClosed;

/// A loan of one stream, after a descriptor that stands for init's.
fn lent(end: StreamEnd, fd: OwnedFd) -> Loan {
    let own = i32::try_from(std::process::id()).unwrap();
    let pidfd = crisp_sys::pidfd::PidFd::open(own).unwrap();
    Loan::of(&[end], vec![pidfd.into(), fd])
}

/// Attaches with a shim that gives this answer; says whether the end of the input was told.
async fn attach(
    loan: &Loan,
    wanted: Wanted,
    reply: Reply,
) -> (Result<Session>, FakeShim, Vec<OwnedFd>, Arc<AtomicBool>) {
    let (client, shim) = fake();
    let attach = Attach {
        container: container(),
        attach_id: "1".to_owned(),
        shim: client,
        wanted,
        near: Near::of(loan, (wanted, ONCE), &container()).unwrap(),
        fate: ONCE,
        shim_within: Duration::from_secs(20),
    };
    let told = Arc::new(AtomicBool::new(false));
    let telling = Arc::clone(&told);
    let on_end = Box::new(move || telling.store(true, Ordering::Relaxed));
    let answering = async {
        let asked = shim.heard().await.unwrap();
        let Request::Attach(request) = asked.request else {
            panic!("no attach");
        };
        assert_eq!(request.sinks.len() + 1, asked.fds.len());
        let seq = asked.seq;
        shim.say(FromShim::Reply { seq, reply }, &[]).await;
        asked.fds
    };
    let (session, fds) = tokio::join!(start(attach, on_end), answering);
    (session, shim, fds, told)
}

async fn detached(shim: &FakeShim, status: Option<ExitStatus>, cut: Option<CutOff>) {
    let event = Event::Detached {
        attach_id: "1".to_owned(),
        exit: status.map(|status| ExitRecord {
            status,
            finished_at: Timestamp(7),
            oom: false,
        }),
        cut,
    };
    shim.say(FromShim::Event(event), &[]).await;
}

#[tokio::test]
async fn streams_lead_to_the_container_and_its_end_is_told() {
    let (far, near) = pipe().unwrap();
    let mut loan = lent(StreamEnd::Input, near);
    let (session, shim, fds, told) = attach(&loan, EVERYTHING, Reply::Done).await;
    let mut session = session.unwrap();
    for (wanted, fd) in ["out", "err"].into_iter().zip(fds.into_iter().skip(1)) {
        file(fd).write_all(wanted.as_bytes()).unwrap();
    }
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"asked").await.unwrap();
    assert!(!told.load(Ordering::Relaxed));
    stdin.shutdown().await.unwrap();
    assert!(told.load(Ordering::Relaxed));
    loan.close_input();
    let mut text = String::new();
    file(far).read_to_string(&mut text).unwrap();
    assert_eq!(text, "asked");
    detached(&shim, Some(ExitStatus::Signal(9)), None).await;
    assert_eq!(session.end.await, Ended::Exited(137));
    for (wanted, stream) in [("out", session.stdout), ("err", session.stderr)] {
        let mut text = String::new();
        stream.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, wanted);
    }
}

#[tokio::test]
async fn an_end_that_is_no_exit_is_told_as_such() {
    let (_far, near) = pipe().unwrap();
    let loan = lent(StreamEnd::Input, near);
    let cuts = [
        (None, "not taken in time"),
        (Some(CutOff::TookNothing), "was taken for 30 seconds"),
        (Some(CutOff::TooFarBehind), "more than 64 MiB behind"),
        (Some(CutOff::NoLog), "has no log"),
        (Some(CutOff::NoRoom), "make room there"),
        (Some(CutOff::NotInTime), "not taken in time"),
        (Some(CutOff::Unknown), "not taken in time"),
    ];
    let cuts = cuts.map(|(cut, wanted)| (None, cut, wanted));
    let lost = (Some(ExitStatus::Lost), None, "exit code");
    for (status, cut, wanted) in cuts.into_iter().chain([lost]) {
        let (session, shim, _fds, _) = attach(&loan, EVERYTHING, Reply::Done).await;
        detached(&shim, status, cut).await;
        let ended = session.unwrap().end.await;
        let is_told = matches!(&ended, Ended::Lost(why) if why.contains(wanted));
        assert!(is_told, "{ended:?}");
    }
    let (session, shim, _fds, _) = attach(&loan, EVERYTHING, Reply::Done).await;
    drop(shim);
    let ended = session.unwrap().end.await;
    let is_told = matches!(&ended, Ended::Lost(why) if why.contains("ended during an attach"));
    assert!(is_told, "{ended:?}");
}

/// The shim sees it by the lease.
#[tokio::test]
async fn a_session_that_is_dropped_gives_its_lease_back() {
    let (_far, near) = pipe().unwrap();
    let loan = lent(StreamEnd::Input, near);
    let (session, _shim, mut fds, told) = attach(&loan, EVERYTHING, Reply::Done).await;
    let mut lease = file(fds.remove(0));
    lease.write_all(b"x").unwrap();
    drop(session);
    let error = lease.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(told.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_refusal_closes_no_input() {
    let (_far, near) = pipe().unwrap();
    let loan = lent(StreamEnd::Input, near);
    for (kind, wanted) in [
        (FailureKind::Unsupported, "earlier version"),
        (FailureKind::Io, "said so"),
    ] {
        let refused = Reply::failed(kind, "said so");
        let (session, _, _, told) = attach(&loan, EVERYTHING, refused).await;
        let error = session.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(!told.load(Ordering::Relaxed));
    }
}

#[tokio::test]
async fn an_input_that_one_client_has_used_up_has_ended_for_the_next() {
    let (far, _) = pipe().unwrap();
    let loan = lent(StreamEnd::Output, far);
    let (session, shim, fds, told) = attach(&loan, EVERYTHING, Reply::Done).await;
    let session = session.unwrap();
    assert_eq!(fds.len(), 3);
    assert!(session.stdin.is_none() && session.stdout.is_some());
    drop(session);
    assert!(!told.load(Ordering::Relaxed));
    drop(shim);
    // Where others may use it too, it is lost instead.
    let stays = AttachedInput::StaysOpen;
    let error = Near::of(&loan, (EVERYTHING, stays), &container()).unwrap_err();
    assert!(error.to_string().contains("input of container"), "{error}");
    let wanted = Wanted {
        stdin: false,
        ..EVERYTHING
    };
    let near = Near::of(&loan, (wanted, stays), &container()).unwrap();
    assert!(near.closer().is_none());
}

#[tokio::test]
async fn a_shim_hears_that_its_answer_came_in_time() {
    let (_far, near) = pipe().unwrap();
    let loan = lent(StreamEnd::Input, near);
    let refused = Reply::failed(FailureKind::Io, "no");
    for (reply, wanted) in [(Reply::Done, true), (refused, false)] {
        let (session, shim, _fds, _) = attach(&loan, EVERYTHING, reply).await;
        let attach_id = "1".to_owned();
        let confirmed = Request::ConfirmAttach { attach_id };
        if wanted {
            assert_eq!(shim.heard().await.unwrap().request, confirmed);
        }
        drop(session);
        assert!(shim.heard().await.is_none());
    }
}

#[tokio::test]
async fn a_terminal_is_typed_into_and_sized_by_its_master() {
    let (master, _) = pty::open().unwrap();
    let other = pty::peer(&master).unwrap();
    let loan = lent(StreamEnd::Terminal, master);
    let wanted = Wanted {
        stderr: false,
        terminal: true,
        ..EVERYTHING
    };
    let (session, _shim, fds, _) = attach(&loan, wanted, Reply::Done).await;
    assert_eq!(fds.len(), 2);
    let mut session = session.unwrap();
    session.resize.unwrap()(99, 11);
    let size = rustix::termios::tcgetwinsize(&other).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (99, 11));
    let stdin = session.stdin.as_mut().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    let mut line = [0; 6];
    file(other).read_exact(&mut line).unwrap();
    assert_eq!(&line, b"typed\n");
    drop(loan);
}
