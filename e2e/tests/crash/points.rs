//! The crash points of the daemon: both sides of every effect that ordinary lives lead to, or of
//! the one that `CRASH_POINT` names.

use std::env;

use crate::random::Random;

/// Effects of the pod machine, by the names that the daemon has for them. Left out is what these
/// lives do not lead to.
const EFFECTS: [&str; 35] = [
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
    "end-scope",
    "dismiss-shim",
    "session",
    "close-input",
    "end",
];
/// `end-silent-shim`: a shim that hangs, in `hung`. `force`: an init that outlives its kill, which no
/// program of a test can; the machine's unit tests have it.
#[cfg(test)]
const ELSEWHERE: [&str; 2] = ["end-silent-shim", "force"];
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

/// Points to choose from, and those of them that were not met yet.
#[derive(Debug)]
pub(crate) struct Points {
    choice: Vec<Point>,
    left: Vec<Point>,
}

/// The points whose text, or whose effect alone, is `only`; without it, all.
fn choice(only: Option<&str>) -> Vec<Point> {
    let sides = |effect| ["before", "after"].map(|side| (side, effect));
    let each = EFFECTS.into_iter().flat_map(sides);
    let is_meant = |(side, effect): &(&str, &str)| {
        only.is_none_or(|only| only == *effect || only == format!("{side} {effect}"))
    };
    let points = each.filter(is_meant).map(|(side, effect)| Point {
        side,
        effect,
        number: 1,
        tries: 0,
    });
    let points: Vec<Point> = points.collect();
    assert!(
        !points.is_empty(),
        "CRASH_POINT={only:?}: not in {EFFECTS:?}"
    );
    points
}

impl Points {
    /// Of each point, whether it was met counts.
    pub(crate) fn all() -> Self {
        let choice = choice(only().as_deref());
        Self {
            left: choice.clone(),
            choice,
        }
    }

    /// As if all had been met.
    pub(crate) fn none() -> Self {
        Self {
            choice: choice(only().as_deref()),
            left: Vec::new(),
        }
    }

    /// Takes one of those that are left; when all were met, any, at a later turn of its effect.
    pub(crate) fn next(&mut self, random: &mut Random) -> Point {
        if self.left.is_empty() {
            let mut point = self.choice[random.index(self.choice.len())].clone();
            point.number = 1 + random.below(4);
            point.tries = TRIES;
            return point;
        }
        let place = random.index(self.left.len());
        self.left.swap_remove(place)
    }

    /// A point that was not met comes again.
    pub(crate) fn again(&mut self, mut point: Point) {
        if point.tries < TRIES {
            point.tries += 1;
            assert!(
                point.tries < TRIES,
                "{point:?} is never met (has the daemon debug assertions?)"
            );
            self.left.push(point);
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }
}

/// The only point or effect at which daemons die, if the run has one.
pub(crate) fn only() -> Option<String> {
    env::var("CRASH_POINT").ok().filter(|text| !text.is_empty())
}

/// The names are those of the daemon's table, which has one for each effect: a new effect has no
/// place to hide.
#[test]
fn every_effect_has_a_point() {
    let table = include_str!("../../../crates/node/src/pod/death.rs");
    let (_, table) = table.split_once("fn name(").unwrap();
    let (table, _) = table.split_once("#[cfg(test)]").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(" => \""));
    let names = names.filter_map(|(_, rest)| rest.split('"').next());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let mut points = [&EFFECTS[..], &ELSEWHERE].concat();
    points.sort_unstable();
    assert_eq!(points, names, "points, and effects");
}

#[test]
fn one_point_is_chosen_by_its_effect_or_its_side_too() {
    let texts = |only| {
        let points = choice(Some(only)).into_iter();
        points
            .map(|point| format!("{} {}", point.side, point.effect))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("end-scope"), ["before end-scope", "after end-scope"]);
    assert_eq!(texts("after launch"), ["after launch"]);
    assert_eq!(texts("end"), ["before end", "after end"]);
}
