//! The namespaces of a pod that has a user namespace: made by a process of their own (`crisp-holder
//! users`), which the daemon gives its ids and whose namespaces it pins.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{Cause, IdMap};
use crisp_records::PodRecord;
use crisp_sys::ns::{self, Kind};
use crisp_sys::process::command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};

use crate::blocking::blocking;
use crate::error::{Context, Error, Result};
use crate::shared::Shared;

/// How long the process may take for all that it does.
const MADE_WITHIN: Duration = Duration::from_secs(10);
/// More of what it says about a failure is not told.
const LAST_WORDS: u64 = 4096;

/// A user namespace to be, and the others that belong to it, each with the file that pins it.
pub(super) struct Wanted<'a> {
    pub(super) map: &'a IdMap,
    pub(super) pin: PathBuf,
    pub(super) others: Vec<(Kind, PathBuf)>,
}

/// Makes the namespaces, and pins them.
pub(super) async fn make(
    shared: &Arc<Shared>,
    record: &PodRecord,
    wanted: Wanted<'_>,
) -> Result<()> {
    let name = &record.config.name;
    let step = format!("make the namespaces of pod {name}");
    let kinds: Vec<&str> = wanted.others.iter().map(|(kind, _)| kind.file()).collect();
    let mut maker = command(&shared.config.holder_path);
    maker
        .args(["users", &kinds.join(","), record.id.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let spawned = Command::from(maker).kill_on_drop(true).spawn();
    let mut maker = spawned.context(|| step.clone())?;
    let made = tokio::time::timeout(MADE_WITHIN, converse(&mut maker, wanted)).await;
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Failed::Step(error))) => Err(error),
        Ok(Err(Failed::Silent)) => {
            let cause = Cause::of(last_words(&mut maker).await);
            Err(Error::Internal { step, cause })
        }
        Err(_) => Err(Error::DeadlineExceeded(format!(
            "the maker of the namespaces of pod {name} says nothing"
        ))),
    }
}

enum Failed {
    /// The process ended, and its standard error says why.
    Silent,
    Step(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Step(error)
    }
}

async fn converse(maker: &mut Child, wanted: Wanted<'_>) -> std::result::Result<(), Failed> {
    let pid = maker.id().and_then(|pid| i32::try_from(pid).ok());
    let (Some(pid), Some(mut input), Some(mut output)) =
        (pid, maker.stdin.take(), maker.stdout.take())
    else {
        return Err(Failed::Silent);
    };
    hear(&mut output).await?;
    let tables = wanted.map.tables();
    let pin = wanted.pin;
    blocking(move || {
        ns::give_ids(pid, &tables).context(|| "give a user namespace its ids")?;
        pin_of(pid, Kind::User, &pin)
    })
    .await?;
    // A process that has ended is heard of in a moment.
    input.write_all(b".").await.ok();
    hear(&mut output).await?;
    let others = wanted.others;
    let pin_all = move || {
        let mut others = others.iter();
        others.try_for_each(|(kind, path)| pin_of(pid, *kind, path))
    };
    blocking(pin_all).await?;
    drop(input);
    // It has nothing to do any more; one that does not end is killed.
    maker.wait().await.ok();
    Ok(())
}

async fn hear(output: &mut ChildStdout) -> std::result::Result<(), Failed> {
    let heard = output.read_exact(&mut [0]).await;
    heard.map(drop).map_err(|_| Failed::Silent)
}

async fn last_words(maker: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(errors) = maker.stderr.take() {
        let mut errors = errors.take(LAST_WORDS);
        let read = errors.read_to_end(&mut words);
        tokio::time::timeout(MADE_WITHIN, read).await.ok();
    }
    String::from_utf8_lossy(&words).trim().to_owned()
}

fn pin_of(pid: i32, kind: Kind, path: &Path) -> Result<()> {
    ns::pin_of(pid, kind, path).context(|| format!("pin the {} namespace", kind.file()))
}
