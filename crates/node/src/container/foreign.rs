//! Containers that another OCI runtime starts: which they are, what cannot be had of them, and the
//! state that the runtime keeps of each.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::container::Access;
use crisp_model::{ContainerId, Field, PodConfig, Propagation};
use crisp_shim_api::Foreign;
use crisp_sys::{file, process};
use oci_spec::runtime::Spec;
use tokio::process::Command;

use super::bundle::{Bundle, read_foreign};
use crate::blocking::blocking;
use crate::config::{OciRuntime, Support};
use crate::error::{Context, Error, Result};
use crate::machine::effect::CreatePlan;
use crate::paths;
use crate::shared::Shared;

/// How long a runtime may take to forget a container that is over. Then its directory is removed.
const FORGETS_WITHIN: Duration = Duration::from_secs(5);
/// How long a runtime may take to tell the state of a container.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

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
    let program = oci.program.display();
    let mut mounts = plan.record.config.mounts.iter();
    let why = mounts.find_map(|mount| {
        let at = mount.container_path.display();
        let is_recursive = mount.access == Access::RecursiveReadOnly;
        let goes_out = mount.propagation == Propagation::Bidirectional;
        if is_recursive && can.recursive_read_only != Support::Yes {
            return Some(format!(
                "{program} cannot make the mount at {at} read-only with all below it"
            ));
        }
        (goes_out && plan.pod.config.namespaces.users.is_some()).then(|| {
            format!(
                "what is mounted in {at} cannot go out to the host from a user namespace in which \
                 {program} makes the container's mounts"
            )
        })
    });
    match why {
        None => Ok(()),
        Some(why) => {
            let why = format!("{why}: use a handler of kind native");
            Err(Error::invalid(Field::RuntimeHandler, why))
        }
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

/// Refuses a spec with a confinement that the program does not do, or does not tell of: it would start
/// the container without, and say nothing.
pub(super) fn check_confinement(oci: &OciRuntime, spec: &Spec) -> Result<()> {
    let Ok(can) = &oci.can else {
        return Ok(());
    };
    let (linux, process) = (spec.linux().as_ref(), spec.process().as_ref());
    let some = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
    let profile = process.and_then(|process| process.apparmor_profile().as_deref());
    let labels = [
        process.and_then(|process| process.selinux_label().as_deref()),
        linux.and_then(|linux| linux.mount_label().as_deref()),
    ];
    let has_filter = linux.is_some_and(|linux| linux.seccomp().is_some());
    let has_profile = some(profile) && profile != Some("unconfined");
    let needs = [
        (has_filter, can.confinement.seccomp, "seccomp profile"),
        (has_profile, can.confinement.apparmor, "AppArmor profile"),
        (
            labels.into_iter().any(some),
            can.confinement.selinux,
            "SELinux label",
        ),
    ];
    let mut missing = needs.iter();
    match missing.find(|(needed, support, _)| *needed && *support != Support::Yes) {
        None => Ok(()),
        Some((_, support, what)) => {
            let program = oci.program.display();
            let says = match support {
                Support::Untold => "does not say whether it was built with that",
                Support::Yes | Support::No => "says that it was built without that",
            };
            let why = format!(
                "the container has a {what}, and {program} {says}: use a build that has it, or a \
                 handler of kind native"
            );
            Err(Error::invalid(Field::RuntimeHandler, why))
        }
    }
}

/// Has the runtime of a container that is over forget it, whatever the configuration says by now.
/// Its directory goes even when the program has gone or fails.
pub(super) async fn forget(shared: &Arc<Shared>, id: &ContainerId) -> Result<()> {
    if !shared.has_foreign {
        return Ok(());
    }
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

/// Whether another runtime has made a container and not begun its program: what lives of it is the
/// runtime's own, which waits for a start. `false` when the runtime does not tell in time.
pub(crate) async fn waits_for_its_start(shared: &Arc<Shared>, id: &ContainerId) -> bool {
    let (kernel, owned) = (Arc::clone(shared), id.clone());
    let read = blocking(move || Ok(read_foreign(&kernel.paths.bundle(&owned)))).await;
    let Ok(Some(foreign)) = read else {
        return false;
    };
    let mut asked = command(&foreign, &["state", id.as_str()]);
    let told = tokio::time::timeout(TELLS_WITHIN, asked.stdout(Stdio::piped()).output()).await;
    matches!(told, Ok(Ok(output)) if is_created(&output.stdout))
}

/// Whether a state of the OCI runtime spec is that of a container that was made and not started.
fn is_created(state: &[u8]) -> bool {
    let state: Option<serde_json::Value> = serde_json::from_slice(state).ok();
    state.is_some_and(|state| state["status"] == "created")
}

fn command(foreign: &Foreign, arguments: &[&str]) -> Command {
    let mut command = process::command(&foreign.program);
    command.arg("--root").arg(&foreign.root).args(arguments);
    let nothing = [Stdio::null(), Stdio::null(), Stdio::null()];
    let [stdin, stdout, stderr] = nothing;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

async fn delete(foreign: &Foreign, id: &ContainerId) {
    let mut command = command(foreign, &["delete", "--force", id.as_str()]);
    let deleted = command.status();
    let why = match tokio::time::timeout(FORGETS_WITHIN, deleted).await {
        Ok(Ok(status)) if status.success() => return,
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {FORGETS_WITHIN:?}"),
    };
    let program = foreign.program.display();
    tracing::warn!(container_id = %id, %program, why, "the runtime does not forget a container; its state is removed");
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Linux, LinuxSeccomp, Process};

    use super::*;
    use crate::config::{Abilities, Confinement};

    fn runtime(confinement: Confinement) -> OciRuntime {
        OciRuntime {
            program: "/opt/crun".into(),
            name: "crun".to_owned(),
            can: Ok(Abilities {
                recursive_read_only: Support::Yes,
                user_namespaces: Ok(()),
                confinement,
            }),
        }
    }

    #[test]
    fn confinement_that_a_program_has_not_is_refused_by_name() {
        type Change = fn(&mut Linux, &mut Process);
        type Case = (Change, Confinement, Option<&'static str>);
        let all = Confinement {
            seccomp: Support::Yes,
            apparmor: Support::Yes,
            selinux: Support::Yes,
        };
        let (mut no_seccomp, mut no_apparmor, mut no_selinux) = (all, all, all);
        no_seccomp.seccomp = Support::No;
        no_apparmor.apparmor = Support::No;
        no_selinux.selinux = Support::No;
        let cases: [Case; 5] = [
            (
                |linux, _| _ = linux.set_seccomp(Some(LinuxSeccomp::default())),
                no_seccomp,
                Some("seccomp profile"),
            ),
            (
                |_, process| _ = process.set_apparmor_profile(Some("mine".to_owned())),
                no_apparmor,
                Some("AppArmor profile"),
            ),
            (
                |_, process| _ = process.set_apparmor_profile(Some("unconfined".to_owned())),
                no_apparmor,
                None,
            ),
            (
                |_, process| _ = process.set_selinux_label(Some("u:r:t:s0".to_owned())),
                no_selinux,
                Some("SELinux label"),
            ),
            (
                |linux, _| _ = linux.set_mount_label(Some("u:r:t:s0".to_owned())),
                no_selinux,
                Some("SELinux label"),
            ),
        ];
        let mut untold = all;
        untold.seccomp = Support::Untold;
        let untold_seccomp: Case = (cases[0].0, untold, Some("does not say whether"));
        for (change, lacks, wanted) in cases.into_iter().chain([untold_seccomp]) {
            let (mut linux, mut process) = (Linux::default(), Process::default());
            linux.set_seccomp(None);
            process.set_apparmor_profile(None).set_selinux_label(None);
            change(&mut linux, &mut process);
            let mut spec = Spec::default();
            spec.set_linux(Some(linux)).set_process(Some(process));
            assert!(check_confinement(&runtime(all), &spec).is_ok());
            let checked = check_confinement(&runtime(lacks), &spec);
            let told = checked.err().map(|error| error.to_string());
            let told = told.unwrap_or_default();
            match wanted {
                None => assert_eq!(told, ""),
                Some(what) => assert!(told.contains(what) && told.contains("/opt/crun"), "{told}"),
            }
        }
    }

    #[test]
    fn a_state_tells_whether_the_program_has_begun() {
        for (state, created) in [
            (
                r#"{"ociVersion": "1.3.0", "status": "created", "pid": 7}"#,
                true,
            ),
            (
                r#"{"ociVersion": "1.3.0", "status": "running", "pid": 7}"#,
                false,
            ),
            (r#"{"status": "creating"}"#, false),
            ("", false),
        ] {
            assert_eq!(is_created(state.as_bytes()), created, "{state}");
        }
    }
}
