//! Docker's `config.json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_registry::fuzzing::docker_config(data));
