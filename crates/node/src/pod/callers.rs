//! The callers that wait for an answer of a pod's machine: the machine knows their numbers, this
//! file their replies.

use std::collections::HashMap;

use crisp_model::{ContainerId, PodId};

use crate::error::{Error, Result};
use crate::exec::ExecOutput;
use crate::machine::effect::Done;
use crate::machine::facts::Caller;
use crate::reply::{Reply, answer};
use crate::session::Session;

/// A place for an answer, by the kind of answer.
#[derive(Debug)]
pub(super) enum Place {
    Nothing(Reply<()>),
    Pod(Reply<PodId>),
    Container(Reply<ContainerId>),
    Output(Reply<ExecOutput>),
    Session(Reply<Session>),
}

/// The places of all callers that wait.
#[derive(Debug, Default)]
pub(super) struct Callers {
    last: u64,
    places: HashMap<Caller, Place>,
}

impl Callers {
    /// A caller begins to wait.
    pub(super) fn add(&mut self, place: Place) -> Caller {
        self.last += 1;
        let caller = Caller(self.last);
        self.places.insert(caller, place);
        caller
    }

    /// The place of a caller that is answered by somebody else.
    pub(super) fn take(&mut self, caller: Caller) -> Option<Place> {
        self.places.remove(&caller)
    }

    /// Answers all of them with an error.
    pub(super) fn refuse(&mut self, error: &Error) {
        let callers: Vec<Caller> = self.places.keys().copied().collect();
        for caller in callers {
            self.answer(caller, Err(error.clone()));
        }
    }

    /// Answers a caller.
    pub(super) fn answer(&mut self, caller: Caller, outcome: Result<Done>) {
        let Some(place) = self.take(caller) else {
            return;
        };
        match (place, outcome) {
            (Place::Nothing(reply), outcome) => answer(reply, outcome.map(|_| ())),
            (Place::Pod(reply), Ok(Done::Pod(id))) => answer(reply, Ok(id)),
            (Place::Container(reply), Ok(Done::Container(id))) => answer(reply, Ok(id)),
            (Place::Pod(reply), Err(error)) => answer(reply, Err(error)),
            (Place::Container(reply), Err(error)) => answer(reply, Err(error)),
            (Place::Output(reply), Err(error)) => answer(reply, Err(error)),
            (Place::Session(reply), Err(error)) => answer(reply, Err(error)),
            // The dropped reply reads as a task that gave no answer.
            (
                Place::Pod(_) | Place::Container(_) | Place::Output(_) | Place::Session(_),
                Ok(done),
            ) => {
                tracing::error!(target: "crisp::pod", ?done, "an answer of another kind than was asked for");
            }
        }
    }
}
