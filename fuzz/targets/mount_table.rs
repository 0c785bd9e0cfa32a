//! Tables of mounts.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_sys::fuzzing::mount_table(data));
