//! Figures of a cgroup's files, for `events`. A file that cannot be read counts as
//! zero or is left out.

use std::str::FromStr;

use crisp_sys::cgroup::Cgroup;
use serde_json::{Map, Number, Value};

/// The files of a cgroup.
pub(crate) struct Files<'a>(pub(crate) &'a Cgroup);

impl Files<'_> {
    /// Whether a controller's files are those of version 2.
    pub(crate) fn is_v2(&self, controller: &str) -> bool {
        self.0.layout().is_v2_for(controller)
    }

    pub(crate) fn text(&self, controller: &str, file: &str) -> String {
        self.0.read(controller, file).unwrap_or_default()
    }

    /// The one number of a file; `max` is the largest there is.
    pub(crate) fn number(&self, controller: &str, file: &str) -> u64 {
        match self.text(controller, file).trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        }
    }

    /// The figures of a file with a name and a number on each line.
    pub(crate) fn figures(&self, controller: &str, file: &str) -> Map<String, Value> {
        let text = self.text(controller, file);
        let figures = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), parsed::<u64>(value)?.into()))
        });
        figures.collect()
    }

    /// The share of time that tasks wait for a resource, where the kernel tells (`cpu.pressure`).
    pub(crate) fn pressure(&self, controller: &str) -> Option<Value> {
        let text = self.text(controller, &format!("{controller}.pressure"));
        let line = |line: &str| {
            let mut words = line.split(' ');
            let kind = words.next()?;
            let shares = words.filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                let value = match name {
                    "total" => parsed::<u64>(value)?.into(),
                    _ => Number::from_f64(parsed(value)?)?.into(),
                };
                Some((name.to_owned(), value))
            });
            Some((kind.to_owned(), Value::Object(shares.collect())))
        };
        let kinds: Map<String, Value> = text.lines().filter_map(line).collect();
        (!kinds.is_empty()).then_some(Value::Object(kinds))
    }
}

/// A number, if the text is one.
pub(crate) fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

/// An object of the figures that are not zero.
pub(crate) fn without_zeros<const N: usize>(figures: [(&str, u64); N]) -> Map<String, Value> {
    let figures = figures.into_iter().filter(|(_, value)| *value != 0);
    figures
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}
