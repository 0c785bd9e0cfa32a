//! Sessions of commands with a shim that the test plays.

use super::*;
use std::io::{Read, Write};

use crisp_shim_api::{Event, FailureKind, FromShim};
use crisp_sys::pty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::session::fake_shim::{FakeShim, container, fake, file};

const EVERYTHING: Wanted = Wanted {
    stdin: true,
    stdout: true,
    stderr: true,
    terminal: false,
};

fn exec(wanted: Wanted) -> (Exec, FakeShim) {
    let (client, shim) = fake();
    let exec = Exec {
        exec_id: "1".to_owned(),
        shim: client,
        container: container(),
        command: vec!["sh".to_owned()],
        wanted,
        shim_within: Duration::from_secs(20),
    };
    (exec, shim)
}

impl FakeShim {
    /// Answers the exec, whose request it returns with its descriptors.
    async fn answer(&self, reply: Reply, fds: &[OwnedFd]) -> (ExecRequest, Vec<OwnedFd>) {
        let asked = self.heard().await.unwrap();
        let Request::Exec(request) = asked.request else {
            panic!("no exec");
        };
        let seq = asked.seq;
        self.say(FromShim::Reply { seq, reply }, fds).await;
        (*request, asked.fds)
    }

    async fn ended(&self, code: u8) {
        let event = Event::ExecExited {
            exec_id: "1".to_owned(),
            status: ExitStatus::Code(code),
        };
        self.say(FromShim::Event(event), &[]).await;
    }

    async fn is_told_to_kill(&self) -> bool {
        let exec_id = "1".to_owned();
        let heard = self.heard().await.map(|asked| asked.request);
        heard == Some(Request::KillExec { exec_id })
    }
}

/// Starts a command that the shim starts too.
async fn running(wanted: Wanted) -> (Session, FakeShim, Vec<OwnedFd>) {
    let (exec, shim) = exec(wanted);
    let reply = Reply::Exec { pid: 7 };
    let (session, (request, fds)) = tokio::join!(start(exec), shim.answer(reply, &[]));
    assert_eq!(request.orphan, Orphan::IsKilled);
    (session.unwrap(), shim, fds)
}

#[tokio::test]
async fn streams_lead_to_the_command_and_its_end_is_told() {
    let (mut session, shim, fds) = running(EVERYTHING).await;
    let mut files = fds.into_iter().map(file);
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"asked").await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut text = String::new();
    // It was closed, not only written to.
    files.next().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "asked");
    for (wanted, mut file) in ["out", "err"].into_iter().zip(files) {
        file.write_all(wanted.as_bytes()).unwrap();
    }
    shim.ended(5).await;
    assert_eq!(session.end.await, Ended::Exited(5));
    for (wanted, stream) in [("out", session.stdout), ("err", session.stderr)] {
        let mut text = String::new();
        stream.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, wanted);
    }
    drop(stdin);
    // The last handle goes, and nothing is killed.
    assert!(shim.heard().await.is_none());
}

#[tokio::test]
async fn streams_that_nobody_wants_are_empty() {
    let (session, _shim, fds) = running(Wanted::default()).await;
    assert!(session.stdin.is_none() && session.stdout.is_none() && session.stderr.is_none());
    let mut files = fds.into_iter().map(file);
    let mut text = String::new();
    files.next().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
    for mut file in files {
        file.write_all(b"nowhere").unwrap();
    }
}

#[tokio::test]
async fn a_command_is_killed_when_its_session_is_dropped() {
    let (session, shim, _fds) = running(EVERYTHING).await;
    drop(session);
    assert!(shim.is_told_to_kill().await);
}

#[tokio::test]
async fn a_command_that_was_about_to_start_is_killed_as_well() {
    let (exec, shim) = exec(EVERYTHING);
    let mut starting = Box::pin(start(exec));
    let asked = tokio::select! {
        _ = &mut starting => panic!("it was not answered"),
        asked = shim.heard() => asked.unwrap(),
    };
    drop(starting);
    assert!(matches!(asked.request, Request::Exec(_)));
    assert!(shim.is_told_to_kill().await);
}

#[tokio::test]
async fn a_refused_command_is_told_and_not_killed() {
    let (exec, shim) = exec(EVERYTHING);
    let refused = Reply::failed(FailureKind::Exec, "no such file");
    let (session, _) = tokio::join!(start(exec), shim.answer(refused, &[]));
    let error = session.unwrap_err().to_string();
    assert!(error.contains("no such file"), "{error}");
    assert!(shim.heard().await.is_none());
}

#[tokio::test]
async fn a_session_whose_shim_has_gone_is_lost() {
    let (session, shim, _fds) = running(EVERYTHING).await;
    drop(shim);
    let Ended::Lost(why) = session.end.await else {
        panic!("it was not lost");
    };
    assert!(why.contains("ended during an exec"), "{why}");
}

#[tokio::test]
async fn a_terminal_comes_with_the_answer() {
    let wanted = Wanted {
        terminal: true,
        ..EVERYTHING
    };
    let (exec, shim) = exec(wanted);
    let (master, _) = pty::open().unwrap();
    let other = pty::peer(&master).unwrap();
    let (reply, masters) = (Reply::Exec { pid: 7 }, [master]);
    let (session, (request, fds)) = tokio::join!(start(exec), shim.answer(reply, &masters));
    assert_eq!((request.streams, fds.len()), (ExecStreams::Terminal, 0));
    let mut session = session.unwrap();
    assert!(session.stderr.is_none());
    session.resize.unwrap()(99, 11);
    let size = rustix::termios::tcgetwinsize(&other).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (99, 11));
    session
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"x")
        .await
        .unwrap();
    let mut echo = [0];
    let stdout = session.stdout.as_mut().unwrap();
    stdout.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"x");
}

#[tokio::test]
async fn a_terminal_that_does_not_come_is_told_and_its_command_killed() {
    let wanted = Wanted {
        terminal: true,
        ..EVERYTHING
    };
    let (exec, shim) = exec(wanted);
    let reply = Reply::Exec { pid: 7 };
    let (session, _) = tokio::join!(start(exec), shim.answer(reply, &[]));
    let error = session.unwrap_err().to_string();
    assert!(error.contains("master"), "{error}");
    assert!(shim.is_told_to_kill().await);
}
