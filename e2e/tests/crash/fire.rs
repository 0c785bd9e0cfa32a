//! Processes that serve a call are killed: shims, holders, CNI plugins.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::model::Fire;

/// Between two looks for a victim.
const STEP: Duration = Duration::from_micros(500);

/// Makes a call; meanwhile, the first process that `find` finds is killed. Tells whether one was.
pub(crate) fn during<T: Send>(
    fire: Fire,
    find: impl Fn() -> Option<Pid> + Sync,
    call: impl FnOnce() -> T,
) -> (T, bool) {
    let Fire::After(pause) = fire else {
        return (call(), false);
    };
    let (over, killed) = (AtomicBool::new(false), AtomicBool::new(false));
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                if let Some(pid) = find() {
                    std::thread::sleep(Duration::from_millis(pause));
                    // It may have ended meanwhile, and its number is not given out so soon again.
                    killed.store(kill(pid), Ordering::SeqCst);
                    return;
                }
                std::thread::sleep(STEP);
            }
        });
        let answer = call();
        over.store(true, Ordering::SeqCst);
        answer
    });
    (answer, killed.into_inner())
}

/// Kills a process; tells whether it was there.
pub(crate) fn kill(pid: Pid) -> bool {
    kill_process(pid, Signal::KILL).is_ok()
}

/// A CNI plugin that works for a pod.
pub(crate) fn plugin(pod: &str) -> Option<Pid> {
    let word = format!("K8S_POD_NAME={pod}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.find(|pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let of_pod = |text: &[u8]| String::from_utf8_lossy(text).split(';').any(|w| w == word);
        variables.any(|text| text.strip_prefix(b"CNI_ARGS=").is_some_and(of_pod))
    })?)
}
