//! Records of images and leases, as the disk may give them back.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_image::fuzzing::records(data));
