//! New limits of a container: in its bundle before the start, by its shim from then on.

use std::path::Path;
use std::sync::Arc;

use crisp_model::{Field, Resources};
use crisp_shim_api::{FailureKind, Reply, Request};
use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

use super::bundle::{read_spec, write_spec};
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::machine::effect::Change;
use crate::shared::Shared;
use crate::shim::client::{self, ShimClient};

/// Puts new limits in force: all of them, or none.
pub(crate) async fn apply(
    shared: &Arc<Shared>,
    change: &Change,
    shim: Option<&ShimClient>,
) -> Result<()> {
    let whole = to_oci(&change.new, shared.cgroups.layout().is_v2())?;
    if change.in_bundle {
        let bundle = shared.paths.bundle(&change.id);
        let score = change.new.oom_score_adj;
        return blocking(move || rewrite(&bundle, whole, score)).await;
    }
    let id = &change.id;
    let gone = || Error::Unavailable(format!("the shim of container {id} has gone"));
    let shim = shim.ok_or_else(gone)?;
    let resources = Box::new(never_below_use(whole));
    let asked = shim.call(Request::Update { resources }, shared.config.timeouts.shim);
    let order = async { outcome(asked.await?) };
    weigh_and(shared, change, order).await
}

/// Limits that the kernel refuses are no fault of Crisp's: its number says whether they cannot be, or
/// cannot be now. An older shim tells no number.
fn outcome(reply: Reply) -> Result<()> {
    let Reply::Failed {
        kind: FailureKind::Io,
        message: why,
        errno: Some(errno),
    } = reply
    else {
        return client::done(reply);
    };
    let field = Field::Limits;
    match Errno::from_raw_os_error(errno) {
        // The last two are a device and a file of the kernel's that are not there.
        Errno::INVAL | Errno::RANGE | Errno::NODEV | Errno::NOENT => {
            Err(Error::InvalidArgument { field, why })
        }
        Errno::BUSY => Err(Error::NotNow { field, why }),
        _ => client::done(Reply::Failed {
            kind: FailureKind::Io,
            message: why,
            errno: Some(errno),
        }),
    }
}

/// Weights, which count among siblings, are changed first: whoever has to be asked for that may
/// not answer. An order that is refused afterwards takes them back.
async fn weigh_and(
    shared: &Shared,
    change: &Change,
    order: impl Future<Output = Result<()>>,
) -> Result<()> {
    let Change {
        cgroup_path,
        old,
        new,
        ..
    } = change;
    shared.cgroups.weigh(cgroup_path, old, new).await?;
    let ordered = order.await;
    if ordered.is_err()
        && let Err(error) = shared.cgroups.weigh(cgroup_path, new, old).await
    {
        tracing::warn!(target: "crisp::container", %cgroup_path, %error, "the weights of refused limits stay in force");
    }
    ordered
}

/// Limits in the words of the OCI spec.
fn to_oci(resources: &Resources, v2: bool) -> Result<LinuxResources> {
    crisp_spec::linux_resources(resources, v2).map_err(super::create::spec_error)
}

/// The same, refused where the container uses more memory: the kernel of cgroup v2 would kill it.
fn never_below_use(mut limits: LinuxResources) -> LinuxResources {
    if let Some(mut memory) = *limits.memory() {
        memory.set_check_before_update(Some(true));
        limits.set_memory(Some(memory));
    }
    limits
}

/// Changes the limits of a container that is not started yet.
fn rewrite(bundle: &Path, mut limits: LinuxResources, score: Option<i64>) -> Result<()> {
    let mut spec = read_spec(bundle)?;
    if let Some(score) = score.and_then(|score| i32::try_from(score).ok()) {
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_oom_score_adj(Some(score));
        spec.set_process(Some(process));
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    // Device rules are no limits: they stay.
    let devices = linux.resources().as_ref().and_then(|r| r.devices().clone());
    limits.set_devices(devices);
    linux.set_resources(Some(limits));
    spec.set_linux(Some(linux));
    write_spec(bundle, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_kernels_number_says_whose_affair_a_refused_limit_is() {
        let failed = |kind, errno| Reply::Failed {
            kind,
            message: "limit the cgroup: write \"9\" to /a/cpuset.cpus: refused".to_owned(),
            errno,
        };
        for (errno, code) in [
            (Some(Errno::INVAL), Code::InvalidArgument),
            (Some(Errno::RANGE), Code::InvalidArgument),
            (Some(Errno::NODEV), Code::InvalidArgument),
            (Some(Errno::NOENT), Code::InvalidArgument),
            (Some(Errno::BUSY), Code::FailedPrecondition),
            (Some(Errno::NOSPC), Code::ResourceExhausted),
            (Some(Errno::IO), Code::Internal),
            (None, Code::Internal),
        ] {
            let number = errno.map(Errno::raw_os_error);
            let error = outcome(failed(FailureKind::Io, number)).unwrap_err();
            assert_eq!(error.code(), code, "{errno:?}");
            assert!(error.to_string().contains("cpuset.cpus"), "{error}");
        }
        let ended = outcome(failed(FailureKind::NotRunning, None)).unwrap_err();
        assert_eq!(ended.code(), Code::FailedPrecondition);
        assert!(outcome(Reply::Done).is_ok());
    }
}
