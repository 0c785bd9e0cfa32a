//! Pressure stall information of a cgroup (Documentation/accounting/psi.rst): how long its tasks
//! wait for CPU, memory and disks. The kernel keeps it in the tree of version 2, whichever
//! controllers that tree has.

use std::path::Path;

use super::files::Files;

/// The time that tasks waited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// All of it, microseconds.
    pub total_us: u64,
    /// Its share of the last ten seconds, percent.
    pub avg10: f64,
    /// Its share of the last minute, percent.
    pub avg60: f64,
    /// Its share of the last five minutes, percent.
    pub avg300: f64,
}

/// Pressure on one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Times in which some task waited.
    pub some: Stall,
    /// Times in which no task could run; kernels before 5.13 do not tell it of CPU.
    pub full: Option<Stall>,
}

/// Pressure by resource; `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressures {
    /// Waits for CPU.
    pub cpu: Option<Pressure>,
    /// Waits for memory.
    pub memory: Option<Pressure>,
    /// Waits for disks.
    pub io: Option<Pressure>,
}

pub(super) fn read(files: &mut Files<'_>) -> Pressures {
    let Some(dir) = files.cgroup().unified_dir() else {
        return Pressures::default();
    };
    let mut of = |file: &str| parse(files.read_at(&Path::new(&dir).join(file)).ok()?);
    Pressures {
        cpu: of("cpu.pressure"),
        memory: of("memory.pressure"),
        io: of("io.pressure"),
    }
}

fn parse(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == kind).map(|(_, s)| stall(s))
    };
    Some(Pressure {
        some: stall("some")?,
        full: stall("full"),
    })
}

fn stall(text: &str) -> Stall {
    let mut stall = Stall::default();
    for (name, value) in text.split(' ').filter_map(|pair| pair.split_once('=')) {
        match name {
            "total" => stall.total_us = value.parse().unwrap_or(0),
            "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
            _ => {}
        }
    }
    stall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.03 total=28625459836\n\
                    full avg10=0.00 avg60=0.10 avg300=0.00 total=7\n";
        let pressure = parse(text).unwrap();
        let some = Stall {
            total_us: 28_625_459_836,
            avg10: 1.5,
            avg60: 0.2,
            avg300: 0.03,
        };
        assert_eq!(pressure.some, some);
        let full = pressure.full.unwrap();
        assert_eq!((full.total_us, full.avg60), (7, 0.1));
        let old = parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap();
        assert_eq!((old.some.total_us, old.full), (1, None));
        assert_eq!(parse(""), None);
    }
}
