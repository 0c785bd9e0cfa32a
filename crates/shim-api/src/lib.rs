//! The messages between crispd and crisp-shim.
