//! Spec files of device vendors (CDI).

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_cdi::fuzzing::cdi_spec(data));
