//! A machine that is emulated is slow, and one of user-mode Linux tells no clock speed, without which a
//! kubelet starts nowhere.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CPUS: &str = "/proc/cpuinfo";
/// Another proc file system, of which nothing is covered.
const WHOLE: &str = "/run/whole-proc";
/// How much longer everything takes.
const SLOWER: u32 = 4;
/// How often nodes are looked for that have begun.
const LOOK: Duration = Duration::from_millis(500);
/// The process of a node that is first there.
const INIT: &str = "cluster\0init\0";

/// Whether the machine's processors are emulated.
#[must_use]
pub fn is_emulated() -> bool {
    !std::fs::read_to_string(CPUS).unwrap().contains("MHz")
}

/// A time that a usual machine needs at most, on this one.
#[must_use]
pub fn at_most(usual: Duration) -> Duration {
    if is_emulated() { usual * SLOWER } else { usual }
}

/// A watch that gives each node of a cluster a clock speed as soon as it runs, until it is dropped.
#[derive(Debug)]
pub struct ClockSpeed {
    is_over: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl ClockSpeed {
    /// Begins, on an emulated machine.
    #[must_use]
    pub fn of_nodes() -> Self {
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

impl Drop for ClockSpeed {
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

/// In the node's own mounts, with which it goes. A user namespace may have a proc file system only where a
/// whole one is to be seen, which that of the node is no more.
fn give(pid: u32) {
    let script = format!(
        "grep -q MHz {CPUS} || {{ {{ cat {CPUS}; printf 'cpu MHz\\t\\t: 1000.000\\n'; }} >/run/cpuinfo && \
         mkdir -p {WHOLE} && mount -t proc proc {WHOLE} && mount --bind /run/cpuinfo {CPUS}; }}"
    );
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &pid.to_string(), "--mount", "--"]);
    enter.args(["/bin/sh", "-c", &script]);
    // A node that has gone, or has no mounts of its own yet, is looked at again.
    enter.stdin(Stdio::null()).stderr(Stdio::null());
    enter.status().ok();
}
