//! Names and ids that are paths (CVE-2024-8676): they become names of files, cgroups and sockets.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;
use tonic::Code;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("names of containers that are paths", container_names),
    ("ids that are paths", ids),
    ("references that are paths", references),
];

fn container_names(field: &mut Field<'_>) {
    let pod = field.pod("names");
    let long = "x".repeat(4096);
    for name in [
        "",
        "..",
        ".",
        "../x",
        "a/b",
        "/x",
        "x/../../..",
        "a\0b",
        "a\nb",
        &long,
    ] {
        let mut config = configs::idle("main");
        name.clone_into(&mut config.metadata.as_mut().unwrap().name);
        let status = field
            .cri
            .create(&pod.id, &pod.config, &config)
            .expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name:?}: {status:?}");
    }
}

fn ids(field: &mut Field<'_>) {
    let pod = field.pod("ids");
    let container = field.run(&pod, &configs::idle("main"));
    let up = "../".repeat(12) + field.bait().trim_start_matches('/');
    let under = format!("{container}/../{container}");
    let other = |status: Code| matches!(status, Code::NotFound | Code::InvalidArgument);
    for id in [
        "..", ".", "/", "../..", &up, &under, "*", "%2e%2e", "a\0b", "\n",
    ] {
        let container_id = id.to_owned();
        let pod_sandbox_id = id.to_owned();
        let codes = [
            code(field.cri.exec_sync(cri::ExecSyncRequest {
                container_id: container_id.clone(),
                cmd: vec!["true".to_owned()],
                timeout: 1,
            })),
            code(field.cri.container_status(cri::ContainerStatusRequest {
                container_id: container_id.clone(),
                verbose: true,
            })),
            code(field.cri.start_container(cri::StartContainerRequest {
                container_id: container_id.clone(),
            })),
            code(
                field
                    .cri
                    .reopen_container_log(cri::ReopenContainerLogRequest {
                        container_id: container_id.clone(),
                    }),
            ),
            code(field.cri.pod_sandbox_status(cri::PodSandboxStatusRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
                verbose: true,
            })),
            code(
                field
                    .cri
                    .create(&pod_sandbox_id, &pod.config, &configs::idle("more")),
            ),
        ];
        assert!(codes.into_iter().all(other), "{id:?}: {codes:?}");
        // Removing what is not there is a success, and removes nothing.
        field
            .cri
            .remove_container(cri::RemoveContainerRequest { container_id })
            .ok();
        field
            .cri
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })
            .ok();
        field.watched.check(id);
    }
    assert_eq!(field.cri.shell(&container, "echo there"), "there\n");
}

fn code<T>(reply: Result<T, tonic::Status>) -> Code {
    reply.err().map_or(Code::Ok, |status| status.code())
}

fn references(field: &mut Field<'_>) {
    let before = field.cri.image_names();
    let up = format!(
        "r.test/{}:1",
        "../".repeat(12) + field.bait().trim_start_matches('/')
    );
    for name in [
        "",
        "..",
        "../x:1",
        "r.test/../x:1",
        &up,
        "r.test/a:../x",
        "r.test/a@sha256:../..",
        "file:///etc/passwd",
        "r.test/a:1\0",
        "r.test/A:1",
        "-x",
        "r.test/a@md5:00",
        "r.test:99999999/a:1",
    ] {
        let status = field.cri.pull(name).expect_err(name);
        let refused = matches!(
            status.code(),
            Code::InvalidArgument | Code::Unavailable | Code::FailedPrecondition
        );
        assert!(refused, "{name:?}: {status:?}");
    }
    assert_eq!(field.cri.image_names(), before);
}
