//! Ranges of ids of user namespaces and mounts.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_model::fuzzing::id_map(data));
