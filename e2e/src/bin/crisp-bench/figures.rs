//! Figures are what was measured of one contender; the table puts contenders side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::memory::Memory;

/// Times of each step in microseconds, in the order of their first appearance, rates and memory.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    order: Vec<&'static str>,
    times: BTreeMap<&'static str, Vec<u64>>,
    streams: Vec<&'static str>,
    /// Of each stream, in kB/s.
    rates: BTreeMap<&'static str, Vec<u64>>,
    /// PSS of daemon and shims.
    pub memory: Memory,
}

impl Figures {
    pub fn add(&mut self, step: &'static str, time: Duration) {
        if !self.order.contains(&step) {
            self.order.push(step);
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.times.entry(step).or_default().push(micros);
    }

    /// Adds the sum of the steps' latest times under another name.
    pub fn sum(&mut self, name: &'static str, steps: &[&'static str]) {
        let latest = steps
            .iter()
            .filter_map(|step| self.times.get(step)?.last().copied());
        let total = latest.sum();
        self.add(name, Duration::from_micros(total));
    }

    /// Adds the rate at which bytes have passed.
    pub fn rate(&mut self, stream: &'static str, bytes: u64, time: Duration) {
        if !self.streams.contains(&stream) {
            self.streams.push(stream);
        }
        let rate = u128::from(bytes) * 1000 / time.as_micros().max(1);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.rates.entry(stream).or_default().push(rate);
    }

    fn time(&self, step: &str, percent: usize) -> u64 {
        let times = self.times.get(step).cloned();
        at(times.unwrap_or_default(), percent)
    }

    /// The rate that so many of a hundred passes reach.
    fn reached(&self, stream: &str, percent: usize) -> u64 {
        let rates = self.rates.get(stream).cloned();
        at(rates.unwrap_or_default(), 100 - percent)
    }
}

fn at(mut sorted: Vec<u64>, percent: usize) -> u64 {
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
}

/// Makes a Markdown table: a row for each step in milliseconds, for each stream in MB/s, rows for memory
/// in KiB, and a ratio of the first contender to the second where there are two.
pub fn table(contenders: &[(&str, &Figures)]) -> String {
    let mut text = String::from("| |");
    for (name, _) in contenders {
        _ = write!(text, " {name} p50 | p99 |");
    }
    if contenders.len() == 2 {
        text.push_str(" ratio of p50 |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(contenders.len() * 2 + usize::from(contenders.len() == 2)));
    text.push('\n');
    let Some((_, first)) = contenders.first() else {
        return text;
    };
    for step in &first.order {
        let cells = contenders.iter().map(|(_, f)| {
            let (middle, slow) = (f.time(step, 50), f.time(step, 99));
            (middle, format!(" {} | {} |", ms(middle), ms(slow)))
        });
        row(
            &mut text,
            &format!("{step}, ms"),
            &cells.collect::<Vec<_>>(),
        );
    }
    for stream in &first.streams {
        let cells = contenders.iter().map(|(_, f)| {
            let (middle, slow) = (f.reached(stream, 50), f.reached(stream, 99));
            (middle, format!(" {} | {} |", middle / 1000, slow / 1000))
        });
        let name = format!("{stream}, MB/s");
        row(&mut text, &name, &cells.collect::<Vec<_>>());
    }
    memory_rows(&mut text, contenders);
    text
}

type Field = fn(&Memory) -> u64;

fn memory_rows(text: &mut String, contenders: &[(&str, &Figures)]) {
    let shims = contenders.iter().map(|(_, f)| f.memory.shims).max();
    let pods = shims.unwrap_or(0);
    let rows: [(String, Field); 3] = [
        ("PSS of the daemon without pods, KiB".into(), |m| {
            m.daemon_empty
        }),
        (format!("PSS of the daemon with {pods}, KiB"), |m| {
            m.daemon_full
        }),
        ("PSS of a shim, KiB".into(), |m| m.shim),
    ];
    for (name, field) in rows {
        let cells = contenders.iter().map(|(_, f)| {
            let value = field(&f.memory);
            (value, format!(" {value} | |"))
        });
        row(text, &name, &cells.collect::<Vec<_>>());
    }
}

fn row(text: &mut String, name: &str, cells: &[(u64, String)]) {
    _ = write!(text, "| {name} |");
    for (_, cell) in cells {
        text.push_str(cell);
    }
    if let [(first, _), (second, _)] = cells {
        let hundredths = first * 100 / (*second).max(1);
        _ = write!(text, " {}.{:02} |", hundredths / 100, hundredths % 100);
    }
    text.push('\n');
}

fn ms(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_puts_two_contenders_side_by_side() {
        let figures = |times: &[u64]| {
            let mut figures = Figures::default();
            for time in times {
                figures.add("StartContainer", Duration::from_micros(*time));
            }
            figures
        };
        let (ours, theirs) = (figures(&[5_000, 4_000, 9_990]), figures(&[10_000]));
        let text = table(&[("here", &ours), ("there", &theirs)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "| | here p50 | p99 | there p50 | p99 | ratio of p50 |"
        );
        assert_eq!(lines[1], "|---|---:|---:|---:|---:|---:|");
        assert_eq!(
            lines[2],
            "| StartContainer, ms | 5.00 | 5.00 | 10.00 | 10.00 | 0.50 |"
        );
    }

    #[test]
    fn a_rate_that_is_reached_nearly_always_is_a_low_one() {
        let mut figures = Figures::default();
        for millis in [1000, 500, 2000] {
            figures.rate("exec", 1_000_000_000, Duration::from_millis(millis));
        }
        let text = table(&[("here", &figures)]);
        assert!(text.contains("\n| exec, MB/s | 1000 | 500 |\n"), "{text}");
    }
}
