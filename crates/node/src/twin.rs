//! A pod's record a second time, in the state directory: what is lost of the journal on disk is not
//! lost as long as this boot of the machine goes on, and no running pod vanishes with its journal.
//!
//! Entries go to the journal first and to the twin after it, so after a kill the journal may know
//! more; the end of a container goes to the twin first, for the same reason. A twin that knows more
//! than its journal therefore tells that the journal has lost something, unless the journal says
//! itself that it is gone: then a daemon that writes no twins was here in between.

use std::path::{Path, PathBuf};

use crisp_model::{ContainerId, PodId};
use crisp_records::{ContainerState, Entry, Frame, Journal, PodState, Replay};
use crisp_sys::file;

use crate::paths::Paths;

/// The second record of a pod. Best effort: a pod without one lives on.
#[derive(Debug)]
pub(crate) struct Twin {
    path: PathBuf,
    journal: Option<Journal>,
}

impl Twin {
    /// A twin that says what these entries say.
    pub(crate) fn of(entries: &[Entry], path: PathBuf) -> Self {
        let mut twin = Self {
            journal: None,
            path,
        };
        match Journal::begin_small(&twin.path, entries) {
            Ok(journal) => twin.journal = Some(journal),
            Err(error) => twin.give_up(&error),
        }
        twin
    }

    /// Takes an entry that is, or is about to be, in the journal.
    pub(crate) fn append(&mut self, entry: &Frame) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.append_frame(entry)
        {
            self.give_up(&error);
        }
    }

    /// A twin that lags behind would be worse than none.
    fn give_up(&mut self, error: &std::io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "a pod has no second record");
        self.journal = None;
        self.remove();
    }

    /// Removes it, before the record that it is the twin of. Its file is closed with the record's.
    pub(crate) fn remove(&self) {
        if let Err(error) = file::remove_if_there(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the second record of a pod stays");
        }
    }
}

/// A whole twin of this boot of the machine. One whose pod has neither the directory of its record
/// nor pins is none: a daemon that writes no twins has removed that pod.
pub(crate) fn read(paths: &Paths, id: &PodId, boot_id: &str) -> Option<Replay> {
    let is_there = |dir: &Path| !matches!(dir.try_exists(), Ok(false));
    if !is_there(&paths.record(id)) && !is_there(&paths.pod_pins(id)) {
        return None;
    }
    let (replay, damage) = crisp_records::read(&paths.twin(id));
    let of_this_boot = replay.progress.as_ref()?.boot_id == boot_id;
    (damage.is_none() && replay.pod.is_some() && of_this_boot).then_some(replay)
}

/// Whether a journal has lost something that its twin tells.
pub(crate) fn knows_more(twin: &Replay, journal: &Replay) -> bool {
    let phase = |replay: &Replay| replay.progress.as_ref().map(|p| phase_step(p.phase));
    let lost = |(id, (_, state)): (&ContainerId, &(_, ContainerState))| {
        let known = journal.containers.get(id);
        let is_lost = known.is_none_or(|(_, known)| step(known) < step(state));
        is_lost && !journal.gone.contains(id)
    };
    journal.pod.is_none() || phase(journal) < phase(twin) || twin.containers.iter().any(lost)
}

/// How far a pod is. A removal that failed leaves it stopped as before.
fn phase_step(phase: PodState) -> u8 {
    match phase {
        PodState::Booting => 0,
        PodState::Ready => 1,
        PodState::Stopping => 2,
        PodState::NotReady | PodState::Removing => 3,
    }
}

/// How far a container is. A start that came to nothing leaves it created as before.
fn step(state: &ContainerState) -> u8 {
    match state {
        ContainerState::Creating => 0,
        ContainerState::Created | ContainerState::Starting { .. } => 1,
        ContainerState::Running { .. } => 2,
        ContainerState::Exited(_) => 3,
        ContainerState::Removing => 4,
    }
}

/// The containers that a record takes for running, for the log.
pub(crate) fn running(replay: &Replay) -> String {
    let each = replay.containers.values();
    let running = each.filter(|(_, state)| matches!(state, ContainerState::Running { .. }));
    let names = running.map(|(record, _)| format!("{} ({})", record.config.name, record.id));
    names.collect::<Vec<String>>().join(", ")
}
