//! Crash points, for tests: the daemon dies by SIGKILL right before or after an effect of a pod's
//! machine.
//!
//! `CRISPD_DIES="before launch 2"` names the second effect `launch` of all pods together, counted
//! from the start of the daemon; `after` is the other side of it. A build without debug assertions
//! does not read the variable.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::error::{Error, Result};
use crate::machine::effect::{Commit, Effect, Job, StopStep};

const VARIABLE: &str = "CRISPD_DIES";

/// The crash point of this process, if it has one, and how often its effect came already.
#[derive(Debug, Default)]
pub(crate) struct Death {
    point: Option<Point>,
    seen: AtomicU32,
}

#[derive(Debug, PartialEq, Eq)]
struct Point {
    side: Side,
    effect: String,
    number: u32,
}

/// A side of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

impl Death {
    /// Reads the crash point from the environment.
    ///
    /// # Errors
    /// When the variable is set and is not a crash point.
    pub(crate) fn from_environment() -> Result<Self> {
        if !cfg!(debug_assertions) {
            return Ok(Self::default());
        }
        let point = std::env::var(VARIABLE).ok().map(|text| Point::parse(&text));
        Ok(Self {
            point: point.transpose()?,
            seen: AtomicU32::new(0),
        })
    }

    /// Dies if this is the point.
    pub(super) fn pass(&self, side: Side, effect: &str) {
        let point = self.point.as_ref();
        if point.is_none_or(|point| point.side != side || point.effect != effect) {
            return;
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        if point.is_some_and(|point| point.number == number)
            && let Err(error) = kill_process(getpid(), Signal::KILL)
        {
            tracing::error!(%error, "the crash point is met, and the daemon cannot kill itself");
        }
    }
}

impl Point {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::FailedPrecondition(format!(
                "{VARIABLE}={text:?} is not 'before EFFECT NUMBER' or 'after EFFECT NUMBER'"
            ))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [side, effect, number] = words[..] else {
            return Err(wrong());
        };
        Ok(Self {
            side: match side {
                "before" => Side::Before,
                "after" => Side::After,
                _ => return Err(wrong()),
            },
            effect: effect.to_owned(),
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

/// The name of an effect; a job and a commit go by their own.
pub(super) fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Commit(_, commit) => match **commit {
            Commit::Ready(_) => "commit-ready",
            Commit::Update { .. } => "commit-update",
            Commit::Create { .. } => "commit-create",
            Commit::Made { .. } => "commit-made",
            Commit::Start { .. } => "commit-start",
        },
        Effect::Record(_) => "record",
        Effect::Publish => "publish",
        Effect::Tell(..) => "tell",
        Effect::Answer(..) => "answer",
        Effect::Run(job) => job_name(job),
        Effect::Wake(..) => "wake",
        Effect::Cancel(_) => "cancel",
        Effect::Bounce { .. } => "bounce",
        Effect::Note(_) => "note",
        Effect::Owe(..) => "owe",
        Effect::Settled => "settled",
        Effect::Forget => "forget",
        Effect::End => "end",
    }
}

fn job_name(job: &Job) -> &'static str {
    match job {
        Job::Boot(_) => "boot",
        Job::Teardown(_) => "teardown",
        Job::WatchHolder(_) => "watch-holder",
        Job::Create(_) => "create",
        Job::Unmake(_) => "unmake",
        Job::Launch(_) => "launch",
        Job::Judge(_) => "judge",
        Job::WatchAlone(..) => "watch-alone",
        Job::Stop(StopStep::Signal, _) => "signal",
        Job::Stop(StopStep::Kill, _) => "kill",
        Job::Stop(StopStep::Force, _) => "force",
        Job::Stop(StopStep::EndSilentShim, _) => "end-silent-shim",
        Job::EndScope(_) => "end-scope",
        Job::DismissShim(_) => "dismiss-shim",
        Job::Clear(_) => "clear",
        Job::Update(_) => "update",
        Job::Exec { .. } => "exec",
        Job::Session { .. } => "session",
        Job::CloseInput(_) => "close-input",
        Job::ReopenLog { .. } => "reopen-log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_side_an_effect_and_a_number() {
        let point = Point::parse("after commit-start 3").unwrap();
        assert_eq!(point.side, Side::After);
        assert_eq!((point.effect.as_str(), point.number), ("commit-start", 3));
        for wrong in [
            "",
            "after",
            "at launch 1",
            "before launch x",
            "before launch 1 2",
        ] {
            assert!(Point::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_point_nothing_dies() {
        Death::default().pass(Side::Before, "launch");
    }
}
