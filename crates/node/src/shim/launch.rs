//! Starting a container: a shim is spawned, told what to own, and heard out.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crisp_shim_api::exit::SLOT_SIZE;
use crisp_shim_api::{Launch, Reply};
use crisp_sys::file;
use crisp_sys::process::ProcessId;
use crisp_sys::socket::Conn;
use tokio::process::Child;

use super::client::{Answer, Connection};
use super::loan::{Link, Loan};
use super::spares::reap;
use crate::blocking::brief;
use crate::container::clear;
use crate::error::{Context, Error, Result};
use crate::machine::effect::{LaunchPlan, Remains};
use crate::shared::Shared;

/// How long a killed shim is waited for.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);
/// How much of a shim's last words is told.
const LAST_WORDS: u64 = 4096;

/// A container whose program runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) init: ProcessId,
    pub(crate) link: Link,
    pub(crate) shim: Option<ProcessId>,
    pub(crate) warnings: Vec<String>,
}

/// Launches a container. A failure leaves neither shim nor cgroup.
pub(crate) async fn launch(shared: &Arc<Shared>, plan: LaunchPlan) -> Result<Launched> {
    let launched = try_launch(shared, &plan).await;
    if launched.is_err() {
        let remains = Remains {
            pod: None,
            id: plan.id.clone(),
            cgroup_path: Some(plan.cgroup_path.clone()),
        };
        if let Err(error) = clear::after_failed_launch(shared, &remains).await {
            tracing::warn!(container_id = %plan.id, %error, "failed start not wholly undone");
        }
    }
    launched
}

async fn try_launch(shared: &Arc<Shared>, plan: &LaunchPlan) -> Result<Launched> {
    let (kernel, owned) = (Arc::clone(shared), plan.clone());
    let mut found = brief(move || find(&kernel, &owned)).await?;
    // While the shim's program is being loaded.
    let opened = shared.cgroups.open(&plan.cgroup_path, &plan.resources);
    let encode = |()| frame(shared, plan).encode().context(|| "encode the launch");
    let first = opened.await.map_err(Error::from).and_then(encode);
    loop {
        let spare = found.spare;
        let first = first.clone().map(|bytes| (bytes, Vec::new()));
        let Failure { told, error } = match talk(shared, found, first).await {
            Ok(launched) => return Ok(launched),
            Err(failure) => failure,
        };
        let has_gone = spare && matches!(error, Error::Unavailable(_));
        if has_gone {
            shared.spares.give_up();
        }
        if told || !has_gone {
            return Err(with_last_words(shared, plan, error).await);
        }
        // The next of the few that were loaded ahead, or one of its own.
        let (kernel, owned) = (Arc::clone(shared), plan.clone());
        found = brief(move || load(&kernel, &owned)).await?;
    }
}

/// Why a shim started nothing.
#[derive(Debug)]
pub(super) struct Failure {
    error: Error,
    /// Whether it may have begun; one that was told nothing has not.
    told: bool,
}

impl Failure {
    fn of_told(error: Error) -> Self {
        Self { error, told: true }
    }

    fn of_untold(error: Error) -> Self {
        Self { error, told: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Gives a loaded shim its first frame and hears it out; one that fails is ended.
pub(super) async fn talk(
    shared: &Arc<Shared>,
    found: Found,
    first: Result<(Vec<u8>, Vec<OwnedFd>)>,
) -> std::result::Result<Launched, Failure> {
    let (mut child, conn) = (found.child, found.conn);
    let shim = child.id().and_then(|pid| i32::try_from(pid).ok());
    let shim = shim.and_then(|pid| ProcessId::of(pid).ok());
    let within = shared.config.timeouts.launch;
    let outcome = match first {
        Ok((bytes, mut fds)) => {
            fds.insert(0, found.last_words.into());
            introduce_within(conn, (&bytes, &fds), within).await
        }
        Err(error) => Err(Failure::of_told(error)),
    };
    match outcome {
        Ok(mut launched) => {
            launched.shim = shim;
            if let Some(shim) = shim {
                shared.shelter(shim);
            }
            crisp_tasks::apart(reap(child));
            Ok(launched)
        }
        Err(failure) => {
            // A shim leaves by itself after a failure, unless it hangs. A shim that the kernel
            // holds is not waited for.
            drop(child.start_kill());
            drop(tokio::time::timeout(LEAVES_WITHIN, child.wait()).await);
            crisp_tasks::apart(reap(child));
            Err(failure)
        }
    }
}

/// A process that waits for its launch, and the file for its last words.
pub(super) struct Found {
    child: Child,
    conn: Conn,
    last_words: File,
    /// Whether it was loaded ahead.
    spare: bool,
}

/// A shim for a container that was never started.
fn find(shared: &Shared, plan: &LaunchPlan) -> Result<Found> {
    let slot = shared.paths.exit_slot(&plan.pod, &plan.id);
    let step = || {
        format!(
            "make the exit slot {} for container {}",
            slot.display(),
            plan.id
        )
    };
    file::make_slot(&slot, SLOT_SIZE).context(step)?;
    load(shared, plan)
}

/// Takes a shim that is loaded already, or loads one.
pub(super) fn load(shared: &Shared, plan: &LaunchPlan) -> Result<Found> {
    let step = |what: &str| format!("{what} for container {}", plan.id);
    let last_words = last_words(&shared.paths.bundle(&plan.id));
    let last_words = last_words.context(|| step("open /dev/null for the shim's log"))?;
    let loaded = shared.spares.take(&plan.id);
    let spare = loaded.is_some();
    let (child, conn) = match loaded {
        Some(loaded) => loaded,
        None => {
            let log = last_words.try_clone();
            let log = log.context(|| step("open the shim's log"))?;
            // The id is how a later daemon recognises a shim that does not listen yet.
            let spawned = shared.spares.spawn(plan.id.as_str(), Stdio::from(log));
            let path = shared.config.shim_path.display();
            spawned.context(|| step(&format!("spawn {path}")))?
        }
    };
    Ok(Found {
        child,
        conn,
        last_words,
        spare,
    })
}

/// Where a shim that panics says why. A container starts without such a place as well.
fn last_words(bundle: &Path) -> std::io::Result<File> {
    let path = bundle.join(crisp_shim_api::LAST_WORDS);
    let mut options = File::options();
    let opened = options.create(true).append(true).mode(0o600).open(&path);
    opened.or_else(|error| {
        let path = path.display();
        tracing::warn!(%path, %error, "the last words of a shim will be lost");
        File::options().write(true).open("/dev/null")
    })
}

/// The first frame of a shim that starts this container.
pub(super) fn frame(shared: &Shared, plan: &LaunchPlan) -> Launch {
    Launch {
        version: crisp_shim_api::VERSION,
        container_id: plan.id.clone(),
        pod_id: plan.pod.clone(),
        bundle: shared.paths.bundle(&plan.id),
        rootfs: plan.rootfs.clone(),
        cgroup_path: plan.cgroup_path.clone(),
        socket: shared.paths.shim_socket(&plan.id),
        log: plan.log.clone(),
        exit_file: shared.paths.exit_slot(&plan.pod, &plan.id),
        stdin: plan.stdin,
        open_files: shared.open_files,
        shims_cgroup: shared.cgroups.shims(),
    }
}

/// A shim whose worker hangs, as at a file system whose server is gone, is not waited for.
async fn introduce_within(
    conn: Conn,
    first: (&[u8], &[OwnedFd]),
    within: Duration,
) -> std::result::Result<Launched, Failure> {
    let introduced = introduce(conn, first);
    tokio::time::timeout(within, introduced)
        .await
        .unwrap_or_else(|_| {
            let text = format!("its shim did not start it within {within:?}");
            Err(Failure::of_told(Error::DeadlineExceeded(text)))
        })
}

async fn introduce(
    conn: Conn,
    (bytes, fds): (&[u8], &[OwnedFd]),
) -> std::result::Result<Launched, Failure> {
    let connection = Connection::new(conn).context(|| "use the shim's socket");
    let connection = connection.map_err(Failure::of_untold)?;
    if let Err(error) = connection.send(bytes, fds).await {
        let text = format!("tell the shim what to launch: {error}");
        return Err(Failure::of_untold(Error::Unavailable(text)));
    }
    let answer = connection.answer(0).await.map_err(|error| Failure {
        // The launch was the one message.
        told: !connection.was_unread(),
        error,
    })?;
    started(answer, connection).map_err(Failure::of_told)
}

fn started(Answer { reply, fds }: Answer, connection: Connection) -> Result<Launched> {
    match reply {
        Reply::Started {
            pid,
            start_time,
            warnings,
            streams,
        } => Ok(Launched {
            init: ProcessId { pid, start_time },
            link: Link {
                connection,
                loan: Loan::of(&streams, fds),
            },
            shim: None,
            warnings,
        }),
        Reply::Failed { message, errno, .. } => Err(Error::not_started(message, errno)),
        other => Err(Error::start(format!("the shim answered {other:?}"))),
    }
}

/// A shim that ended without an answer may have said why on its standard error.
async fn with_last_words(shared: &Shared, plan: &LaunchPlan, error: Error) -> Error {
    let log = shared
        .paths
        .bundle(&plan.id)
        .join(crisp_shim_api::LAST_WORDS);
    let read = move || file::read_bounded(&log, LAST_WORDS).unwrap_or_default();
    let words = crisp_tasks::blocking(read).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    match (error, words.trim()) {
        (error, "") => error,
        (Error::Unavailable(text), words) => Error::Unavailable(format!("{text}: {words}")),
        (Error::DeadlineExceeded(text), words) => {
            Error::DeadlineExceeded(format!("{text}: {words}"))
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use crisp_shim_api::{FailureKind, FromShim};

    use super::*;

    #[tokio::test]
    async fn a_silent_shim_is_not_waited_for_and_one_that_answers_is_heard() {
        let (ours, silent) = Conn::pair().unwrap();
        let within = Duration::from_millis(50);
        let outcome = introduce_within(ours, (b"{}", &[]), within).await;
        match Error::from(outcome.unwrap_err()) {
            Error::DeadlineExceeded(text) => {
                assert_eq!(text, "its shim did not start it within 50ms");
            }
            other => panic!("{other}"),
        }
        // It was told, and kept the connection.
        assert!(silent.recv(16).unwrap().is_some());
        let (ours, theirs) = Conn::pair().unwrap();
        let reply = Reply::Failed {
            kind: FailureKind::Start,
            message: "no such program".to_owned(),
            errno: None,
        };
        let frame = FromShim::Reply { seq: 0, reply }.encode().unwrap();
        theirs.send(&frame, &[]).unwrap();
        let outcome = introduce_within(ours, (b"{}", &[]), Duration::from_secs(60)).await;
        let Failure { error, told } = outcome.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no such program") && told, "{text}");
    }

    #[tokio::test]
    async fn a_shim_that_has_gone_was_told_nothing() {
        let (ours, theirs) = Conn::pair().unwrap();
        drop(theirs);
        let outcome = introduce_within(ours, (b"{}", &[]), Duration::from_secs(60)).await;
        let Failure { error, told } = outcome.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)) && !told, "{error}");
        // A shim that was about to go took the launch with it.
        for reads in [false, true] {
            let (ours, theirs) = Conn::pair().unwrap();
            let introduced = introduce_within(ours, (b"{}", &[]), Duration::from_secs(60));
            let goes = async {
                let theirs = Connection::new(theirs).unwrap();
                match reads {
                    true => drop(theirs.receive().await.unwrap().unwrap()),
                    false => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            let Failure { error, told } = tokio::join!(introduced, goes).0.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error}");
            assert_eq!(told, reads, "{error}");
        }
    }

    #[test]
    fn a_place_for_last_words_is_no_condition() {
        let bundle = tempfile::tempdir().unwrap();
        super::last_words(bundle.path()).unwrap();
        let path = bundle.path().join(crisp_shim_api::LAST_WORDS);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        super::last_words(bundle.path()).unwrap();
    }
}
