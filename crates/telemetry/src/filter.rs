//! A filter says which events are logged: a level, or levels by target.
//!
//! A target is written as log lines show it (`crisp::pod`) or as the path of a module
//! (`crisp_node::pod`); it stands for all that begins so, and the longest one that fits decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{self, Context};

use crate::target;

/// Libraries under gRPC and HTTP, which speak of frames. A bare level is about Crisp: these are
/// heard below warnings only when they are named.
const CARRIERS: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or levels by target as `info,crisp::pod=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(String);

/// Why a text is no filter, in a sentence that says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level: off, error, warn, info, debug or trace, or TARGET=LEVEL joined by commas"
)]
pub struct BadFilter(String);

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        match text.split(',').all(|word| rule(word).is_some()) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadFilter(text.to_owned())),
        }
    }
}

/// The target, empty for all, and its level.
fn rule(word: &str) -> Option<(String, LevelFilter)> {
    let (target, level) = match word.split_once('=') {
        Some(("", _)) => return None,
        Some((target, level)) => (target.trim(), level),
        None => ("", word),
    };
    let level = level.trim();
    let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    known
        .then(|| (target::spelled(target).into_owned(), level.parse().ok()))
        .and_then(|(target, level)| Some((target, level?)))
}

impl Filter {
    pub(crate) fn rules(&self) -> Rules {
        let mut rules: Vec<_> = self.0.split(',').filter_map(rule).collect();
        let all = rules.iter().rev().find(|(target, _)| target.is_empty());
        let quiet = all.map_or(LevelFilter::OFF, |(_, level)| {
            *level.min(&LevelFilter::WARN)
        });
        let named = |library: &str| rules.iter().any(|(target, _)| target.starts_with(library));
        let unnamed: Vec<_> = CARRIERS.iter().filter(|library| !named(library)).collect();
        rules.extend(unnamed.into_iter().map(|name| ((*name).to_owned(), quiet)));
        Rules(rules)
    }
}

/// A filter that is ready for the subscriber.
#[derive(Debug)]
pub(crate) struct Rules(Vec<(String, LevelFilter)>);

impl Rules {
    /// Spans of ours are always taken: they give the lines their names.
    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let target = target::spelled(metadata.target());
        let module = target::spelled(metadata.module_path().unwrap_or_default());
        if metadata.is_span() && target.starts_with("crisp") && *metadata.level() <= Level::INFO {
            return true;
        }
        *metadata.level() <= self.level(&target, &module)
    }

    /// An event that names its target is still found by the module that it comes from.
    fn level(&self, target: &str, module: &str) -> LevelFilter {
        let fits = |name: &str| target.starts_with(name) || module.starts_with(name);
        let fitting = self.0.iter().filter(|(name, _)| fits(name));
        // Of two rules for the same target the later one holds.
        let rule = fitting.max_by_key(|(name, _)| name.len());
        rule.map_or(LevelFilter::OFF, |(_, level)| *level)
    }
}

impl<S: Subscriber> layer::Filter<S> for Rules {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.takes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.takes(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = self.0.iter().map(|(_, level)| *level);
        levels.chain([LevelFilter::INFO]).max()
    }
}

impl TryFrom<String> for Filter {
    type Error = BadFilter;
    fn try_from(text: String) -> Result<Self, BadFilter> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        filter.0
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_are_levels() {
        for good in [
            "info",
            "INFO",
            "off",
            "info,crisp_node=debug",
            "crisp::pod=trace",
        ] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "loud",
            "info,",
            "crisp_node",
            "crisp_node=",
            "=info",
            "a=b",
            "3",
        ] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn both_spellings_and_both_names_of_an_event_are_understood() {
        let pod = ("crisp::pod", "crisp::node::pod::task");
        let cni = ("crisp::cni::client", "crisp::cni::client");
        let h2 = ("h2::client", "h2::client");
        for (filter, event, level) in [
            ("info", pod, LevelFilter::INFO),
            ("info,crisp_node=debug", pod, LevelFilter::DEBUG),
            ("info,crisp::pod=debug", pod, LevelFilter::DEBUG),
            ("info,crisp_node=warn", pod, LevelFilter::WARN),
            ("info,crisp_node=debug", cni, LevelFilter::INFO),
            ("crisp_cni::client=trace", cni, LevelFilter::TRACE),
            ("crisp::cni=trace,debug", cni, LevelFilter::TRACE),
            ("crisp::cni=trace", pod, LevelFilter::OFF),
            ("trace", h2, LevelFilter::WARN),
            ("off", h2, LevelFilter::OFF),
            ("info,h2=trace", h2, LevelFilter::TRACE),
            ("info,debug", cni, LevelFilter::DEBUG),
        ] {
            let rules = filter.parse::<Filter>().unwrap().rules();
            assert_eq!(rules.level(event.0, event.1), level, "{filter} {event:?}");
        }
    }
}
