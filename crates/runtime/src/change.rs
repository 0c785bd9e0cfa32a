//! A change of a cgroup's limits: all of its writes, or none. The kernel can refuse any of them, and
//! a half of the limits is nothing that anyone asked for.

use std::cell::RefCell;
use std::fmt::Write as _;

use crisp_sys::cgroup::Cgroup;

use crate::error::{Error, Result};

/// Whether what the files hold now is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// The container lives on without the change.
    Kept,
    /// The cgroup goes when a write fails, as one that was just made: reading it is in vain.
    Lost,
}

/// Writes to the files of a cgroup.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) cgroup: &'a Cgroup,
    before: Before,
    /// Writes that lead back, the latest last.
    back: RefCell<Vec<Step>>,
}

#[derive(Debug)]
struct Step {
    controller: String,
    file: String,
    value: String,
}

impl<'a> Change<'a> {
    pub(crate) fn of(cgroup: &'a Cgroup, before: Before) -> Self {
        Self {
            cgroup,
            before,
            back: RefCell::default(),
        }
    }

    pub(crate) fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        self.try_set(controller, file, value)
            .map_err(|error| Error::cgroup("limit", error))
    }

    pub(crate) fn try_set(&self, controller: &str, file: &str, value: &str) -> std::io::Result<()> {
        let back = self.way_back(controller, file, value);
        self.cgroup.write(controller, file, value)?;
        self.back.borrow_mut().extend(back);
        Ok(())
    }

    /// Has a file set back as it is now, because the next write changes it as well.
    pub(crate) fn remember(&self, controller: &str, file: &str) {
        let back = self.way_back(controller, file, "");
        self.back.borrow_mut().extend(back);
    }

    /// A file that cannot be read holds nothing that could be written back.
    fn way_back(&self, controller: &str, file: &str, value: &str) -> Option<Step> {
        if self.before == Before::Lost {
            return None;
        }
        let present = self.cgroup.read(controller, file).ok()?;
        Some(Step {
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: back(file, value, &present),
        })
    }

    /// Takes all back, in reverse, and returns the error that made it necessary: with what stayed
    /// changed, if the kernel refuses its own old values.
    pub(crate) fn take_back(self, error: Error) -> Error {
        let mut stays = String::new();
        for step in self.back.into_inner().iter().rev() {
            let written = self.cgroup.write(&step.controller, &step.file, &step.value);
            if let Err(error) = written {
                write!(stays, "; {} stays changed: {error}", step.file).ok();
            }
        }
        match error {
            Error::Setup {
                step,
                message,
                errno,
            } if !stays.is_empty() => Error::Setup {
                step,
                message: format!("{message}{stays}"),
                errno,
            },
            error => error,
        }
    }
}

/// The text that undoes the write of `value` to a file that holds `present`. Most files hold one
/// value; some hold one for each device or name, and are written one at a time.
fn back(file: &str, value: &str, present: &str) -> String {
    let key = value.split_whitespace().next().unwrap_or_default();
    let words = value.split_whitespace().count();
    let of_key = || {
        let mut lines = present.lines();
        lines.find(|line| line.split_whitespace().next() == Some(key))
    };
    let none = match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        "io.weight" | "io.bfq.weight" if words == 2 && key != "default" => "default",
        "rdma.max" => "hca_handle=max hca_object=max",
        "misc.max" => "max",
        "blkio.bfq.weight_device" | "blkio.weight_device" => "0",
        _ if file.starts_with("blkio.throttle.") => "0",
        "memory.oom_control" => {
            let mut lines = present.lines();
            let found = lines.find_map(|line| line.strip_prefix("oom_kill_disable "));
            return found.unwrap_or("0").to_owned();
        }
        _ => {
            let line = present.lines().next().unwrap_or_default();
            // An empty list is written as a line of its own: without a byte there is no write.
            return if line.is_empty() { "\n" } else { line }.to_owned();
        }
    };
    of_key().map_or_else(|| format!("{key} {none}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_held_leads_back() {
        let table = [
            ("memory.max", "1", "4096\n", "4096"),
            ("cpu.max", "5 10", "max 100000\n", "max 100000"),
            ("cpuset.cpus", "3", "\n", "\n"),
            (
                "io.weight",
                "default 7",
                "default 100\n8:0 3\n",
                "default 100",
            ),
            ("io.bfq.weight", "7", "default 100\n8:0 3\n", "default 100"),
            ("io.bfq.weight", "8:0 7", "default 100\n8:0 3\n", "8:0 3"),
            ("io.weight", "8:1 7", "default 100\n8:0 3\n", "8:1 default"),
            (
                "io.max",
                "8:0 rbps=5",
                "8:1 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=2 wbps=4 riops=max wiops=max\n",
                "8:0 rbps=2 wbps=4 riops=max wiops=max",
            ),
            (
                "io.max",
                "8:0 rbps=5",
                "",
                "8:0 rbps=max wbps=max riops=max wiops=max",
            ),
            (
                "blkio.throttle.read_bps_device",
                "8:0 5",
                "8:16 1\n",
                "8:0 0",
            ),
            (
                "blkio.throttle.read_bps_device",
                "8:0 5",
                "8:0 1\n",
                "8:0 1",
            ),
            (
                "memory.oom_control",
                "1",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
                "0",
            ),
            ("misc.max", "sev 3", "sev 2\n", "sev 2"),
        ];
        for (file, value, present, expected) in table {
            assert_eq!(back(file, value, present), expected, "{file} {value}");
        }
    }
}
