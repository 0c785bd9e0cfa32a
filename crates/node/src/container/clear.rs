//! Removing all that a container has, whatever there is of it: for its removal, for a creation
//! that failed, for remains that no record names.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{CgroupPath, ContainerId, PodId};
use crisp_shim_api::exit::SLOT_SIZE;
use crisp_shim_api::{ExitRecord, Request};
use crisp_sys::{file, ns};

use super::foreign;
use crate::blocking::{blocking, brief};
use crate::error::{Context, Error, Result};
use crate::machine::effect::Remains;
use crate::shared::Shared;
use crate::shim::client::{Connection, ShimClient, kill, shims_of};

/// How long a shim without a record may take to kill its container and leave.
const SHIM_LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// Removes shim, processes, cgroup, snapshot and files. Goes on after errors.
/// The shim is the one that the daemon is connected to, if it is.
pub(crate) async fn clear(
    shared: &Arc<Shared>,
    remains: &Remains,
    shim: Option<&ShimClient>,
) -> Result<()> {
    shared.spares.dismiss(&remains.id).await;
    let errors = match shim {
        // All else goes while the shim ends.
        Some(shim) => {
            let leaving = shim.send_away().await;
            tokio::join!(remove(shared, remains), leaving.over()).0
        }
        None => {
            dismiss_stranger(&shared.paths.shim_socket(&remains.id), remains.id.as_str()).await;
            remove(shared, remains).await
        }
    };
    shared
        .sampler
        .forget(&remains.id, remains.cgroup_path.as_ref());
    let step = format!("remove container {}", remains.id);
    Error::gather(&step, errors).map_or(Ok(()), Err)
}

/// Removes all but the shim.
async fn remove(shared: &Arc<Shared>, remains: &Remains) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(remove_cgroup(shared, remains).await.err());
    errors.extend(foreign::forget(shared, &remains.id).await.err());
    if let Some(pod) = &remains.pod {
        shared.cgroups.tidy(pod).await;
    }
    let (kernel, owned) = (Arc::clone(shared), remains.clone());
    match blocking(move || Ok(remove_files(&kernel, &owned))).await {
        Ok(more) => errors.extend(more),
        Err(error) => errors.push(error),
    }
    errors
}

/// Sends the shim of a container that is over away, unless it alone knows how that ended: on a disk
/// that was full, say. That one goes with its container or its pod.
pub(crate) async fn dismiss_recorded(
    shared: &Shared,
    (pod, id): (&PodId, &ContainerId),
    shim: Option<&ShimClient>,
) {
    let slot = shared.paths.exit_slot(pod, id);
    let is_recorded = brief(move || {
        let slot = file::read_bounded(&slot, SLOT_SIZE as u64);
        Ok(slot.is_ok_and(|slot| ExitRecord::from_slot(&slot).is_some()))
    });
    if !is_recorded.await.unwrap_or(false) {
        return;
    }
    match shim {
        Some(shim) => shim.dismiss().await,
        None => dismiss_stranger(&shared.paths.shim_socket(id), id.as_str()).await,
    }
}

/// Removes what a launch that failed may have left running.
pub(crate) async fn after_failed_launch(shared: &Arc<Shared>, remains: &Remains) -> Result<()> {
    remove_cgroup(shared, remains).await?;
    foreign::forget(shared, &remains.id).await?;
    let socket = shared.paths.shim_socket(&remains.id);
    blocking(move || {
        file::remove_if_there(&socket).context(|| format!("remove {}", socket.display()))
    })
    .await
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

/// A shim that we are not connected to: of a start that nobody finished, or of a lost record.
async fn dismiss_stranger(socket: &Path, id: &str) {
    let connection = match Connection::open(socket) {
        Ok(connection) => connection,
        Err(error) if is_nobody(&error) => return,
        Err(_) => {
            // It is there, and takes no connection.
            return shims_of(id).await.iter().for_each(kill);
        }
    };
    let process = connection.peer();
    let leave = async {
        connection.ask(Request::KillAll).await?;
        loop {
            connection.ask(Request::Shutdown).await?;
            // It refuses until its container is over, and closes when it leaves.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left: std::result::Result<Result<()>, _> =
        tokio::time::timeout(SHIM_LEAVES_WITHIN, leave).await;
    if left.is_err()
        && let Some(process) = process
    {
        kill(&process);
    }
}

async fn remove_cgroup(shared: &Arc<Shared>, remains: &Remains) -> Result<()> {
    let found = match &remains.cgroup_path {
        Some(known) => Some(known.clone()),
        None => {
            let bundle = shared.paths.bundle(&remains.id);
            blocking(move || Ok(cgroup_of_bundle(&bundle))).await?
        }
    };
    match found {
        Some(path) => Ok(shared.cgroups.close(&path).await?),
        None => Ok(()),
    }
}

/// The cgroup that a bundle's spec names.
fn cgroup_of_bundle(bundle: &Path) -> Option<CgroupPath> {
    let spec = super::bundle::read_spec(bundle).ok()?;
    let path = spec.linux().as_ref()?.cgroups_path().as_ref()?;
    CgroupPath::parse(path.to_str()?).ok()
}

fn remove_files(shared: &Shared, remains: &Remains) -> Vec<Error> {
    let id = &remains.id;
    let paths = &shared.paths;
    let mut errors = Vec::new();
    let released = shared.config.images.release_here(id);
    let step = || format!("release the snapshot of container {id}");
    errors.extend(released.context(step).err());
    let mut check = |what: &str, removed: std::io::Result<()>| {
        let step = || format!("remove the {what} of container {id}");
        errors.extend(removed.context(step).err());
    };
    check("bundle", file::remove_tree_if_there(&paths.bundle(id)));
    check("socket", file::remove_if_there(&paths.shim_socket(id)));
    if let Some(pod) = &remains.pod {
        check("pinned target", ns::unpin(&paths.target_pin(pod, id)));
        check(
            "volumes",
            file::remove_tree_if_there(&paths.volumes(pod, id)),
        );
        check(
            "exit slot",
            file::remove_if_there(&paths.exit_slot(pod, id)),
        );
    }
    errors
}
