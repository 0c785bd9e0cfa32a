//! What callers rely on because containerd and CRI-O do it, though the CRI's words do not ask for it.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::os::unix::fs::PermissionsExt;

use crisp_e2e::{configs, in_pod};

#[test]
fn privileged_mount_paths_are_cleaned_and_missing_sources_made() {
    in_pod("paths", |node, cri, id, pod| {
        let missing = node.path("missing/dir");
        let dots = format!("{}/../missing/dir", node.path("other").display());
        let mut config = configs::idle("main");
        config.mounts = vec![
            configs::mount(missing.to_str().unwrap(), "/aa/../bb"),
            configs::mount(&dots, "rel"),
            configs::mount("/proc", "/proc"),
        ];
        config.working_dir = "/tmp/../etc".to_owned();
        let container = cri.run(id, pod, &config);
        let mode = missing.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let line = "touch /bb/x; ls /rel; pwd; cat /proc/1/comm";
        let init = std::fs::read_to_string("/proc/1/comm").unwrap();
        assert_eq!(cri.shell(&container, line), format!("x\n/etc\n{init}"));
    });
}
