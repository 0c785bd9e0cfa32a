//! Patience is waiting for a condition instead of for a time that is hoped to be long enough.

use std::time::{Duration, Instant};

use crate::emulated::at_most;

/// Longest that a test waits for something that has to come.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Waits until something is so. `what` completes the sentence "after 30 s it is still not so that".
///
/// # Panics
/// When it is not so after half a minute, or longer where the machine is emulated.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let longest = at_most(LONGEST);
    let deadline = Instant::now() + longest;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "after {longest:?} it is still not so that {what}"
        );
        std::thread::sleep(STEP);
    }
}

/// Watches that something stays so for a while, when the fault would be that it changes.
///
/// # Panics
/// At the first look at which it is not so.
#[track_caller]
pub fn still(what: &str, time: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    loop {
        assert!(is_so(), "it is no longer so that {what}");
        if Instant::now() > deadline {
            return;
        }
        std::thread::sleep(STEP);
    }
}
