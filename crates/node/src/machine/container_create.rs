//! A container's creation: asked for, perhaps again, made, and recorded; or undone.

use std::time::Duration;

use crisp_model::ContainerConfig;
use crisp_records::{ContainerState, Entry, MadeRecord};

use super::container::{Container, Scene, State};
use super::container_life::Fate;
use super::effect::{Alarm, Commit, ContainerNote, Done, Effect, Job};
use super::facts::Caller;
use crate::error::{Error, Result};
use crate::events::EventKind;

/// The outcome of a repeated request for a container's name.
#[derive(Debug)]
pub(super) enum Joined {
    /// The caller is answered, or waits.
    Taken,
    /// The container that was being made gives way to a new one.
    Replaced,
}

impl Container {
    /// Another request for this container's name.
    pub(super) fn join(
        &mut self,
        scene: &mut Scene<'_>,
        config: &ContainerConfig,
        caller: Caller,
    ) -> Joined {
        let same = self.config.same_request(config);
        match &mut self.state {
            State::Creating { waiters, .. } if same => waiters.push(caller),
            State::Creating { .. } => {
                let text = format!(
                    "container {} was asked for again with another configuration",
                    config.name
                );
                self.unwant(scene, Error::Unavailable(text));
                return Joined::Replaced;
            }
            State::Created if same => {
                let id = self.record.id.clone();
                scene.out.answer(caller, Ok(Done::Container(id)));
            }
            _ => {
                let text = format!(
                    "container {} (attempt {}) of this pod exists as {}: remove it first, or ask \
                     for another attempt",
                    config.name, config.name.attempt, self.record.id
                );
                scene.out.answer(caller, Err(Error::AlreadyExists(text)));
            }
        }
        Joined::Taken
    }

    /// A container that is being made is no longer wanted.
    pub(super) fn unwant(&mut self, scene: &mut Scene<'_>, why: Error) {
        if let State::Creating { unwanted, .. } = &mut self.state {
            unwanted.get_or_insert(why);
            scene.out.push(Effect::Cancel(self.record.id.clone()));
        }
    }

    /// The creation ended.
    pub(super) fn made(&mut self, scene: &mut Scene<'_>, result: Result<Box<MadeRecord>>) {
        let State::Creating { unwanted, .. } = &mut self.state else {
            return;
        };
        let made = match (result, unwanted.take()) {
            (_, Some(reason)) => return self.unmake(scene, reason),
            (Err(error), None) => return self.unmake(scene, error),
            (Ok(made), None) => made,
        };
        let mut record = self.record.clone();
        record.made = Some((*made).clone());
        let id = record.id.clone();
        let state = ContainerState::Created;
        let entries = vec![
            Entry::Container(Box::new(record)),
            Entry::State {
                id: id.clone(),
                state,
            },
        ];
        scene.out.commit(entries, Commit::Made { id, made });
    }

    /// The creation is recorded, or could not be.
    pub(super) fn created(&mut self, scene: &mut Scene<'_>, made: MadeRecord, written: Result<()>) {
        let State::Creating { waiters, .. } = &mut self.state else {
            return;
        };
        if let Err(error) = written {
            return self.unmake(scene, error);
        }
        let mut waiters = std::mem::take(waiters);
        self.record.made = Some(made);
        self.state = State::Created;
        let image = self.config.image.image.clone();
        self.note(scene, ContainerNote::Created { image });
        self.show(scene, Some(EventKind::Created));
        let id = self.record.id.clone();
        scene.out.answer_all(&mut waiters, &Ok(Done::Container(id)));
    }

    /// Removes what a creation left.
    pub(super) fn unmake(&mut self, scene: &mut Scene<'_>, why: Error) {
        if let State::Creating { waiters, .. } = &mut self.state {
            scene.out.answer_all(waiters, &Err(why));
        }
        self.state = State::Unmaking {
            tries: 0,
            is_tried: true,
        };
        scene.out.run(Job::Unmake(self.remains(scene.pod)));
    }

    /// It is time for another attempt, or the pod is to go.
    pub(super) fn unmake_again(&mut self, scene: &mut Scene<'_>) {
        if let State::Unmaking { is_tried, .. } = &mut self.state
            && !std::mem::replace(is_tried, true)
        {
            scene.out.run(Job::Unmake(self.remains(scene.pod)));
        }
    }

    /// The remains of a creation are removed, or stay owed. Pauses grow, and it is told of once.
    pub(super) fn unmade(&mut self, scene: &mut Scene<'_>, result: Result<()>) -> Fate {
        let State::Unmaking { tries, is_tried } = &mut self.state else {
            return Fate::Stays;
        };
        let id = self.record.id.clone();
        let Err(error) = result else {
            scene.out.record(Entry::Gone { id: id.clone() });
            scene.out.push(Effect::Owe(Some(id), None));
            return Fate::Gone;
        };
        *is_tried = false;
        *tries += 1;
        let (tries, due) = (*tries, scene.now.instant + unmake_pause(*tries));
        if tries == 1 {
            self.note(scene, ContainerNote::StillUnmaking(error.clone()));
        }
        scene
            .out
            .push(Effect::Owe(Some(id.clone()), Some(error.clone())));
        scene.out.push(Effect::Wake(due, Alarm::Unmake { id }));
        Fate::NotRemoved(error)
    }
}

/// After so many attempts that have failed: 1 s, 4 s, … 17 min.
fn unmake_pause(tries: u32) -> Duration {
    Duration::from_secs(4_u64.pow(tries.saturating_sub(1).min(5)))
}
