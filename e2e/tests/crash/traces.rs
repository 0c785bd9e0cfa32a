//! The traces that a container leaves: marks in a volume, and its log.

use std::fs;

use crate::model::{Container, Kind, LINES, Pod, Shim, Stage};

/// The traces of a container that is over: it ran once, and its log has every line, each once.
pub(crate) fn check(pod: &Pod, container: &Container) {
    let starts = pod.mark(container, "starts").lines().count();
    assert!(starts <= 1, "started {starts} times: {container:?}");
    if container.stage == Stage::Created {
        return;
    }
    let text = fs::read_to_string(pod.log(container)).unwrap_or_default();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a torn line: {container:?}"
    );
    // A shim that is killed leaves what it had read to the next. Without a daemon to hold the pipe the
    // end of the log may be missing, and nothing before it.
    for (next, line) in text.lines().enumerate() {
        let said: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
        let path = pod.log(container).display().to_string();
        assert_eq!(said, next, "in {path} of {container:?}");
    }
    let lines = text.lines().count();
    match container.shim {
        Shim::Killed(before) => assert!(lines >= before, "{lines} lines: {container:?}"),
        Shim::KilledInStart => {}
        Shim::Whole => {
            let last = pod.mark(container, "last");
            // The line may have been said and not yet been counted.
            let expected = match container.kind {
                Kind::Ender { .. }
                    if pod
                        .marks()
                        .join(format!("{}.over", container.name))
                        .exists() =>
                {
                    LINES..=LINES
                }
                Kind::Trapper { .. } if !last.is_empty() => {
                    let last: usize = last.trim().parse().unwrap();
                    last..=last + 1
                }
                _ => return,
            };
            assert!(
                expected.contains(&lines),
                "{lines} lines, not {expected:?}: {container:?}"
            );
        }
    }
}
