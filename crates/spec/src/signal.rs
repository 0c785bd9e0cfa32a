//! Names of signals, as images write them.

/// Signals 1 to 31 (signal(7)); the same on `x86_64` and arm64.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAX-1`.
#[must_use]
pub fn parse_signal(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| match text {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok(),
        _ => None,
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let number = RTMIN.checked_add(offset(rest.strip_prefix('+').unwrap_or(rest))?)?;
        return (number <= RTMAX).then_some(number);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let number = RTMAX - offset(rest.strip_prefix('-').unwrap_or(rest))?;
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

#[cfg(test)]
mod tests {
    use super::parse_signal;

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
            assert_eq!(parse_signal(text), number, "{text:?}");
        }
    }
}
