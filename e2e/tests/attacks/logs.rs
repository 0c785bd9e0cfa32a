//! Log paths that lead elsewhere, or to what is no file (CVE-2025-0750, CVE-2026-53489).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, tools};

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("a log is something else", something_else),
    ("a log turns into a link", reopened),
];

fn something_else(field: &mut Field<'_>) {
    let pod = field.pod("logs");
    let logs = Path::new(&pod.config.log_directory).to_owned();
    let bait = field.watched.bait.clone();
    symlink(bait.join("file"), logs.join("link")).unwrap();
    symlink(bait.join("new"), logs.join("dangling")).unwrap();
    fs::create_dir(logs.join("dir")).unwrap();
    drop(tools::run("mkfifo", &[logs.join("fifo").to_str().unwrap()]));
    let absolute = bait.join("new").to_str().unwrap().to_owned();
    let up = format!("../../../../../../../../../../../..{absolute}");
    for path in [
        "link",
        "dangling",
        "dir",
        "fifo",
        "..",
        "../../bait/new",
        "a/../../../bait/new",
        &up,
        ".",
    ] {
        let mut config = configs::shell("main", "echo evil");
        config.log_path = path.to_owned();
        let why = field.try_run(&pod, &config).expect_err(path);
        assert!(!why.is_empty(), "{path}");
        field.watched.check(path);
    }
}

fn reopened(field: &mut Field<'_>) {
    let pod = field.pod("reopened");
    let log = Path::new(&pod.config.log_directory).join("main.log");
    let container = field.run(
        &pod,
        &configs::shell("main", "while :; do echo evil; usleep 1000; done"),
    );
    let targets = [
        field.watched.bait.join("file"),
        field.watched.bait.join("new"),
    ];
    for target in targets {
        fs::rename(&log, log.with_extension("old")).unwrap();
        symlink(&target, &log).unwrap();
        let request = cri::ReopenContainerLogRequest {
            container_id: container.clone(),
        };
        let status = field.cri.reopen_container_log(request).unwrap_err();
        assert!(!status.message().is_empty());
        field.watched.check("reopened");
    }
}
