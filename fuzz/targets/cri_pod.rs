//! Requests for pods.

#![no_main]

use crisp_api::runtime::v1::RunPodSandboxRequest;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = RunPodSandboxRequest::decode(data) {
        crisp_cri_server::fuzzing::pod(request);
    }
});
