//! Requests for containers.

#![no_main]

use crisp_api::runtime::v1::CreateContainerRequest;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = CreateContainerRequest::decode(data) {
        crisp_cri_server::fuzzing::container(request);
    }
});
