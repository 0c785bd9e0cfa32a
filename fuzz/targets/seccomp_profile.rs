//! Seccomp profiles of the node, read and compiled.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_seccomp::fuzzing::profile(data));
