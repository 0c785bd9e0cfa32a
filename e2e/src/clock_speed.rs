//! The clock speed of processors: a kubelet does not start on x86 without one, and user-mode Linux tells none.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::emulated::{CPUS, is_emulated};
use crate::tools;

/// The file that takes the place of the kernel's.
const MADE_UP: &str = "/run/cpuinfo";
/// Another proc file system, of which nothing is covered. A user namespace may have one of its own only
/// where a whole one is to be seen.
const WHOLE: &str = "/run/whole-proc";
/// How often nodes are looked for that have begun.
const LOOK: Duration = Duration::from_millis(500);
/// The process of a node that is first there.
const INIT: &str = "cluster\0init\0";

/// Has the file tell a speed, unless it does.
fn script() -> String {
    format!(
        "grep -q MHz {CPUS} || {{ {{ cat {CPUS}; printf 'cpu MHz\\t\\t: 1000.000\\n'; }} >{MADE_UP} && \
         mkdir -p {WHOLE} && mount -t proc proc {WHOLE} && mount --bind {MADE_UP} {CPUS}; }}"
    )
}

/// A speed that this machine tells; dropped, the file is the kernel's again.
#[derive(Debug)]
pub struct ClockSpeed {
    is_made_up: bool,
}

impl ClockSpeed {
    /// Gives the machine one where it tells none.
    #[must_use]
    pub fn tell() -> Self {
        let is_made_up = is_emulated();
        if is_made_up {
            drop(tools::run("sh", &["-c", &script()]));
        }
        Self { is_made_up }
    }
}

impl Drop for ClockSpeed {
    fn drop(&mut self) {
        if self.is_made_up {
            let undo = format!("umount {CPUS} {WHOLE}; rm {MADE_UP}; rmdir {WHOLE}");
            drop(tools::run("sh", &["-c", &undo]));
        }
    }
}

/// A watch that gives each node of a cluster a clock speed as soon as it runs, until it is dropped.
#[derive(Debug)]
pub struct OfNodes {
    is_over: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl OfNodes {
    /// Begins, on an emulated machine.
    #[must_use]
    pub fn watch() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let watch = is_emulated().then(|| {
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    inits().iter().for_each(|pid| give(*pid));
                    std::thread::sleep(LOOK);
                }
            })
        });
        Self { is_over, watch }
    }
}

impl Drop for OfNodes {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(watch) = self.watch.take() {
            watch.join().ok();
        }
    }
}

/// The first processes of all nodes.
fn inits() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_init = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(INIT)
    };
    pids.filter(is_init).collect()
}

/// In the node's own mounts, with which it goes.
fn give(pid: u32) {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &pid.to_string(), "--mount", "--"]);
    enter.args(["/bin/sh", "-c", &script()]);
    // A node that has gone, or has no mounts of its own yet, is looked at again.
    enter.stdin(Stdio::null()).stderr(Stdio::null());
    enter.status().ok();
}
