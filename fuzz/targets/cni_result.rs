//! The output of plugins: results and complaints.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_cni::fuzzing::result(data));
