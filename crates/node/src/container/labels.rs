//! The step of a creation that gives the files of volumes their SELinux label. It changes files of
//! the caller, and may walk through millions of them: so it is the last step before the bundle is
//! written, on a thread of its own that ends soon when nobody wants the container any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerName, Volume};
use crisp_spec::ResolvedMount;
use tokio::sync::Notify;

use super::look;
use super::relabel::{self, Protected, Relabelling};
use crate::error::{Error, Result};
use crate::machine::effect::CreatePlan;
use crate::shared::Shared;

/// How long it may take; callers wait for two minutes.
const WITHIN: Duration = Duration::from_secs(100);

/// The files that get a label.
#[derive(Debug)]
pub(super) struct ToLabel {
    label: String,
    paths: Vec<PathBuf>,
}

/// Refuses volumes that are not relabelled, before anything is made for the container.
pub(super) fn check(
    shared: &Shared,
    config: &ContainerConfig,
    found: &[ResolvedMount],
) -> Result<()> {
    let asked = relabel::asked_for(&config.mounts, found);
    if asked.is_empty() || !shared.host.selinux {
        return Ok(());
    }
    relabel::check(&asked, &protected(shared))
}

/// The sources of mounts for which that is asked, and what was copied out of the image; none where
/// there is nothing to label.
pub(super) fn to_give(
    shared: &Shared,
    plan: &CreatePlan,
    (mounts, volumes): (&[ResolvedMount], &[Volume]),
) -> Option<ToLabel> {
    let (config, pod) = (&plan.record.config, &plan.pod);
    let mut paths = relabel::asked_for(&config.mounts, mounts);
    paths.extend(volumes.iter().map(|volume| volume.source.clone()));
    let label = || crisp_spec::volume_label(config, &pod.config, pod.selinux_level);
    let is_given = shared.host.selinux && !paths.is_empty();
    is_given.then(|| ToLabel {
        label: label(),
        paths,
    })
}

/// Labels them.
pub(super) async fn give(
    shared: &Arc<Shared>,
    plan: &CreatePlan,
    (files, cancel): (ToLabel, &Notify),
) -> Result<()> {
    let kernel = Arc::clone(shared);
    let walk = move |unwanted: &AtomicBool| {
        let relabelling = Relabelling {
            label: &files.label,
            protected: &protected(&kernel),
            unwanted,
        };
        relabelling.all(&files.paths)
    };
    walk_within(&plan.record.config.name, (walk, WITHIN), cancel).await
}

fn protected(shared: &Shared) -> Protected {
    Protected::now(&[shared.config.root.clone(), shared.config.state.clone()])
}

/// Runs a walk on a thread of its own. Its end is waited for either way: the pod's level is free
/// again with the pod, and no file may get it after that.
async fn walk_within<T: Send + 'static>(
    name: &ContainerName,
    (walk, within): (
        impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
        Duration,
    ),
    cancel: &Notify,
) -> Result<T> {
    let unwanted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&unwanted);
    let started = crisp_tasks::thread("crisp-relabel", move || walk(&flag));
    let step = || format!("begin relabelling the volumes of container {name}");
    let walked = crate::error::Context::context(started, step)?;
    let mut walked = std::pin::pin!(walked);
    let why = tokio::select! {
        walked = &mut walked => {
            return walked.unwrap_or_else(|failed| Err(Error::fault(&failed)));
        }
        () = cancel.notified() => look::unwanted(name),
        () = tokio::time::sleep(within) => Error::DeadlineExceeded(format!(
            "container {name}: relabelling its volumes for SELinux took longer than {within:?}; files \
             that have the label keep it, so that another try has less to do"
        )),
    };
    unwanted.store(true, Ordering::Relaxed);
    walked.await.ok();
    Err(why)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A walk that ends when it is unwanted, and counts that.
    fn endless(ended: &Arc<AtomicUsize>) -> impl FnOnce(&AtomicBool) -> Result<()> + use<> {
        let ended = Arc::clone(ended);
        move |unwanted| {
            while !unwanted.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(50));
            ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_walk_has_ended_when_its_creation_is_over() {
        let name = ContainerName {
            name: "web".into(),
            attempt: 0,
        };
        let (cancel, ended) = (Notify::new(), Arc::new(AtomicUsize::new(0)));
        let brief = Duration::from_millis(20);
        let late = walk_within(&name, (endless(&ended), brief), &cancel).await;
        let late = late.unwrap_err();
        let told = late.to_string();
        assert!(matches!(late, Error::DeadlineExceeded(_)), "{told}");
        assert!(told.contains("relabelling its volumes"), "{told}");
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        cancel.notify_one();
        let unwanted = walk_within(&name, (endless(&ended), WITHIN), &cancel).await;
        assert!(matches!(unwanted, Err(Error::Unavailable(_))));
        assert_eq!(ended.load(Ordering::Relaxed), 2);
        let done = walk_within(&name, (|_: &AtomicBool| Ok(7), WITHIN), &cancel).await;
        assert_eq!(done.unwrap(), 7);
    }
}
