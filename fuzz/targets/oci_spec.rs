//! `config.json` of bundles.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_runtime::fuzzing::spec(data));
