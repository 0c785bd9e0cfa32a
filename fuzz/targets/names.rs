//! References, digests, ids, cgroup paths, paths and signals.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_model::fuzzing::names(data));
