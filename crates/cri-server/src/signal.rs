//! CRI's stop signals and the kernel's numbers for them, both ways.

use crisp_api::runtime::v1::Signal;

/// Number of a signal on Linux (signal(7)); `None` leaves the choice to image and runtime.
#[must_use]
pub fn number(signal: Signal) -> Option<i32> {
    // glibc keeps 32 and 33 for itself, so real-time signals begin with 34.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    let wire = signal as i32;
    Some(match signal {
        Signal::RuntimeDefault => return None,
        Signal::Sighup => 1,
        Signal::Sigint => 2,
        Signal::Sigquit => 3,
        Signal::Sigill => 4,
        Signal::Sigtrap => 5,
        Signal::Sigabrt | Signal::Sigiot => 6,
        Signal::Sigbus => 7,
        Signal::Sigfpe => 8,
        Signal::Sigkill => 9,
        Signal::Sigusr1 => 10,
        Signal::Sigsegv => 11,
        Signal::Sigusr2 => 12,
        Signal::Sigpipe => 13,
        Signal::Sigalrm => 14,
        Signal::Sigterm => 15,
        Signal::Sigstkflt => 16,
        Signal::Sigchld | Signal::Sigcld => 17,
        Signal::Sigcont => 18,
        Signal::Sigstop => 19,
        Signal::Sigtstp => 20,
        Signal::Sigttin => 21,
        Signal::Sigttou => 22,
        Signal::Sigurg => 23,
        Signal::Sigxcpu => 24,
        Signal::Sigxfsz => 25,
        Signal::Sigvtalrm => 26,
        Signal::Sigprof => 27,
        Signal::Sigwinch => 28,
        Signal::Sigio | Signal::Sigpoll => 29,
        Signal::Sigpwr => 30,
        Signal::Sigsys => 31,
        Signal::Sigrtmax => RTMAX,
        _ if wire >= Signal::Sigrtmaxminus14 as i32 => RTMAX - (Signal::Sigrtmax as i32 - wire),
        _ => RTMIN + (wire - Signal::Sigrtmin as i32),
    })
}

/// The signal with this number; those that have two names get the common one.
#[must_use]
pub fn named(wanted: i32) -> Signal {
    let rare = [Signal::Sigiot, Signal::Sigcld, Signal::Sigpoll];
    let all = (0..=Signal::Sigrtmax as i32).filter_map(|wire| Signal::try_from(wire).ok());
    all.filter(|signal| !rare.contains(signal))
        .find(|signal| number(*signal) == Some(wanted))
        .unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_kernels_numbers() {
        let cases = [
            (Signal::RuntimeDefault, None),
            (Signal::Sigterm, Some(15)),
            (Signal::Sigkill, Some(9)),
            (Signal::Sigiot, Some(6)),
            (Signal::Sigpoll, Some(29)),
            (Signal::Sigrtmin, Some(34)),
            (Signal::Sigrtminplus3, Some(37)),
            (Signal::Sigrtminplus15, Some(49)),
            (Signal::Sigrtmaxminus14, Some(50)),
            (Signal::Sigrtmaxminus1, Some(63)),
            (Signal::Sigrtmax, Some(64)),
        ];
        for (signal, expected) in cases {
            assert_eq!(number(signal), expected, "{signal:?}");
        }
    }

    #[test]
    fn each_number_has_a_name() {
        for wanted in (1..=31).chain(34..=64) {
            assert_eq!(number(named(wanted)), Some(wanted));
        }
        for none in [0, -1, 32, 33, 65, i32::MAX] {
            assert_eq!(named(none), Signal::RuntimeDefault);
        }
    }
}
