//! Requests for an upgrade to SPDY or WebSocket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_streaming::fuzzing::upgrades(data));
