//! The specs with their outcomes, by the groups that own them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::tools;

/// Words of a spec's title, and why it does not pass.
pub type Known = (&'static str, &'static str);

/// So much is shown of what a spec told before it failed.
const TOLD: usize = 60;

/// A spec that was to run.
#[derive(Debug)]
struct Spec {
    title: String,
    state: String,
    why: String,
    told: String,
    seconds: f64,
    /// Not a step before or after all of them.
    is_spec: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Table(Vec<Spec>);

impl Table {
    /// Takes the specs of a report that were to run. Ginkgo's report has all others of the suite too, as
    /// skipped without a word why.
    #[must_use]
    pub fn of(report: &Value) -> Self {
        let suites = report.as_array().unwrap().iter();
        let specs = suites.flat_map(|suite| suite["SpecReports"].as_array().unwrap());
        let specs = specs.map(Spec::of);
        Self(specs.filter(Spec::was_to_run).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each spec has passed, or is listed with the reason why it does not.
    #[track_caller]
    pub fn is_as_known(&self, known: &[Known]) {
        let mut wrong = Vec::new();
        for spec in &self.0 {
            let listed = known.iter().find(|(words, _)| spec.title.contains(words));
            match (spec.state == "passed", listed) {
                (true, None) => {}
                (true, Some(_)) => tools::say(&format!("passes though listed: {}", spec.title)),
                (false, Some((_, reason))) => {
                    tools::say(&format!("{}: {}: {reason}", spec.state, spec.title));
                }
                (false, None) => wrong.push(spec),
            }
        }
        for spec in &wrong {
            let Spec { title, state, .. } = spec;
            eprintln!("--- {state}: {title}\n{}\n{}", spec.why, spec.told);
        }
        let titles: Vec<&str> = wrong.iter().map(|spec| spec.title.as_str()).collect();
        assert!(wrong.is_empty(), "not passed:\n{}", titles.join("\n"));
    }
}

impl Spec {
    fn of(report: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes = report["ContainerHierarchyTexts"].as_array();
        let words = nodes.into_iter().flatten().chain([&report["LeafNodeText"]]);
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        let told = text(&report["CapturedGinkgoWriterOutput"]);
        let lines: Vec<&str> = told.lines().collect();
        let last = &lines[lines.len().saturating_sub(TOLD)..];
        Self {
            title: words.join(" "),
            state: text(&report["State"]),
            why: text(&report["Failure"]["Message"]),
            told: last.join("\n"),
            is_spec: report["LeafNodeType"] == "It",
            seconds: report["RunTime"].as_f64().unwrap_or_default() / 1e9,
        }
    }

    /// A step before or after all specs counts where it failed.
    fn was_to_run(&self) -> bool {
        match self.state.as_str() {
            "skipped" => !self.why.is_empty(),
            "passed" => self.is_spec,
            _ => true,
        }
    }

    fn group(&self) -> &str {
        self.title.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for spec in &self.0 {
            let counts = groups.entry(spec.group()).or_default();
            counts[match spec.state.as_str() {
                "passed" => 0,
                "skipped" => 2,
                _ => 1,
            }] += 1;
        }
        for (group, [passed, failed, skipped]) in groups {
            writeln!(
                f,
                "{group:24} {passed:4} passed {failed:4} failed {skipped:4} skipped"
            )?;
        }
        let slowest = self.0.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
        match slowest {
            Some(spec) => writeln!(f, "slowest: {:.0} s for {}", spec.seconds, spec.title),
            None => Ok(()),
        }
    }
}
