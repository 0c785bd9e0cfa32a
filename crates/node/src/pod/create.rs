//! A new pod: its first record is written, then its task starts.

use std::sync::Arc;

use crisp_model::{PodConfig, PodId};
use crisp_records::{Entry, Journal, PodProgress, PodRecord, PodState};
use crisp_sys::file;

use super::callers::{Callers, Place};
use super::naming::{Gone, NameMessage, NamesMailbox, Wanted};
use super::task::{self, Start};
use crate::error::{Context, Result};
use crate::machine::pod::Pod;
use crate::reply::answer;
use crate::shared::Shared;

/// Records a pod and starts its task. Without a record there is no pod: the caller is told why, and
/// the name is free again.
pub(crate) fn create(
    shared: &Arc<Shared>,
    names: NamesMailbox,
    id: PodId,
    (wanted, gone): (Wanted, Option<Gone>),
) {
    let begun = begin_record(shared, &id, &wanted);
    let (record, progress, journal) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let removed = NameMessage::Removed {
                owner: wanted.owner,
                name: wanted.config.name.clone(),
                id,
            };
            names.send(removed).ok();
            return answer(wanted.reply, Err(error));
        }
    };
    shared.note_unflushed(journal.path().to_owned());
    let mut callers = Callers::default();
    let caller = callers.add(Place::Pod(wanted.reply));
    let (pod, first) = Pod::new(shared.rules(), (record, progress), caller);
    task::start(Start {
        shared: Arc::clone(shared),
        names,
        pod,
        first,
        journal,
        callers,
        room: gone,
        settling: None,
        cause: wanted.span,
    });
}

fn begin_record(
    shared: &Shared,
    id: &PodId,
    wanted: &Wanted,
) -> Result<(PodRecord, PodProgress, Journal)> {
    let config: &PodConfig = &wanted.config;
    super::sysctl::check_all(config)?;
    let record = PodRecord {
        id: id.clone(),
        owner: wanted.owner,
        config: config.clone(),
        created_at: shared.creation.next(),
        cgroup_path: shared.cgroups.parent_of(config)?,
    };
    let progress = PodProgress {
        phase: PodState::Booting,
        boot_id: shared.boot_id.clone(),
        holder: None,
        ips: Vec::new(),
        made_cgroup: shared.cgroups.claim(id, &record.cgroup_path),
    };
    let begun = file::make_private_dirs(&shared.paths.exits(id)).and_then(|()| {
        let entries = [
            Entry::Pod(Box::new(record.clone())),
            Entry::Progress(progress.clone()),
        ];
        Journal::create(&shared.paths.journal(id), &entries)
    });
    if begun.is_err() {
        shared.cgroups.forget(id);
        // Nothing but this directory exists yet; the cause is what the caller must know. It may be
        // that no file can be opened, which a removal needs too.
        let _files = shared.reserve.lend();
        file::remove_tree_if_there(&shared.paths.record(id)).ok();
    }
    let journal = begun.context(|| format!("record pod {}", config.name))?;
    Ok((record, progress, journal))
}
