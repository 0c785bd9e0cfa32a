//! A signal by its number, and its names as images and users write them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of signals 1 to 31 (signal(7)); the same on `x86_64` and arm64.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal that programs may use: glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal of Linux: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// A number or a name that no signal of Linux has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a signal")]
pub struct NoSuchSignal(String);

impl Signal {
    /// Terminal gone.
    pub const HUP: Self = Self(1);
    /// Ends a process that cannot refuse.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);
    /// Kills a process for a system call, by its seccomp filter.
    pub const SYS: Self = Self(31);
    /// A child has ended.
    pub const CHLD: Self = Self(17);

    /// The signal with a number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// Reads `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
    ///
    /// # Errors
    /// When no signal is written so.
    pub fn parse(text: &str) -> Result<Self, NoSuchSignal> {
        let number = match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => number_of(text),
        };
        let signal = number.and_then(Self::from_number);
        signal.ok_or_else(|| NoSuchSignal(text.to_owned()))
    }
}

fn number_of(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let number = RTMIN.checked_add(offset(rest, '+')?)?;
        return (number <= RTMAX).then_some(number);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let number = RTMAX.checked_sub(offset(rest, '-')?)?;
        return (number >= RTMIN).then_some(number);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        "UNUSED" => "SYS",
        other => other,
    };
    let at = NAMES.iter().position(|known| *known == name)?;
    i32::try_from(at + 1).ok()
}

/// Reads the text behind `RTMIN` or `RTMAX`: nothing, or a sign and digits.
fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

impl fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN+3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0 - 1).unwrap_or_default();
        match NAMES.get(index) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 < RTMIN => write!(f, "signal {}", self.0),
            None => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
        }
    }
}

impl TryFrom<i32> for Signal {
    type Error = NoSuchSignal;

    fn try_from(number: i32) -> Result<Self, NoSuchSignal> {
        Self::from_number(number).ok_or_else(|| NoSuchSignal(number.to_string()))
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let table = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("KILL", Some(9)),
            ("SIGSYS", Some(31)),
            ("SIGPOLL", Some(29)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN+31", None),
            ("RTMIN3", None),
            ("RTMIN++1", None),
            ("RTMAX-31", None),
            ("RTMIN+2147483647", None),
            ("0", None),
            ("65", None),
            ("99999999999", None),
            ("-9", None),
            ("", None),
            ("SIG", None),
            ("SIGWHAT", None),
        ];
        for (text, number) in table {
            let parsed = Signal::parse(text).ok().map(Signal::number);
            assert_eq!(parsed, number, "{text:?}");
        }
    }

    #[test]
    fn a_signal_reads_back_as_it_is_shown() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(Signal::parse(&signal.to_string()), Ok(signal));
        }
    }
}
