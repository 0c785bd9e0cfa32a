//! JSON of strangers, read as Go reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_model::fuzzing::go_json(data));
