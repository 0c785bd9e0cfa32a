//! Messages of clients that stream over WebSocket, and the channels in them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_streaming::fuzzing::websocket(data));
