//! Figures of the daemon's own process, under the names that all programs give them.

use std::fs;
use std::sync::OnceLock;

use crisp_sys::clock;
use crisp_sys::limits;
use crisp_sys::process::ProcessId;
use crisp_telemetry::metrics::{Figure, Kind, Unit};

/// The kernel tells times in hundredths of a second (`USER_HZ`), whatever its own clock ticks in.
const TICKS: f64 = 100.0;
const NANOS: f64 = 1e9;

/// All of them; one that the kernel does not tell is left out.
pub fn all() -> Vec<Figure> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let gauge = |name, help| Figure::new(Kind::Gauge, name, help);
    let cpu = Figure::new(Kind::Counter, "process_cpu", "Processor time of the daemon");
    let memory = |name, help, key| {
        let kibibytes = number(&status, key)?;
        let figure = gauge(name, help).in_unit(Unit::Bytes);
        Some(figure.plain(kibibytes.saturating_mul(1024)))
    };
    let files = fs::read_dir("/proc/self/fd").ok();
    let figures = [
        cpu_seconds().map(|seconds| cpu.in_unit(Unit::Seconds).plain(seconds)),
        // Reading the directory takes one itself.
        files.map(|files| {
            gauge("process_open_fds", "Open files of the daemon")
                .plain(files.count().saturating_sub(1))
        }),
        Some(
            gauge("process_max_fds", "Open files that the daemon may have")
                .plain(limits::most_open_files()),
        ),
        memory(
            "process_resident_memory",
            "Memory of the daemon that is in RAM",
            "VmRSS",
        ),
        memory(
            "process_virtual_memory",
            "Address space of the daemon",
            "VmSize",
        ),
        number(&status, "Threads")
            .map(|threads| gauge("process_threads", "Threads of the daemon").plain(threads)),
        start_time().map(|start| {
            gauge(
                "process_start_time",
                "When the daemon was started, since the Unix epoch",
            )
            .in_unit(Unit::Seconds)
            .plain(start)
        }),
    ];
    figures.into_iter().flatten().collect()
}

/// The number in a line `KEY: NUMBER …` of `/proc/self/status`.
fn number(status: &str, key: &str) -> Option<u64> {
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.into_iter().find(|(name, _)| *name == key)?;
    value.split_whitespace().next()?.parse().ok()
}

/// User and system time: the fields 14 and 15 of proc_pid_stat(5), of which the name in parentheses
/// is the second.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = |field: usize| rest.split_whitespace().nth(field)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// The kernel knows it since the machine's start, whose time the clocks tell, a little different each
/// time. It is found once, because a change of it means a restart to those who watch.
fn start_time() -> Option<f64> {
    static FOUND: OnceLock<f64> = OnceLock::new();
    if FOUND.get().is_none()
        && let Some(found) = find_start_time()
    {
        FOUND.set(found).ok();
    }
    FOUND.get().copied()
}

fn find_start_time() -> Option<f64> {
    let own = i32::try_from(std::process::id()).ok()?;
    let since_boot = ProcessId::of(own).ok()?.start_time as f64 / TICKS;
    let boot = (clock::now() - clock::since_boot()) as f64 / NANOS;
    Some(boot + since_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_all_figures() {
        let figures = all();
        assert_eq!(figures.len(), 7, "{figures:?}");
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(number(&status, "VmRSS").unwrap() > 100);
        assert_eq!(number(&status, "Vm"), None);
        let now = clock::now();
        let age = now as f64 / NANOS - start_time().unwrap();
        assert!((0.0..600.0).contains(&age), "{age}");
        let first = start_time().map(f64::to_bits);
        let is_first = |_| start_time().map(f64::to_bits) == first;
        assert!((0..20_000).all(is_first), "it moves");
        assert!(cpu_seconds().unwrap() < 600.0);
    }
}
