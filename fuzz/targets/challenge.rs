//! `WWW-Authenticate` headers of registries.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_registry::fuzzing::challenge(data));
