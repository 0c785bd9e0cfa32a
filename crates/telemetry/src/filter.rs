//! A filter says which events are logged: a level, or levels by target.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// Libraries under gRPC and HTTP, which speak of frames.
const CARRIERS: [&str; 7] = [
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "tonic",
    "tower",
];

/// A level, or levels by target as `info,crisp_node=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter(String);

/// Why a text is no filter, in a sentence that says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a level: off, error, warn, info, debug or trace, or MODULE=LEVEL joined by commas"
)]
pub struct BadFilter(String);

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let known = |word: &str| {
            let level = word.rsplit('=').next().unwrap_or(word);
            let levels = ["off", "error", "warn", "info", "debug", "trace"];
            levels.iter().any(|l| l.eq_ignore_ascii_case(level))
        };
        // The parser of Targets takes an unknown level for a module's name.
        if text.split(',').all(known) && text.parse::<Targets>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadFilter(text.to_owned()))
        }
    }
}

impl Filter {
    /// The filter for the subscriber. A bare level is about Crisp: the libraries that carry its
    /// calls are heard below warnings only when they are named.
    pub(crate) fn targets(&self) -> Targets {
        let named = |library: &str| self.0.split(',').any(|word| word.starts_with(library));
        let quiet = CARRIERS.iter().filter(|library| !named(library));
        let levels = quiet.map(|library| (*library, LevelFilter::WARN));
        let asked: Targets = self.0.parse().unwrap_or_default();
        asked.with_targets(levels)
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
