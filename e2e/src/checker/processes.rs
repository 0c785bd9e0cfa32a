//! A process of a runtime of this project: a shim, a holder, or whatever runs in a container.

use std::fs;

use super::listing::names;

/// In the names of cgroups that the tests of single crates make, which may run at the same time.
pub(super) const ELSEWHERE: &str = "-test-";

/// A process that belongs to a runtime of this project.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// A cgroup of it that is named after the project, ids left out.
    pub cgroup: String,
}

/// All processes that are ours by name or by their cgroup. Daemons are not among them.
#[must_use]
pub fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for pid in names("/proc")
        .iter()
        .filter_map(|name| name.parse::<i32>().ok())
    {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (Ok(name), Ok(cgroups)) = (read("comm"), read("cgroup")) else {
            continue;
        };
        let name = name.trim_end().to_owned();
        if is_orphan_to_be_reaped(pid) {
            continue;
        }
        let cgroup = cgroups
            .lines()
            .filter_map(|line| line.rsplit(':').next())
            .find(|path| path.contains("crisp"));
        let is_ours = name.starts_with("crisp-") || cgroup.is_some();
        let elsewhere = cgroup.is_some_and(|path| path.contains(ELSEWHERE));
        if is_ours && !elsewhere && name != "crispd" && !name.starts_with("crisp-e2e") {
            let cgroup = cgroup.unwrap_or("/").to_owned();
            found.push(Process { pid, name, cgroup });
        }
    }
    found
}

/// Whether the process has ended and only waits for process 1 to reap it.
fn is_orphan_to_be_reaped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.trim_start().starts_with("Z 1 ")
}
