//! Times and memory: collected, then printed as a Markdown table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// Times of each step in microseconds, in the order of their first appearance.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    order: Vec<&'static str>,
    times: BTreeMap<&'static str, Vec<u64>>,
}

impl Figures {
    pub fn add(&mut self, step: &'static str, time: Duration) {
        if !self.order.contains(&step) {
            self.order.push(step);
        }
        self.times.entry(step).or_default().push(micros(time));
    }

    /// Adds the sum of the steps' latest times under another name.
    pub fn sum(&mut self, name: &'static str, steps: &[&'static str]) {
        let latest = steps
            .iter()
            .filter_map(|step| self.times.get(step)?.last().copied());
        let total = latest.sum();
        self.add(name, Duration::from_micros(total));
    }

    /// `| step | min | p50 | p99 | max |`, in milliseconds.
    pub fn table(&self, lives: u32) -> String {
        let mut text = format!("{lives} lives, ms\n\n| step | min | p50 | p99 | max |\n");
        text.push_str("|---|---:|---:|---:|---:|\n");
        for step in &self.order {
            let mut sorted = self.times[step].clone();
            sorted.sort_unstable();
            let at = |percent: usize| ms(sorted[(sorted.len() - 1) * percent / 100]);
            let row = format!(
                "| {step} | {} | {} | {} | {} |\n",
                at(0),
                at(50),
                at(99),
                at(100)
            );
            text.push_str(&row);
        }
        text
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn ms(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// Proportional and private memory in KiB.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Share {
    pss: u64,
    private: u64,
}

impl Share {
    fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path)?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let private = field("Private_Clean:") + field("Private_Dirty:");
        Ok(Self {
            pss: field("Pss:"),
            private,
        })
    }
}

/// Memory of the daemon and of the shims of this node's idle pods.
#[derive(Debug, Serialize)]
pub struct Memory {
    daemon: Option<Share>,
    shims: Vec<Share>,
}

impl Memory {
    /// Reads the daemon's and every shim's share. Shims of other daemons on the machine count too:
    /// run the bench alone.
    pub fn read(daemon: Option<u32>) -> Result<Self> {
        let daemon = daemon.map(Share::of).transpose()?;
        let shims = shims()?
            .into_iter()
            .filter_map(|pid| Share::of(pid).ok())
            .collect();
        Ok(Self { daemon, shims })
    }
}

fn shims() -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim_end() == "crisp-shim" {
            found.push(pid);
        }
    }
    Ok(found)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Share { pss, private }) = self.daemon {
            writeln!(f, "daemon: PSS {pss} KiB, private {private} KiB")?;
        }
        let count = u64::try_from(self.shims.len()).unwrap_or(0).max(1);
        let mean = |field: fn(&Share) -> u64| self.shims.iter().map(field).sum::<u64>() / count;
        let (pss, private) = (mean(|s| s.pss), mean(|s| s.private));
        write!(
            f,
            "{} shims, mean: PSS {pss} KiB, private {private} KiB",
            self.shims.len()
        )
    }
}
