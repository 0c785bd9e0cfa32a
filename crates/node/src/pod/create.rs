//! A new pod: what it is, and its task, which writes its first record before anything else.

use std::sync::Arc;

use crisp_model::{PodConfig, PodId, SelinuxLevel};
use crisp_records::{Entry, PodProgress, PodRecord, PodState};

use super::callers::{Callers, Place};
use super::naming::{Gone, NameMessage, NamesMailbox, Wanted};
use super::record::Source;
use super::task::{self, Start};
use crate::error::Result;
use crate::machine::pod::Pod;
use crate::reply::answer;
use crate::shared::Shared;

/// Starts the task of a new pod. Without a record there is no pod: the caller is told why, and the
/// name is free again.
pub(crate) fn create(
    shared: &Arc<Shared>,
    names: NamesMailbox,
    id: PodId,
    (wanted, gone): (Wanted, Option<Gone>),
) {
    let (record, progress) = match conceived(shared, &id, &wanted) {
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
    let entries = vec![
        Entry::Pod(Box::new(record.clone())),
        Entry::Progress(progress.clone()),
    ];
    let mut callers = Callers::default();
    let caller = callers.add(Place::Pod(wanted.reply));
    let (pod, first) = Pod::new(shared.rules(), (record, progress), caller);
    task::start(Start {
        shared: Arc::clone(shared),
        names,
        pod,
        first,
        record: Source::New(entries),
        callers,
        room: gone,
        settling: None,
        cause: wanted.span,
    });
}

/// The pod's record and progress, before anything of it exists.
fn conceived(shared: &Shared, id: &PodId, wanted: &Wanted) -> Result<(PodRecord, PodProgress)> {
    let config: &PodConfig = &wanted.config;
    super::sysctl::check_all(config)?;
    let record = PodRecord {
        id: id.clone(),
        owner: wanted.owner,
        config: config.clone(),
        created_at: shared.creation.next(),
        cgroup_path: shared.cgroups.parent_of(config)?,
        selinux_level: level_for(shared, id, config)?,
    };
    let progress = PodProgress {
        phase: PodState::Booting,
        boot_id: shared.boot_id.clone(),
        holder: None,
        ips: Vec::new(),
        made_cgroup: shared.cgroups.claim(id, &record.cgroup_path),
    };
    Ok((record, progress))
}

/// The level that is picked for a pod; none where it names its own, which is kept from others then.
fn level_for(shared: &Shared, id: &PodId, config: &PodConfig) -> Result<Option<SelinuxLevel>> {
    let asked = &config.security.selinux.level;
    if !shared.host.selinux {
        return Ok(None);
    }
    if asked.is_empty() {
        return shared.levels.pick(id).map(Some);
    }
    shared.levels.ask(id, asked);
    Ok(None)
}
