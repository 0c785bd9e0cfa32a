//! Clients that are attached to a container.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crisp_model::ExitStatus;
use crisp_shim_api::{
    AttachRequest, AttachedInput, CutOff, Event, ExitRecord, FailureKind, Reply, Request, Stdin,
    StreamEnd,
};
use crisp_sys::pipe::pipe;
use serde_json::json;

use crate::lab::{Lab, Started, borrow, read_all, until};

const BOTH: [StreamEnd; 2] = [StreamEnd::Output, StreamEnd::Errors];

/// A client: its ends of the pipes.
struct Client {
    lease: OwnedFd,
    streams: Vec<OwnedFd>,
}

fn wants(id: &str, sinks: &[StreamEnd], input: AttachedInput) -> AttachRequest {
    AttachRequest {
        attach_id: id.to_owned(),
        sinks: sinks.to_vec(),
        input,
        ..AttachRequest::default()
    }
}

fn ask(lab: &mut Lab, request: AttachRequest) -> (Reply, Client) {
    let (lease, leased) = pipe().unwrap();
    let (mut streams, mut fds) = (Vec::new(), vec![leased]);
    for _ in &request.sinks {
        let (read, write) = pipe().unwrap();
        streams.push(read);
        fds.push(write);
    }
    let reply = lab
        .ask_with(Request::Attach(Box::new(request)), &borrow(&fds))
        .0;
    (reply, Client { lease, streams })
}

fn attached(lab: &mut Lab, id: &str, sinks: &[StreamEnd], input: AttachedInput) -> Client {
    let (reply, client) = ask(lab, wants(id, sinks, input));
    assert_eq!(reply, Reply::Done);
    client
}

fn detached(lab: &mut Lab, id: &str) -> (Option<ExitRecord>, Option<CutOff>) {
    lab.event(|event| match event {
        Event::Detached {
            attach_id,
            exit,
            cut,
        } if attach_id == id => Some((*exit, *cut)),
        _ => None,
    })
}

/// The end of a client that got all.
fn told_all(lab: &mut Lab, id: &str) -> ExitRecord {
    let (exit, cut) = detached(lab, id);
    assert_eq!(cut, None);
    exit.unwrap()
}

/// A container that reads its input, and the far end of that.
fn reader(script: &str) -> (Lab, File) {
    let mut lab = Lab::new(script);
    lab.launch.stdin = Stdin::Open;
    let Started { mut fds, .. } = lab.start();
    let input = File::from(fds.pop().unwrap());
    (lab, input)
}

#[test]
fn privileged_each_client_gets_what_comes_from_its_moment_on() {
    let (mut lab, mut input) = reader("echo early; cat; echo err >&2; echo bye; exit 4");
    until("output", || lab.log() == ["stdout F early"]);
    let stays = AttachedInput::StaysOpen;
    let one = attached(&mut lab, "one", &BOTH, stays);
    input.write_all(b"first\n").unwrap();
    until("output", || lab.log().len() == 2);
    let mut two = attached(&mut lab, "two", &BOTH[..1], stays);
    let gone = attached(&mut lab, "gone", &BOTH, stays);
    drop(gone);
    input.write_all(b"second\n").unwrap();
    let mut text = [0; 7];
    let mut stream = File::from(two.streams.remove(0));
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"second\n");
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    let texts: Vec<String> = one.streams.into_iter().map(read_all).collect();
    assert_eq!(texts, ["first\nsecond\nbye\n", "err\n"]);
    assert_eq!(read_all(stream.into()), "bye\n");
    let record = lab.exited();
    assert_eq!(record.status, ExitStatus::Code(4));
    assert_eq!(told_all(&mut lab, "one"), record);
    assert_eq!(told_all(&mut lab, "two"), record);
    assert_eq!(lab.log().len(), 5);
    drop((one.lease, two.lease));
    lab.shut_down();
}

/// Says so many lines of more than 6 KiB, once its input has ended.
fn talker(lines: usize) -> (Lab, File) {
    let line = "line=$(seq -s - 1 1500)";
    let each = format!("for n in $(seq 1 {lines}); do echo $n $line; done");
    reader(&format!("{line}; cat; {each}; exit 7"))
}

/// Whether a text is all lines of a [`talker`], each after these words.
fn is_all<'a>(texts: impl IntoIterator<Item = &'a str>, before: &str, lines: usize) -> bool {
    let line: Vec<String> = (1..=1500).map(|n| n.to_string()).collect();
    let line = line.join("-");
    let lines = (1..=lines).map(|n| format!("{before}{n} {line}"));
    texts.into_iter().eq(lines)
}

#[test]
fn privileged_a_client_that_does_not_read_is_cut_and_the_log_is_whole() {
    const LINES: usize = 500_000;
    let (mut lab, input) = reader(&format!("cat; seq 1 {LINES}; sleep 1000"));
    let request = AttachRequest {
        patience_ms: 100,
        ..wants("slow", &BOTH, AttachedInput::StaysOpen)
    };
    let (reply, slow) = ask(&mut lab, request);
    assert_eq!(reply, Reply::Done);
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    let cut = Some(CutOff::TookNothing);
    assert_eq!(detached(&mut lab, "slow"), (None, cut));
    until("all lines", || lab.log().len() == LINES);
    lab.ask(Request::KillAll);
    lab.exited();
    let log = lab.log();
    let lines = (1..=LINES).map(|n| format!("stdout F {n}"));
    assert!(log.len() == LINES && log.into_iter().eq(lines));
    // It has the beginning, and then an end.
    let [out, err] = <[OwnedFd; 2]>::try_from(slow.streams).unwrap();
    assert!(read_all(out).starts_with("1\n2\n3\n"));
    assert_eq!(read_all(err), "");
    lab.shut_down();
}

#[test]
fn privileged_the_container_writes_on_while_its_clients_do_not_read() {
    // More than 32 MiB.
    const LINES: usize = 5400;
    let (mut lab, input) = talker(LINES);
    let stays = AttachedInput::StaysOpen;
    let slow = attached(&mut lab, "slow", &BOTH[..1], stays);
    let other = attached(&mut lab, "other", &BOTH[..1], stays);
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    // No client has read by then.
    let record = lab.exited();
    assert_eq!(record.status, ExitStatus::Code(7));
    let readers = [slow, other].map(|client| {
        std::thread::spawn(move || {
            let text: String = client.streams.into_iter().map(read_all).collect();
            (client.lease, text)
        })
    });
    for reader in readers {
        let (_lease, text) = reader.join().unwrap();
        assert!(text.len() > 32 << 20 && is_all(text.lines(), "", LINES));
    }
    for id in ["slow", "other"] {
        assert_eq!(told_all(&mut lab, id), record);
    }
    let log = lab.log();
    assert!(is_all(log.iter().map(String::as_str), "stdout F ", LINES));
    lab.shut_down();
}

#[test]
fn privileged_a_client_that_is_too_far_behind_is_told_and_the_container_goes_on() {
    // More than 70 MiB.
    const LINES: usize = 11_500;
    let (mut lab, input) = talker(LINES);
    let slow = attached(&mut lab, "slow", &BOTH[..1], AttachedInput::StaysOpen);
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    let cut = Some(CutOff::TooFarBehind);
    assert_eq!(detached(&mut lab, "slow"), (None, cut));
    let text: String = slow.streams.into_iter().map(read_all).collect();
    assert!(text.starts_with("1 1-2-3-"));
    assert_eq!(lab.exited().status, ExitStatus::Code(7));
    let log = lab.log();
    assert!(is_all(log.iter().map(String::as_str), "stdout F ", LINES));
    // Nothing but the log is beside the log.
    let dir = lab.launch.log.as_ref().unwrap().parent().unwrap();
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    lab.shut_down();
}

#[test]
fn privileged_what_is_kept_goes_with_a_shim_that_is_killed() {
    let (mut lab, input) = talker(1000);
    let slow = attached(&mut lab, "slow", &BOTH[..1], AttachedInput::StaysOpen);
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    lab.exited();
    lab.kill_shim();
    let text: String = slow.streams.into_iter().map(read_all).collect();
    assert!(text.starts_with("1 1-2-3-") && text.len() < 1 << 20);
    let dir = lab.launch.log.as_ref().unwrap().parent().unwrap();
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn privileged_the_shim_leaves_once_the_last_output_is_taken() {
    // More than a pipe holds, and less than two: the container ends while a part of it is left.
    let (mut lab, input) = reader("cat; seq 1 14000");
    let client = attached(&mut lab, "late", &BOTH[..1], AttachedInput::StaysOpen);
    drop(input);
    assert_eq!(lab.ask(Request::CloseInput), Reply::Done);
    let record = lab.exited();
    let asked = lab.send(Request::Shutdown, &[]);
    let text: String = client.streams.into_iter().map(read_all).collect();
    assert!(text.ends_with("\n14000\n") && text.lines().count() == 14_000);
    assert_eq!(told_all(&mut lab, "late"), record);
    assert_eq!(lab.reply_to(asked).0, Reply::Done);
    lab.is_gone();
}

#[test]
fn privileged_an_input_that_is_one_clients_ends_with_it() {
    let (mut lab, mut input) = reader("cat; exit 6");
    let once = AttachedInput::IsClosed;
    // A client of whom no confirmation came was told that it is not attached.
    drop(attached(&mut lab, "unheard", &BOTH, once));
    let client = attached(&mut lab, "once", &BOTH, once);
    let attach_id = "once".to_owned();
    let confirmed = lab.ask(Request::ConfirmAttach { attach_id });
    assert_eq!(confirmed, Reply::Done);
    input.write_all(b"said\n").unwrap();
    drop(input);
    until("output", || lab.log() == ["stdout F said"]);
    drop(client.lease);
    assert_eq!(lab.exited().status, ExitStatus::Code(6));
    drop(client.streams);
    lab.shut_down();
}

#[test]
fn privileged_a_terminal_is_one_stream() {
    let mut lab = Lab::new("read line; echo got $line; exit 3");
    lab.spec["process"]["terminal"] = json!(true);
    // Init's pidfd, the terminal and its relay.
    let [_, master, _relay] = <[OwnedFd; 3]>::try_from(lab.start().fds).unwrap();
    let mut master = File::from(master);
    let stays = AttachedInput::StaysOpen;
    let client = attached(&mut lab, "tty", &BOTH, stays);
    master.write_all(b"this\n").unwrap();
    drop(master);
    let texts: Vec<String> = client.streams.into_iter().map(read_all).collect();
    assert_eq!(texts, ["this\r\ngot this\r\n", ""]);
    let exit = told_all(&mut lab, "tty");
    assert_eq!(exit.status, ExitStatus::Code(3));
    lab.shut_down();
}

#[test]
fn privileged_a_terminal_writes_as_fast_as_its_client_reads() {
    const LINES: usize = 200_000;
    let mut lab = Lab::new(&format!("read go; seq 1 {LINES}; exit 3"));
    lab.spec["process"]["terminal"] = json!(true);
    let [_, master, _relay] = <[OwnedFd; 3]>::try_from(lab.start().fds).unwrap();
    let stays = AttachedInput::StaysOpen;
    let mut slow = attached(&mut lab, "slow", &BOTH[..1], stays);
    let held = attached(&mut lab, "held", &BOTH[..1], stays);
    File::from(master).write_all(b"go\n").unwrap();
    let mut stream = File::from(slow.streams.remove(0));
    let mut text = vec![0; 4096];
    stream.read_exact(&mut text).unwrap();
    // As much is on its way as pipes hold.
    std::thread::sleep(Duration::from_millis(300));
    assert!(lab.log().len() < LINES / 2);
    assert!(lab.exit_slot().is_none());
    // A client that leaves holds nothing any more.
    drop(held);
    let rest = read_all(stream.into());
    let text = String::from_utf8(text).unwrap() + &rest;
    let text = text.replace("\r\n", "\n");
    let lines = text.lines().skip(1);
    assert!(lines.eq((1..=LINES).map(|n| n.to_string())));
    let record = told_all(&mut lab, "slow");
    assert_eq!(record.status, ExitStatus::Code(3));
    lab.shut_down();
}

#[test]
fn privileged_an_attachment_that_makes_no_sense_is_refused() {
    let (mut lab, _input) = reader("cat");
    let stays = AttachedInput::StaysOpen;
    let refusal = |reply: Reply, wanted: FailureKind, text: &str| match reply {
        Reply::Failed { kind, message, .. } => {
            assert!(kind == wanted && message.contains(text), "{message}");
        }
        other => panic!("{other:?}"),
    };
    let (reply, _) = ask(&mut lab, wants("a", &[StreamEnd::Input], stays));
    refusal(reply, FailureKind::Io, "Input is no output");
    let request = AttachRequest {
        attach_id: "a".to_owned(),
        ..AttachRequest::default()
    };
    let reply = lab.ask(Request::Attach(Box::new(request)));
    refusal(reply, FailureKind::Io, "0 descriptors, not 1");
    let (lease, leased) = pipe().unwrap();
    drop(lease);
    let request = wants("a", &[], stays);
    let reply = lab.ask_with(Request::Attach(Box::new(request)), &borrow(&[leased]));
    refusal(reply.0, FailureKind::Io, "has left already");
    lab.ask(Request::KillAll);
    lab.exited();
    let (reply, _) = ask(&mut lab, wants("a", &BOTH, stays));
    refusal(reply, FailureKind::NotRunning, "not running");
    lab.shut_down();
}
