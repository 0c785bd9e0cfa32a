//! The daemon crispd: CRI in and out, configuration, wiring, start-up.
