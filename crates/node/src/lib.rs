//! The engine: pods and containers as tasks, records, recovery, events, stats.
