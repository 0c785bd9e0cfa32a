//! Indexes, manifests and image configs.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_image::fuzzing::documents(data));
