//! `USER`, `/etc/passwd` and `/etc/group` of images.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_spec::fuzzing::users(data));
