//! Exec and attach: the streams of a process joined to those of a client, until the process is over
//! or the client has left.

use std::io;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::chunk::Chunk;
use crate::session::{End, Reading, Refusal, Resize, Session, Size, Start, Writing};
use crate::status::{self, Manner, Purpose};
use crate::stop::Cut;
use crate::stream::{Incoming, Outgoing, Unsent};

/// Once the process is over, its output is waited for as long as this in all: a child that it left
/// behind may hold the pipe for ever. The client's own time does not count.
const DRAIN: Duration = Duration::from_secs(2);
/// And no more than this is passed on of each output, for a child that writes without an end: more
/// than pipes and an engine hold of what the process itself wrote.
const REST: usize = 8 << 20;
/// Longest text of a size that is kept.
const MAX_SIZE: usize = 1 << 10;

/// The state of a process, as its streams see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Runs,
    /// Its last output is still to be passed on.
    Over,
    /// The session ends for this reason: nothing more is passed on.
    Cut(&'static str),
}

/// Returns once the session is cut off, with the reason.
async fn is_cut(mut phase: watch::Receiver<Phase>) -> &'static str {
    let is_cut = |phase: &Phase| matches!(phase, Phase::Cut(_));
    let now = phase.wait_for(is_cut).await.map(|phase| *phase);
    match now {
        Ok(Phase::Cut(why)) => why,
        _ => std::future::pending().await,
    }
}

/// A client's streams, as many as it has.
pub(crate) struct Client {
    pub(crate) stdin: Option<Incoming>,
    pub(crate) stdout: Option<Outgoing>,
    pub(crate) stderr: Option<Outgoing>,
    pub(crate) error: Outgoing,
    pub(crate) resize: Option<Incoming>,
}

/// Starts the process, and returns when all of its output and its end are told.
///
/// # Errors
/// When the connection is broken.
pub(crate) async fn run(
    start: Start,
    client: Client,
    (manner, purpose): (Manner, Purpose),
    cut: Cut,
) -> io::Result<()> {
    let (phase, seen) = watch::channel(Phase::Runs);
    let living = async {
        let started = tokio::select! {
            started = start() => started,
            why = is_cut(seen) => Err(Refusal(why.to_owned())),
        };
        match started {
            Ok(session) => {
                let outputs = (&client.stdout, &client.stderr);
                let end = join(session, outputs, (client.stdin, client.resize), &phase).await?;
                Ok::<_, io::Error>(status::of_end(manner, purpose, &end))
            }
            Err(refusal) => Ok(status::of_refusal(manner, purpose, &refusal)),
        }
    };
    let cutting = async {
        let why = cut.reason().await;
        phase.send_replace(Phase::Cut(why));
        std::future::pending::<io::Result<Vec<u8>>>().await
    };
    let word = tokio::select! {
        word = living => word?,
        word = cutting => word?,
    };
    // The word comes first: clients of version 1 leave at the end of the output.
    heard(client.error.send_last(&word).await)?;
    for stream in [&client.stdout, &client.stderr].into_iter().flatten() {
        heard(stream.close().await)?;
    }
    Ok(())
}

/// A client that wants nothing more on one stream is no failure of the others.
fn heard(sent: Result<(), Unsent>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(Unsent::Reset) => Ok(()),
        Err(Unsent::Broken(error)) => Err(error),
    }
}

type Outputs<'a> = (&'a Option<Outgoing>, &'a Option<Outgoing>);

/// Joins the streams of a process and a client until the process is over. Dropped before, it drops
/// the process's streams and end.
async fn join(
    session: Session,
    (stdout, stderr): Outputs<'_>,
    (stdin, resize): (Option<Incoming>, Option<Incoming>),
    phase: &watch::Sender<Phase>,
) -> io::Result<End> {
    let ending = async {
        let end = tokio::select! {
            biased;
            end = session.end => end,
            why = is_cut(phase.subscribe()) => End::Lost(why.to_owned()),
        };
        phase.send_if_modified(|phase| {
            let runs = *phase == Phase::Runs;
            if runs {
                *phase = Phase::Over;
            }
            runs
        });
        Ok(end)
    };
    let outputs = async {
        tokio::try_join!(
            ending,
            output(session.stdout, stdout, phase.subscribe()),
            output(session.stderr, stderr, phase.subscribe())
        )
    };
    let inputs = async {
        tokio::join!(input(stdin, session.stdin), sizes(resize, session.resize));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = outputs => done.map(|(end, (), ())| end),
        () = inputs => Ok(End::Lost("its streams have ended before it".to_owned())),
    }
}

/// Passes output on until it ends, or some time after the process is over. When the client
/// wants it no more it is thrown away, so that the process is never held up.
async fn output(
    from: Option<Reading>,
    to: &Option<Outgoing>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut to = to.as_ref();
    let mut chunk = to.map_or_else(Chunk::default, Outgoing::chunk);
    let (mut left, mut rest) = (DRAIN, REST);
    loop {
        let now = *phase.borrow_and_update();
        if let Phase::Cut(_) = now {
            break;
        }
        let begun = Instant::now();
        let read = tokio::select! {
            biased;
            read = chunk.fill(&mut from) => read,
            _ = phase.changed() => continue,
            () = sleep(left), if now == Phase::Over => break,
        };
        // An error is an end: a terminal whose last process has gone gives EIO.
        let read = read.unwrap_or_default();
        if read == 0 || rest == 0 {
            break;
        }
        if now == Phase::Over {
            left = left.saturating_sub(begun.elapsed());
            rest = rest.saturating_sub(read);
        }
        if let Some(stream) = to {
            match stream.send(&mut chunk).await {
                Err(Unsent::Reset) => to = None,
                sent => heard(sent)?,
            }
        }
    }
    Ok(())
}

/// Passes a client's input on, and its end. A process that reads no more ends it from its side.
async fn input(from: Option<Incoming>, to: Option<Writing>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Some(piece) = from.next().await {
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // It may have been closed from the other side.
    to.shutdown().await.ok();
}

/// Passes on the sizes of a client's terminal.
async fn sizes(from: Option<Incoming>, to: Option<Resize>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    let mut text = Vec::new();
    while let Some(piece) = from.next().await {
        text.extend_from_slice(&piece);
        let Some((used, size)) = latest_size(&text) else {
            return;
        };
        text.drain(..used);
        if let Some(size) = size {
            to(size);
        }
        if text.len() > MAX_SIZE {
            return;
        }
    }
}

/// The last of the whole sizes at the beginning of a text, and how much of it is read; `None` when
/// there is something else.
pub(crate) fn latest_size(text: &[u8]) -> Option<(usize, Option<Size>)> {
    // Values first: what is skipped unread, cut within a number, is no end of the text to serde_json.
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let (mut used, mut latest) = (0, None);
    loop {
        // A number that is cut is no end either: what is an object shows by its first character.
        let rest = text.get(used..).unwrap_or_default().trim_ascii_start();
        if rest.first().is_some_and(|first| *first != b'{') {
            return None;
        }
        match sizes.next() {
            Some(Ok(size)) => latest = Some(Size::deserialize(size).ok()?),
            Some(Err(error)) if error.is_eof() => break,
            Some(Err(_)) => return None,
            None => {
                used = sizes.byte_offset();
                break;
            }
        }
        used = sizes.byte_offset();
    }
    Some((used, latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let size = |width, height| Some(Size { width, height });
        let check = |text: &str, read: Option<(usize, Option<Size>)>| {
            assert_eq!(latest_size(text.as_bytes()), read, "{text}");
        };
        let whole = "{\"Width\":80,\"Height\":24}\n";
        check(whole, Some((whole.len(), size(80, 24))));
        check(&format!("{whole}{{\"Wid"), Some((24, size(80, 24))));
        check(
            "{\"width\":1,\"height\":2}{\"Height\":3}",
            Some((34, size(0, 3))),
        );
        check("{\"Width\":8", Some((0, None)));
        check("{\"x\":7.", Some((0, None)));
        check("{\"x\":7.0,\"Width\":8}", Some((19, size(8, 0))));
        check("", Some((0, None)));
        check("{\"Width\":70000}", None);
        check("nonsense", None);
    }
}
