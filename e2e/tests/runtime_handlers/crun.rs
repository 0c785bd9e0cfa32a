//! The same by crun, and by a runtime that is too old to tell what it can do.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{Cri, Node, cgroups, configs, tools};
use tonic::Code;

use crate::{by_default, features, run, run_confined, try_pod, with_program};

fn with_crun(name: &str, test: impl FnOnce(&mut Node, &mut Cri)) {
    if tools::has("crun", "differential", name) && cgroups::are_for_crun(name) {
        with_program(&tools::tool("crun"), test);
    }
}

#[test]
fn privileged_a_container_of_crun_lives_as_any_other() {
    with_crun("a_container_of_crun_lives_as_any_other", |node, cri| {
        let (pod, container) = run_confined(node, cri);
        let failed = cri.execute(&container, &["sh", "-c", "exit 9"]).unwrap();
        assert_eq!(failed.exit_code, 9);
        for transport in TRANSPORTS {
            let exec = streams::crictl(node, "exec", transport, &["-it", &container, "sh"]);
            let mut user = Terminal::start(&node.net, &exec, (91, 17));
            user.types("stty size; echo $((6*7))\n");
            user.shows("17 91");
            user.shows("42");
            user.types("exit 5\n");
            assert!(!user.ended().success());
        }
        let stats = cri.container_stats(cri::ContainerStatsRequest {
            container_id: container.clone(),
        });
        let memory = stats.unwrap().stats.unwrap().memory.unwrap();
        assert!(memory.working_set_bytes.unwrap().value > 0, "{memory:?}");
        cri.stop(&container, 10);
        assert_eq!(cri.look(&container).exit_code, 7);
        cri.remove_pod(&pod);
    });
}

#[test]
fn privileged_crun_says_what_it_has_not() {
    with_crun("crun_says_what_it_has_not", |node, cri| {
        let (crun, native) = (features(cri, "runc"), features(cri, "native"));
        assert_eq!(crun, native);
        let mut config = configs::shell("greedy", "a=x; while :; do a=$a$a; done");
        configs::resources(&mut config).memory_limit_in_bytes = 16 << 20;
        configs::resources(&mut config).memory_swap_limit_in_bytes = 16 << 20;
        let (id, container) = run(node, cri, &config);
        let status = cri.wait_exit(&container);
        let told = (status.reason.as_str(), status.exit_code);
        assert_eq!(told, ("OOMKilled", 137), "{status:?}");
        let missing = configs::container("missing", &["/no/such/program"]);
        let missing = cri.create(&id, &node.pod("foreign"), &missing).unwrap();
        let refused = cri.start(&missing).unwrap_err();
        assert!(refused.message().contains("/no/such/program"), "{refused}");
        cri.remove_pod(&id);
    });
}

/// By each runtime: some cut off the host's mounts first of all.
#[test]
fn privileged_mounts_of_the_host_come_in_where_that_was_asked() {
    const NAME: &str = "mounts_of_the_host_come_in";
    with_crun(NAME, mounts_come_in);
    if tools::has("runc", "differential", NAME) {
        with_program(&tools::tool("runc"), mounts_come_in);
    }
}

fn mounts_come_in(node: &mut Node, cri: &mut Cri) {
    let shared = node.path("shared");
    let host = shared.join("host");
    fs::create_dir_all(&host).unwrap();
    let [path, host] = [&shared, &host].map(|path| path.to_str().unwrap());
    drop(tools::run("mount", &["--bind", path, path]));
    drop(tools::run("mount", &["--make-shared", path]));
    let mut config = configs::idle("main");
    config.mounts = vec![configs::mount(path, "/shared")];
    config.mounts[0].propagation = cri::MountPropagation::PropagationHostToContainer.into();
    let (pod, main) = run(node, cri, &config);
    drop(tools::run("mount", &["-t", "tmpfs", "crisp-test", host]));
    fs::write(shared.join("host/file"), "x").unwrap();
    let seen = cri.shell(&main, "ls /shared/host");
    cri.remove_pod(&pod);
    drop(tools::run("umount", &["-R", path]));
    assert_eq!(seen, "file\n");
}

/// A runtime that is older than the command `features` starts what needs no features, and the rest is
/// refused by its name.
#[test]
fn privileged_an_older_runtime_is_relied_on_for_nothing() {
    const NAME: &str = "an_older_runtime_is_relied_on_for_nothing";
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old-runtime");
    if tools::has("runc", "differential", NAME) {
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != features ] || {{ echo unknown command features >&2; exit 1; }}\n\
             exec {} \"$@\"\n",
            tools::tool("runc").display()
        );
        fs::write(&old, script).unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
        with_program(&old, |node, cri| older(node, cri, &old));
    }
}

fn older(node: &mut Node, cri: &mut Cri, program: &Path) {
    let can = features(cri, "runc");
    assert!(!can.user_namespaces && !can.recursive_read_only_mounts);
    let program = program.to_str().unwrap();
    let is_warned =
        |line: &str| line.contains(program) && line.contains("does not tell its features");
    assert!(node.log().lines().any(is_warned));
    let mut mapped = node.pod("mapped");
    configs::namespaces(&mut mapped).userns_options = Some(configs::users(1_000_000));
    let refused = try_pod(cri, &mapped).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("does not tell"), "{refused}");
    let unconfined = |name: &str| {
        let mut config = configs::idle(name);
        configs::security(&mut config).apparmor = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Unconfined.into(),
            localhost_ref: String::new(),
        });
        config
    };
    let (pod, main) = run(node, cri, &unconfined("main"));
    assert_eq!(cri.shell(&main, "echo lives"), "lives\n");
    let mut confined = unconfined("confined");
    configs::security(&mut confined).seccomp = Some(by_default());
    let mut read_only = unconfined("read-only");
    read_only.mounts.push(cri::Mount {
        readonly: true,
        recursive_read_only: true,
        ..configs::mount("/usr", "/data")
    });
    for (config, words) in [
        (confined, "has a seccomp profile"),
        (read_only, "read-only with all below it"),
    ] {
        let refused = cri.create(&pod, &node.pod("foreign"), &config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let text = refused.message();
        assert!(text.contains(words) && text.contains(program), "{refused}");
    }
    cri.remove_pod(&pod);
}
