//! The first bytes of a connection to the CRI socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_cri_server::fuzzing::connection(data));
