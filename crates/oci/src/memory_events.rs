//! The memory that a container uses, in the shape of `events`.

use serde_json::{Map, Value};

use crate::figures::{Files, without_zeros};

pub(crate) fn memory(files: &Files<'_>) -> Value {
    if files.is_v2("memory") {
        memory_v2(files)
    } else {
        memory_v1(files)
    }
}

/// One kind of memory.
#[derive(Default, PartialEq)]
struct Figures {
    limit: u64,
    usage: u64,
    max: u64,
    failures: u64,
}

impl Figures {
    fn to_json(&self) -> Value {
        let mut figures = without_zeros([("usage", self.usage), ("max", self.max)]);
        figures.insert("limit".to_owned(), self.limit.into());
        figures.insert("failcnt".to_owned(), self.failures.into());
        figures.into()
    }
}

fn whole(raw: Map<String, Value>, cache: &str, kinds: [Figures; 4]) -> Map<String, Value> {
    let cache = raw.get(cache).and_then(Value::as_u64).unwrap_or(0);
    let mut memory = without_zeros([("cache", cache)]);
    for (name, figures) in ["usage", "swap", "kernel", "kernelTCP"].iter().zip(kinds) {
        if figures != Figures::default() {
            memory.insert((*name).to_owned(), figures.to_json());
        }
    }
    if !raw.is_empty() {
        memory.insert("raw".to_owned(), raw.into());
    }
    memory
}

fn memory_v1(files: &Files<'_>) -> Value {
    let kinds = ["", "memsw.", "kmem.", "kmem.tcp."].map(|kind| {
        let number = |file: &str| files.number("memory", &format!("memory.{kind}{file}"));
        Figures {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failures: number("failcnt"),
        }
    });
    let raw = files.figures("memory", "memory.stat");
    whole(raw, "cache", kinds).into()
}

/// Version 1 counts swap together with memory, and so do readers of this.
fn memory_v2(files: &Files<'_>) -> Value {
    let kind = |prefix: &str| {
        let number = |file: &str| files.number("memory", &format!("memory.{prefix}{file}"));
        Figures {
            limit: number("max"),
            usage: number("current"),
            max: number("peak"),
            failures: 0,
        }
    };
    let memory = kind("");
    let mut swap = kind("swap.");
    swap.usage = swap.usage.saturating_add(memory.usage);
    if swap.limit != u64::MAX {
        swap.limit = swap.limit.saturating_add(memory.limit);
    }
    let raw = files.figures("memory", "memory.stat");
    // It has no figures of the kernel's own memory.
    let kinds = [memory, swap, Figures::default(), Figures::default()];
    let mut whole = whole(raw, "file", kinds);
    if let Some(pressure) = files.pressure("memory") {
        whole.insert("psi".to_owned(), pressure);
    }
    whole.into()
}
