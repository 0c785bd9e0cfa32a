//! Configurations of networks and of the built-in plugin.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_cni::fuzzing::conf(data));
