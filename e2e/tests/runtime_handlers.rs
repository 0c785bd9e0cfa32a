//! Pods whose containers another OCI runtime starts: they live, log, stop and are cleaned up as
//! Crisp's own are, whoever is killed meanwhile. The other runtime is runc, where it was built.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS, fed};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{Cri, Node, Options, configs, eventually, owners, tools, trial_with};
use rustix::process::{Pid, Signal, kill_process};
use tonic::{Code, Status};

/// Runs a test on a node with the handler `runc`, and looks whether runc keeps state of what is
/// gone.
fn with_runc(name: &str, test: impl FnOnce(&mut Node, &mut Cri)) {
    if !tools::has("runc", "differential", name) {
        return;
    }
    let runc = tools::tool("runc");
    let config = format!(
        "[runtimes.runc]\nkind = \"oci\"\npath = \"{}\"\n",
        runc.display()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        test(node, &mut cri);
        assert_eq!(states(node), Vec::<PathBuf>::new(), "state of runc is left");
    });
}

/// The directories that runc has for containers.
fn states(node: &Node) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(node.state().join("runtimes/runc")) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[allow(clippy::result_large_err, reason = "the status that tests look at")]
fn try_pod(cri: &mut Cri, pod: &cri::PodSandboxConfig) -> Result<String, Status> {
    let request = cri::RunPodSandboxRequest {
        config: Some(pod.clone()),
        runtime_handler: "runc".to_owned(),
    };
    Ok(cri.run_pod_sandbox(request)?.pod_sandbox_id)
}

/// A pod of runc's with one container.
fn run(node: &Node, cri: &mut Cri, config: &cri::ContainerConfig) -> (String, String) {
    let pod = node.pod("foreign");
    let id = try_pod(cri, &pod).unwrap();
    let container = cri.run(&id, &pod, config);
    assert_eq!(states(node).len(), 1, "runc knows the container");
    (id, container)
}

#[test]
fn privileged_a_container_of_runc_lives_as_any_other() {
    with_runc("a_container_of_runc_lives_as_any_other", |node, cri| {
        let line = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done";
        let mut config = configs::shell("main", line);
        let limit = 64 << 20;
        configs::resources(&mut config).memory_limit_in_bytes = limit;
        configs::security(&mut config).seccomp = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        });
        let (pod, container) = run(node, cri, &config);
        let log = node.path("logs/foreign/main.log");
        let logged = |words: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(words));
        eventually("both streams are logged", || {
            logged("stdout F out") && logged("stderr F err")
        });
        assert_eq!(
            cri.shell(&container, "grep ^Seccomp: /proc/self/status"),
            "Seccomp:\t2\n"
        );
        let stats = cri.container_stats(cri::ContainerStatsRequest {
            container_id: container.clone(),
        });
        let memory = stats.unwrap().stats.unwrap().memory.unwrap();
        assert!(memory.working_set_bytes.unwrap().value > 0, "{memory:?}");
        // The limit is written where the container is.
        let update = cri::UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: limit * 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        cri.update_container_resources(update).unwrap();
        let status = cri.look(&container);
        let told = status.resources.unwrap().linux.unwrap();
        assert_eq!(told.memory_limit_in_bytes, limit * 2);
        cri.stop(&container, 10);
        assert_eq!(cri.look(&container).exit_code, 7);
        cri.remove_pod(&pod);
    });
}

#[test]
fn privileged_memory_that_runs_out_and_programs_that_are_missing_are_told() {
    with_runc("memory_that_runs_out", |node, cri| {
        let mut config = configs::shell("greedy", "a=x; while :; do a=$a$a; done");
        configs::resources(&mut config).memory_limit_in_bytes = 16 << 20;
        configs::resources(&mut config).memory_swap_limit_in_bytes = 16 << 20;
        let (id, container) = run(node, cri, &config);
        let status = cri.wait_exit(&container);
        let told = (status.reason.as_str(), status.exit_code);
        assert_eq!(told, ("OOMKilled", 137), "{status:?}");
        let pod = node.pod("foreign");
        let missing = configs::container("missing", &["/no/such/program"]);
        let missing = cri.create(&id, &pod, &missing).unwrap();
        let refused = cri.start(&missing).unwrap_err();
        assert!(refused.message().contains("/no/such/program"), "{refused}");
        assert_eq!(cri.look(&missing).reason, "StartError");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_commands_and_terminals_go_through_runc() {
    with_runc("commands_and_terminals_go_through_runc", |node, cri| {
        let (pod, id) = run(node, cri, &configs::idle("main"));
        let failed = cri.execute(&id, &["sh", "-c", "exit 9"]).unwrap();
        assert_eq!(failed.exit_code, 9);
        let missing = cri.execute(&id, &["no-such-command"]).unwrap_err();
        assert!(missing.message().contains("no-such-command"), "{missing}");
        for transport in TRANSPORTS {
            let exec =
                |words: &[&str]| -> Command { streams::crictl(node, "exec", transport, words) };
            let cat = fed(
                node,
                exec(&["-i", &id, "sh", "-c", "cat; echo more"]),
                b"in\n",
            );
            assert_eq!(cat.stdout, b"in\nmore\n", "{transport}");
            let mut user = Terminal::start(&node.net, &exec(&["-it", &id, "sh"]), (91, 17));
            user.types("tty; stty size; echo $((6*7))\n");
            user.shows("17 91");
            user.shows("/dev/pts/");
            user.shows("42");
            user.types("exit 5\n");
            assert!(!user.ended().success());
        }
        cri.remove_pod(&pod);
    });
}

#[test]
fn privileged_a_container_has_its_terminal_from_runc() {
    with_runc("a_container_has_its_terminal_from_runc", |node, cri| {
        let talker = cri::ContainerConfig {
            stdin: true,
            tty: true,
            ..configs::container("talker", &["sh"])
        };
        let (pod, id) = run(node, cri, &talker);
        let attach = streams::crictl(node, "attach", "websocket", &["-it", &id]);
        let mut user = Terminal::start(&node.net, &attach, (91, 17));
        user.types("tty; echo $((6*7))\n");
        user.shows("/dev/pts/");
        user.shows("42");
        user.types("exit 3\n");
        assert_eq!(cri.wait_exit(&id).exit_code, 3);
        cri.remove_pod(&pod);
    });
}

#[test]
fn privileged_neither_daemon_nor_shim_is_missed() {
    with_runc("neither_daemon_nor_shim_is_missed", |node, cri| {
        let line = "trap 'exit 7' TERM; i=0; \
                    while :; do echo line $i; i=$((i+1)); sleep 0.05; done";
        let (pod, id) = run(node, cri, &configs::shell("main", line));
        let log = node.path("logs/foreign/main.log");
        let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
        let goes_on = || {
            let before = lines();
            eventually("the log goes on", || lines() > before + 3);
        };
        node.kill();
        node.restart();
        let mut cri = node.cri();
        goes_on();
        let old: Pid = owners::shim(&id).unwrap();
        kill_process(old, Signal::KILL).unwrap();
        eventually("another shim is there", || {
            owners::shim(&id).is_some_and(|shim| shim != old)
        });
        goes_on();
        eventually("commands run in it", || cri.execute(&id, &["true"]).is_ok());
        assert_eq!(cri.look(&id).state(), cri::ContainerState::ContainerRunning);
        // The state of runc goes with the container when nobody could ask it.
        let shim = owners::shim(&id).unwrap();
        node.kill();
        kill_process(shim, Signal::KILL).unwrap();
        eventually("the shim has ended", || owners::shim(&id).is_none());
        node.restart();
        node.cri().remove_pod(&pod);
    });
}

#[test]
fn privileged_what_runc_cannot_do_is_refused_by_name() {
    with_runc("what_runc_cannot_do_is_refused_by_name", |node, cri| {
        let status = cri.status(cri::StatusRequest::default()).unwrap();
        let of = |name: &str| {
            let mut handlers = status.runtime_handlers.iter();
            let found = handlers.find(|handler| handler.name == name).unwrap();
            found.features.unwrap()
        };
        assert!(!of("runc").user_namespaces);
        assert_eq!(
            of("runc").recursive_read_only_mounts,
            of("native").recursive_read_only_mounts
        );
        let mut pod = node.pod("mapped");
        let map = cri::IdMapping {
            container_id: 0,
            host_id: 1_000_000,
            length: 65536,
        };
        configs::namespaces(&mut pod).userns_options = Some(cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: vec![map],
            gids: vec![map],
        });
        let refused = try_pod(cri, &pod).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("\"runc\""), "{refused}");
    });
}
