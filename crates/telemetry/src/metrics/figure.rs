//! A *figure* is one family of numbers, as the program tells it at the moment when the page is read.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry;

/// A label: its name and its value, which are constants of the program.
pub type Label = (&'static str, &'static str);

/// Whether a figure only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives; its name on the page ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// The unit of a figure, always the base unit; its name on the page ends in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A time.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// One family of figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    samples: Vec<(Vec<Label>, Value)>,
}

impl Figure {
    /// A family without numbers yet. The name is written without its unit and without `_total`,
    /// the help as a sentence without its full stop.
    #[must_use]
    pub fn new(kind: Kind, name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            unit: None,
            samples: Vec::new(),
        }
    }

    /// With a unit.
    #[must_use]
    pub fn in_unit(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }

    /// With a number that has no label.
    #[must_use]
    pub fn plain(self, value: impl Into<Value>) -> Self {
        self.with(&[], value)
    }

    /// With a number that has labels.
    #[must_use]
    pub fn with(mut self, labels: &[Label], value: impl Into<Value>) -> Self {
        self.samples.push((labels.to_vec(), value.into()));
        self
    }

    /// Writes the family.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let unit = self.unit.map(|unit| match unit {
            Unit::Bytes => registry::Unit::Bytes,
            Unit::Seconds => registry::Unit::Seconds,
        });
        // The encoder takes the help as it stands on the page.
        let help = format!("{}.", self.help);
        let mut family = encoder.encode_descriptor(self.name, &help, unit.as_ref(), kind)?;
        for (labels, value) in &self.samples {
            self.encode_one(*value, family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn encode_one(&self, value: Value, encoder: MetricEncoder<'_>) -> fmt::Result {
        match (self.kind, value) {
            (Kind::Counter, Value::Whole(value)) => ConstCounter::new(value).encode(encoder),
            (Kind::Counter, Value::Real(value)) => ConstCounter::new(value).encode(encoder),
            (Kind::Gauge, Value::Whole(value)) => ConstGauge::new(value).encode(encoder),
            (Kind::Gauge, Value::Real(value)) => ConstGauge::new(value).encode(encoder),
        }
    }
}
