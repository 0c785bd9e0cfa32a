//! *Operations* are the calls of the doors, counted and timed by their name and by how they ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the histogram, in seconds: a list takes less than the first, a start some tens of
/// milliseconds, a stop its grace, a pull minutes.
const BOUNDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];

/// The code of a call whose caller did not wait for its end.
const DROPPED: &str = "Dropped";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    operation: &'static str,
    code: &'static str,
}

#[derive(Debug)]
struct Recorded {
    running: Family<Named, Gauge>,
    durations: Family<Ended, Histogram, fn() -> Histogram>,
}

/// The record of calls. Clones share it; the default one records nothing and costs nothing.
#[derive(Debug, Clone, Default)]
pub struct Operations(Option<Arc<Recorded>>);

impl Operations {
    /// A record that is kept.
    #[must_use]
    pub fn recorded() -> Self {
        Self(Some(Arc::new(Recorded {
            running: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
        })))
    }

    /// Notes that a call begins. Its name is a constant of the door, as the code of its end is:
    /// nothing that a caller sends becomes a label.
    #[must_use = "it is over when it is dropped"]
    pub fn begin(&self, operation: &'static str) -> Operation {
        if let Some(recorded) = &self.0 {
            recorded.running.get_or_create(&Named { operation }).inc();
        }
        Operation {
            recorded: self.0.clone(),
            operation,
            since: Instant::now(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let Some(recorded) = &self.0 else { return };
        registry.register(
            "crisp_operations_running",
            "Calls that are being worked on, by operation",
            recorded.running.clone(),
        );
        registry.register_with_unit(
            "crisp_operation_duration",
            "Time from a call's begin to its answer, by operation and by the code of the answer; \
             Dropped is a call whose client left or whose deadline passed",
            Unit::Seconds,
            recorded.durations.clone(),
        );
    }
}

/// A call that runs. When it is dropped, its caller does not wait for the answer any more.
#[derive(Debug)]
pub struct Operation {
    recorded: Option<Arc<Recorded>>,
    operation: &'static str,
    since: Instant,
}

impl Operation {
    /// The call was answered after this time, with this code.
    pub fn answered(mut self, code: &'static str, took: Duration) {
        self.note(code, took);
    }

    fn note(&mut self, code: &'static str, took: Duration) {
        let Some(recorded) = self.recorded.take() else {
            return;
        };
        let operation = self.operation;
        let ended = Ended { operation, code };
        let durations = recorded.durations.get_or_create(&ended);
        durations.observe(took.as_secs_f64());
        recorded.running.get_or_create(&Named { operation }).dec();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.note(DROPPED, self.since.elapsed());
    }
}
