//! The differences from runc that are known, each with its reason: what is meant is in
//! `choices.txt`, what is ours to mend in `faults.txt`.

use crate::case::Case;
use crate::text::text;

/// A difference, wherever it is met.
#[derive(Debug)]
pub struct Known {
    /// Names of cases, `|` between them; a `*` at an end stands for any rest.
    cases: String,
    /// How the section's name ends.
    section: String,
    /// A part of the line, with its sign: `-` runc's, `+` ours. Empty for any line.
    line: String,
    pub reason: String,
    pub is_fault: bool,
}

impl Known {
    fn read(text: &str, is_fault: bool) -> Self {
        let fields: Vec<&str> = text.split(";;").map(str::trim).collect();
        let [cases, section, line, reason] = fields[..] else {
            panic!("four fields, not: {text}");
        };
        Self {
            cases: cases.to_owned(),
            section: section.to_owned(),
            line: line.replace("\\r", "\r"),
            reason: reason.to_owned(),
            is_fault,
        }
    }

    fn tells(&self, case: &Case, section: &str, line: &str) -> bool {
        let fits = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let mut patterns = self.cases.split('|');
        let about = patterns.any(|pattern| case.names.iter().any(|name| fits(pattern, name)));
        let signs = ['-', '+']
            .into_iter()
            .find(|sign| self.line.starts_with(*sign));
        let is_of = signs.is_none_or(|sign| line.starts_with(sign));
        let text = signs.map_or(&self.line[..], |_| &self.line[1..]);
        about && section.ends_with(&self.section) && is_of && line.contains(text)
    }
}

/// Both tables.
pub fn read() -> Vec<Known> {
    let table = |name: &str, is_fault| {
        let text = text(name);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| Known::read(line, is_fault))
            .collect::<Vec<_>>()
    };
    let mut known = table("choices.txt", false);
    known.extend(table("faults.txt", true));
    known
}

/// The entry that tells of a difference.
pub fn look_up<'a>(
    known: &'a [Known],
    case: &Case,
    section: &str,
    line: &str,
) -> Option<&'a Known> {
    known.iter().find(|known| known.tells(case, section, line))
}
