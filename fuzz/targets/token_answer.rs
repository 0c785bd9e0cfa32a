//! Answers of token servers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_registry::fuzzing::token_answer(data));
