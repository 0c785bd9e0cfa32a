//! Manifests and indexes: which of the two they are.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_registry::fuzzing::document_kind(data));
