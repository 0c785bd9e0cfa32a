//! The crash points of the daemon: both sides of every effect that ordinary lives lead to.

use crate::random::Random;

/// Effects of the pod machine, by the names that the daemon has for them. Left out is what these
/// lives do not lead to: `end-silent-shim` (a shim that hangs; `hung` has it), `force` (an init that
/// outlives its kill, which no program of a test can: the machine's unit tests have it) and
/// `end-scope` (systemd alone).
const EFFECTS: [&str; 30] = [
    "cancel",
    "bounce",
    "owe",
    "commit-update",
    "commit-ready",
    "commit-create",
    "commit-made",
    "commit-start",
    "record",
    "publish",
    "tell",
    "answer",
    "wake",
    "note",
    "settled",
    "forget",
    "boot",
    "teardown",
    "watch-holder",
    "create",
    "unmake",
    "launch",
    "judge",
    "watch-alone",
    "signal",
    "kill",
    "clear",
    "update",
    "exec",
    "reopen-log",
];
/// Only before it: the task is over then.
const LAST: &str = "end";
/// A point that is not met so often in a row is none.
const TRIES: usize = 20;

/// A point, and how often it was tried in vain.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) side: &'static str,
    pub(crate) effect: &'static str,
    pub(crate) number: u64,
    tries: usize,
}

/// The points that were not met yet.
#[derive(Debug)]
pub(crate) struct Points(Vec<Point>);

impl Points {
    pub(crate) fn all() -> Self {
        let sides = |effect| ["before", "after"].map(|side| (side, effect));
        let each = EFFECTS.into_iter().flat_map(sides);
        let all = each.chain([("before", LAST)]);
        let points = all.map(|(side, effect)| Point {
            side,
            effect,
            number: 1,
            tries: 0,
        });
        Self(points.collect())
    }

    /// As if all had been met.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Takes one of those that are left; when all were met, any, at a later turn of its effect.
    pub(crate) fn next(&mut self, random: &mut Random) -> Point {
        if self.0.is_empty() {
            let mut point = Self::all().0.swap_remove(random.index(EFFECTS.len()));
            point.number = 1 + random.below(4);
            point.tries = TRIES;
            return point;
        }
        let place = random.index(self.0.len());
        self.0.swap_remove(place)
    }

    /// A point that was not met comes again.
    pub(crate) fn again(&mut self, mut point: Point) {
        if point.tries < TRIES {
            point.tries += 1;
            assert!(
                point.tries < TRIES,
                "{point:?} is never met (has the daemon debug assertions?)"
            );
            self.0.push(point);
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }
}
