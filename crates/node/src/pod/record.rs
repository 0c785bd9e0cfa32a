//! A pod's record on disk, and the twin of it. Its steps are brief ones: a disk that is busy, or a
//! record that is shortened and synced, holds up its own pod alone.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crisp_model::PodId;
use crisp_records::{Entry, Frame, Journal};
use crisp_sys::file;

use crate::blocking::{blocking, brief};
use crate::error::{Context, Result};
use crate::shared::Shared;
use crate::twin::Twin;

/// Where a pod's record comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// A journal that was found.
    Found(Journal),
    /// The first entries of a new pod.
    New(Vec<Entry>),
}

/// The record of one pod, written by its task alone, one step at a time.
#[derive(Debug)]
pub(super) struct Record {
    shared: Arc<Shared>,
    id: PodId,
    path: PathBuf,
    both: Arc<Mutex<Both>>,
}

#[derive(Debug)]
struct Both {
    journal: Journal,
    twin: Twin,
}

impl Record {
    /// Makes a new pod's record, or takes up one that was found; with a twin anew.
    pub(super) async fn open(shared: &Arc<Shared>, id: &PodId, source: Source) -> Result<Self> {
        let (kernel, owned) = (Arc::clone(shared), id.clone());
        let both = brief(move || {
            let paths = &kernel.paths;
            let twin = paths.twin(&owned);
            match source {
                Source::Found(journal) => {
                    let (replay, _) = crisp_records::read(journal.path());
                    let twin = Twin::of(&replay.entries(), twin);
                    Ok(Both { journal, twin })
                }
                Source::New(entries) => {
                    let made = file::make_private_dirs(&paths.exits(&owned))
                        .and_then(|()| Journal::begin(&paths.journal(&owned), &entries));
                    if made.is_err() {
                        // Nothing but this directory exists; the cause is what the caller must know.
                        // It may be that no file can be opened, which a removal needs too.
                        let _files = kernel.reserve.lend();
                        file::remove_tree_if_there(&paths.record(&owned)).ok();
                    }
                    let place = paths.journal(&owned);
                    let journal =
                        made.context(|| format!("record pod {owned} in {}", place.display()))?;
                    let twin = Twin::of(&entries, twin);
                    Ok(Both { journal, twin })
                }
            }
        })
        .await?;
        let record = Self {
            shared: Arc::clone(shared),
            id: id.clone(),
            path: both.journal.path().to_owned(),
            both: Arc::new(Mutex::new(both)),
        };
        shared.note_unflushed(record.path.clone());
        Ok(record)
    }

    /// Writes entries, in order.
    pub(super) async fn write(&self, entries: Vec<Entry>) -> Result<()> {
        let both = Arc::clone(&self.both);
        let write = move || {
            let mut both = both.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(entries.iter().try_for_each(|entry| both.append(entry)))
        };
        let written = brief(write).await?;
        self.shared.note_unflushed(self.path.clone());
        written.context(|| format!("record pod {} in {}", self.id, self.path.display()))
    }

    /// Removes it: the pod is gone. Its directory is left to [`Self::clear_away`].
    pub(super) async fn remove(&self) -> Result<()> {
        let (both, path) = (Arc::clone(&self.both), self.path.clone());
        let remove = move || {
            let both = both.lock().unwrap_or_else(PoisonError::into_inner);
            both.twin.remove();
            Ok(file::remove_if_there(&path))
        };
        let removed = brief(remove).await?;
        removed.context(|| format!("remove the record of pod {}", self.id))
    }

    /// Lets go of the files of a record that was removed, and removes the directory. No caller waits
    /// for it: the last close of a file frees its space, and waits for the disk. A directory without
    /// a record, which a daemon that is killed now leaves, is removed by the next one.
    pub(super) async fn clear_away(self) {
        let (both, dir) = (self.both, self.shared.paths.record(&self.id));
        let clear = move || {
            drop(both);
            let step = || format!("remove {}", dir.display());
            file::remove_tree_if_there(&dir).context(step)
        };
        if let Err(error) = blocking(clear).await {
            tracing::warn!(pod_id = %self.id, %error, "the directory of a pod's record stays until the next start");
        }
    }
}

impl Both {
    /// The end of a container goes to the twin first: a twin that knows more tells of a loss.
    fn append(&mut self, entry: &Entry) -> std::io::Result<()> {
        let is_end = matches!(entry, Entry::Gone { .. });
        let frame = Frame::of(entry)?;
        if is_end {
            self.twin.append(&frame);
        }
        self.journal.append_frame(&frame)?;
        if !is_end {
            self.twin.append(&frame);
        }
        Ok(())
    }
}
