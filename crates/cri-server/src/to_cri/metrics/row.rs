//! A *metric* is a row of the table: its name, its labels, and how its values are read from a
//! subject's figures. A *subject* is a container, or a pod itself.

use crisp_api::runtime::v1 as cri;
use crisp_cni::InterfaceStats;
use crisp_node::stats::metrics::{CgroupMetrics, ContainerMetrics, PodMetrics};

/// A field of further figures.
macro_rules! more {
    ($part:ident.$field:ident) => {
        |s| s.cgroup()?.more.$part.$field
    };
    ($part:ident.$field:ident / $unit:expr) => {
        |s| s.cgroup()?.more.$part.$field.map(|value| value / $unit)
    };
}
pub(super) use more;

/// Whose values are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) pod: &'a PodMetrics,
    /// `None` for the pod itself.
    pub(super) container: Option<&'a ContainerMetrics>,
}

impl<'a> Subject<'a> {
    /// The cgroup of the subject itself.
    pub(super) fn cgroup(&self) -> Option<&'a CgroupMetrics> {
        match self.container {
            Some(container) => Some(&container.cgroup),
            None => self.pod.cgroup.as_ref(),
        }
    }
}

/// Values, each with those of the metric's own labels.
pub(super) type Values = Vec<(Vec<String>, u64)>;

/// How values are read. There are none when the kernel does not count, never zeros.
#[derive(Debug, Clone, Copy)]
pub(super) enum Read {
    /// One value.
    One(fn(&Subject<'_>) -> Option<u64>),
    /// Any number of values.
    Many(fn(&Subject<'_>) -> Option<Values>),
    /// One for each interface of the pod.
    Interface(fn(&InterfaceStats) -> u64),
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: cri::MetricType,
    /// Its own labels, after those of all metrics.
    pub(super) labels: &'static [&'static str],
    pub(super) read: Read,
}

/// A figure that only grows.
pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Subject<'_>) -> Option<u64>,
) -> Metric {
    Metric {
        kind: cri::MetricType::Counter,
        ..gauge(name, help, read)
    }
}

/// A figure of the moment.
pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Subject<'_>) -> Option<u64>,
) -> Metric {
    Metric {
        name,
        help,
        kind: cri::MetricType::Gauge,
        labels: &[],
        read: Read::One(read),
    }
}

/// A figure that only grows, by labels.
pub(super) const fn counters(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&Subject<'_>) -> Option<Values>,
) -> Metric {
    Metric {
        kind: cri::MetricType::Counter,
        ..gauges(name, help, labels, read)
    }
}

/// A figure of the moment, by labels.
pub(super) const fn gauges(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&Subject<'_>) -> Option<Values>,
) -> Metric {
    Metric {
        name,
        help,
        kind: cri::MetricType::Gauge,
        labels,
        read: Read::Many(read),
    }
}

/// A counter of each interface.
pub(super) const fn interface(
    name: &'static str,
    help: &'static str,
    read: fn(&InterfaceStats) -> u64,
) -> Metric {
    Metric {
        name,
        help,
        kind: cri::MetricType::Counter,
        labels: &["interface"],
        read: Read::Interface(read),
    }
}
