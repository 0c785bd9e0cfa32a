//! Holds both sights of a case against each other and against the known differences.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::case::Case;
use crate::known::{self, Known};
use crate::peer::{Bench, Seen, say};

/// The outcome of the comparisons of one test.
pub struct Tally {
    known: Vec<Known>,
    compared: usize,
    failures: Vec<String>,
    choices: BTreeSet<String>,
    faults: BTreeSet<String>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            known: known::read(),
            compared: 0,
            failures: Vec::new(),
            choices: BTreeSet::new(),
            faults: BTreeSet::new(),
        }
    }

    /// Compares a case.
    pub fn add(&mut self, case: &Case, bench: &Bench) {
        let id = bench.next_id();
        let theirs = bench.try_out(&bench.runc, case, &id);
        let ours = bench.try_out(&bench.ours, case, &id);
        self.compared += 1;
        let mut unknown = String::new();
        for (section, line) in differences(&theirs, &ours) {
            match known::look_up(&self.known, case, &section, &line) {
                Some(known) if known.is_fault => _ = self.faults.insert(known.reason.clone()),
                Some(known) => _ = self.choices.insert(known.reason.clone()),
                None => writeln!(unknown, "    {section}: {line}").unwrap(),
            }
        }
        if !unknown.is_empty() {
            let complaints = [("runc", &theirs), ("crisp-oci", &ours)].map(|(name, seen)| {
                let lines = seen
                    .complaints
                    .lines()
                    .map(|line| format!("    {name}: {line}\n"));
                lines.collect::<String>()
            });
            self.failures
                .push(format!("{}\n{unknown}{}", case.name(), complaints.concat()));
        }
    }

    /// Tells the sum; fails when there was a difference that nobody knows of.
    #[track_caller]
    pub fn close(self, test: &str) {
        say(&format!(
            "{test}: {} bundles compared; known: {} choices, {} faults",
            self.compared,
            self.choices.len(),
            self.faults.len(),
        ));
        let failures = self.failures.join("\n");
        assert!(
            failures.is_empty(),
            "- runc, + crisp-oci, in {} bundles:\n{failures}",
            self.failures.len()
        );
    }
}

/// Whether a section differs as a matter of course, since one of these steps failed under one of
/// them alone.
fn follows(section: &str, unlike: &[&str]) -> bool {
    let of = |step: &&str| {
        section
            .strip_prefix(*step)
            .is_some_and(|rest| rest.starts_with(' '))
    };
    if section.ends_with(" code") {
        let first = ["create", "start"]
            .iter()
            .find(|step| unlike.contains(step));
        return first.is_some_and(|step| !of(step));
    }
    let made = unlike
        .iter()
        .any(|step| ["run", "create", "start"].contains(step));
    let remains = ["left state", "left cgroups", "left mounts", "hooks order"].contains(&section);
    match made {
        true => !remains,
        false => unlike.iter().any(of) || (!unlike.is_empty() && section == "left files"),
    }
}

/// The lines that only one of them has, `-` runc's and `+` ours.
fn differences(theirs: &Seen, ours: &Seen) -> Vec<(String, String)> {
    let empty = Vec::new();
    let names = theirs.sight.0.keys().chain(ours.sight.0.keys());
    let names: BTreeSet<_> = names.collect();
    let of = |seen: &Seen, name: &String| seen.sight.0.get(name).cloned();
    let unlike: Vec<&str> = names
        .iter()
        .filter(|name| of(theirs, name) != of(ours, name))
        .filter_map(|name| name.strip_suffix(" code"))
        .collect();
    let mut found = Vec::new();
    for name in names {
        if follows(name, &unlike) {
            continue;
        }
        let a = theirs.sight.0.get(name).unwrap_or(&empty);
        let b = ours.sight.0.get(name).unwrap_or(&empty);
        if a == b {
            continue;
        }
        let before = found.len();
        let only = |these: &[String], others: &[String], sign| {
            let mut others = others.to_vec();
            let mut only = Vec::new();
            for line in these {
                match others.iter().position(|other| other == line) {
                    Some(at) => _ = others.remove(at),
                    None => only.push((name.clone(), format!("{sign}{line}"))),
                }
            }
            only
        };
        found.extend(only(a, b, '-'));
        found.extend(only(b, a, '+'));
        if found.len() == before {
            found.push((name.clone(), "=in another order".to_owned()));
        }
    }
    found
}
