//! An owner is the process that a container or pod belongs to: its shim or holder. It is found as an
//! operator finds it, by its program and last argument.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::eventually;

/// The shim of a container, if it is there.
#[must_use]
pub fn shim(container: &str) -> Option<Pid> {
    owner("crisp-shim", container)
}

/// Kills the shim of a container, and waits for the next one.
#[track_caller]
pub fn replace_shim(container: &str) -> Pid {
    let old = shim(container).unwrap();
    kill_process(old, Signal::KILL).unwrap();
    let mut new = None;
    eventually("another shim is there", || {
        new = shim(container).filter(|shim| *shim != old);
        new.is_some()
    });
    new.unwrap()
}

/// The init of the PID namespace that the containers of a pod share, if it is there.
#[must_use]
pub fn holder(pod: &str) -> Option<Pid> {
    owner("crisp-holder", pod)
}

/// Whether some process has this text in its command line, its words joined by spaces.
#[must_use]
pub fn runs(words: &str) -> bool {
    let me = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.any(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        pid != me && pid.parse::<i32>().is_ok() && line.contains(words)
    })
}

fn owner(program: &str, id: &str) -> Option<Pid> {
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .collect();
        words.len() > 1
            && words[0].ends_with(program.as_bytes())
            && words.last() == Some(&id.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.find(is_it)?)
}
