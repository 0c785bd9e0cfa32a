//! Containers that another OCI runtime starts: which they are, what cannot be had of them, and the
//! state that the runtime keeps of each.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::container::Access;
use crisp_model::{ContainerId, Field, PodConfig};
use crisp_shim_api::Foreign;
use crisp_sys::{file, process};
use tokio::process::Command;

use super::bundle::{Bundle, read_foreign};
use crate::blocking::blocking;
use crate::config::Support;
use crate::error::{Context, Error, Result};
use crate::machine::effect::CreatePlan;
use crate::paths;
use crate::shared::Shared;

/// How long a runtime may take to forget a container that is over. Then its directory is removed.
const FORGETS_WITHIN: Duration = Duration::from_secs(5);

/// The program that starts the containers of a pod, if Crisp itself does not.
pub(super) fn of(shared: &Shared, pod: &PodConfig) -> Result<Option<Foreign>> {
    let oci = shared.handler(&pod.runtime_handler)?.oci.as_ref();
    Ok(oci.map(|oci| Foreign {
        program: oci.program.clone(),
        root: shared.paths.runtimes().join(&oci.name),
        root_at: shared.paths.empty_root(),
    }))
}

/// Refuses what the pod's handler says that it cannot do.
pub(super) fn check(shared: &Shared, plan: &CreatePlan) -> Result<()> {
    let handler = shared.handler(&plan.pod.config.runtime_handler)?;
    shared.check_handler(&plan.pod.config)?;
    let Some((oci, Ok(can))) = handler.oci.as_ref().map(|oci| (oci, &oci.can)) else {
        return Ok(());
    };
    let recursive = plan
        .record
        .config
        .mounts
        .iter()
        .find(|mount| mount.access == Access::RecursiveReadOnly);
    match recursive {
        Some(mount) if can.recursive_read_only == Support::No => {
            let why = format!(
                "{} cannot make the mount at {} read-only with all below it: use a handler of kind \
                 native",
                oci.program.display(),
                mount.container_path.display()
            );
            Err(Error::invalid(Field::RuntimeHandler, why))
        }
        _ => Ok(()),
    }
}

/// Refuses what a spec cannot say: its program reads nothing else.
pub(super) fn check_bundle(bundle: &Bundle) -> Result<()> {
    let (Some(foreign), Some(variable)) = (&bundle.foreign, bundle.raw_environment.first()) else {
        return Ok(());
    };
    let name = variable.split(|byte| *byte == b'=').next();
    let why = format!(
        "the value of {:?} is not UTF-8, as all must be that is given to {}: use a handler of kind \
         native",
        String::from_utf8_lossy(name.unwrap_or_default()),
        foreign.program.display()
    );
    Err(Error::invalid(Field::RuntimeHandler, why))
}

/// Has the runtime of a container that is over forget it, whatever the configuration says by now.
/// Its directory goes even when the program has gone or fails.
pub(super) async fn forget(shared: &Arc<Shared>, id: &ContainerId) -> Result<()> {
    let (kernel, owned) = (Arc::clone(shared), id.clone());
    let (states, foreign) = blocking(move || {
        let states = states(&kernel, &owned);
        Ok((states, read_foreign(&kernel.paths.bundle(&owned))))
    })
    .await?;
    if states.is_empty() {
        return Ok(());
    }
    if let Some(foreign) = foreign {
        delete(&foreign, id).await;
    }
    let removed = blocking(move || {
        let each = states.iter().map(|dir| {
            let removed = file::remove_tree_if_there(dir);
            removed.context(|| format!("remove {}", dir.display()))
        });
        each.collect()
    });
    removed.await
}

/// The directories that runtimes have for a container.
fn states(shared: &Shared, id: &ContainerId) -> Vec<PathBuf> {
    let runtimes = shared.paths.runtimes();
    let of = |name: &str| Some(runtimes.join(name).join(id.as_str()));
    let mut states = paths::ids(&runtimes, of);
    states.retain(|dir| dir.exists());
    states
}

async fn delete(foreign: &Foreign, id: &ContainerId) {
    let mut command = process::command(&foreign.program);
    command.arg("--root").arg(&foreign.root);
    command.args(["delete", "--force", id.as_str()]);
    let nothing = [Stdio::null(), Stdio::null(), Stdio::null()];
    let [stdin, stdout, stderr] = nothing;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let deleted = Command::from(command).kill_on_drop(true).status();
    let why = match tokio::time::timeout(FORGETS_WITHIN, deleted).await {
        Ok(Ok(status)) if status.success() => return,
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {FORGETS_WITHIN:?}"),
    };
    let program = foreign.program.display();
    tracing::warn!(container_id = %id, %program, why, "the runtime does not forget a container; its state is removed");
}
