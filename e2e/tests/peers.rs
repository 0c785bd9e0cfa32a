//! Behaviour that callers rely on because containerd and CRI-O have it, though CRI does not ask for
//! it.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::os::unix::fs::PermissionsExt;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Options, configs, in_pod, trial_with};

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

/// A supervisor may start the daemon with a mask and signals of its own: no container sees either.
#[test]
fn privileged_what_the_daemon_was_started_with_reaches_no_container() {
    let options = Options {
        through: Some("umask 077; trap '' CHLD USR1; exec \"$@\""),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let pod = node.pod("inherits");
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        configs::security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
        let container = cri.run(&id, &pod, &config);
        let files = "cat /etc/hosts /etc/hostname /etc/resolv.conf >/dev/null && echo readable";
        assert_eq!(cri.shell(&container, files), "readable\n");
        // Not through a shell, which ignores signals of its own.
        let look = ["grep", "SigIgn", "/proc/self/status"];
        let ignored = cri.execute(&container, &look).unwrap().stdout;
        assert_eq!(ignored, b"SigIgn:\t0000000000000000\n");
        cri.remove_pod(&id);
    });
}
