//! Pods whose containers another OCI runtime starts: they live, log, stop and are cleaned up as
//! Crisp's own are, whoever is killed meanwhile. The other runtime is runc, and then crun, where they
//! were built.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod crun;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::streams::{self, TRANSPORTS, fed};
use crisp_e2e::terminal::Terminal;
use crisp_e2e::{Cri, Node, Options, configs, eventually, owners, tools, trial_with};
use rustix::process::{Signal, kill_process};
use tonic::{Code, Status};

/// Runs a test on a node with the handler `runc`, where it was built.
fn with_runc(name: &str, test: impl FnOnce(&mut Node, &mut Cri)) {
    if tools::has("runc", "differential", name) {
        with_program(&tools::tool("runc"), test);
    }
}

/// Runs a test on a node whose handler `runc` has this program, and looks whether state is kept of
/// containers that are gone.
fn with_program(runc: &Path, test: impl FnOnce(&mut Node, &mut Cri)) {
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

/// The directories that the runtime has for containers. Its own cache beside them is hidden.
fn states(node: &Node) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(node.state().join("runtimes/runc")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_hidden = |path: &Path| {
        path.file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b".")
    };
    paths.filter(|path| !is_hidden(path)).collect()
}

fn features(cri: &mut Cri, handler: &str) -> cri::RuntimeHandlerFeatures {
    let status = cri.status(cri::StatusRequest::default()).unwrap();
    let mut handlers = status.runtime_handlers.into_iter();
    let found = handlers.find(|found| found.name == handler).unwrap();
    found.features.unwrap()
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

/// The memory of [`run_confined`]'s container, bytes.
const LIMIT: i64 = 64 << 20;

fn by_default() -> cri::SecurityProfile {
    cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    }
}

/// Runs a container with limits and a filter that ends with 7 at SIGTERM, and sees that it logs and is
/// confined; tells the pod's id and its own.
fn run_confined(node: &Node, cri: &mut Cri) -> (String, String) {
    let line = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let mut config = configs::shell("main", line);
    configs::resources(&mut config).memory_limit_in_bytes = LIMIT;
    configs::security(&mut config).seccomp = Some(by_default());
    let (pod, container) = run(node, cri, &config);
    let log = node.path("logs/foreign/main.log");
    let logged = |words: &str| fs::read_to_string(&log).is_ok_and(|text| text.contains(words));
    eventually("both streams are logged", || {
        logged("stdout F out") && logged("stderr F err")
    });
    // The shim blocks its own signals.
    for process in ["1", "self"] {
        let looked = format!("grep -E '^(SigBlk|Seccomp):' /proc/{process}/status");
        assert_eq!(
            cri.shell(&container, &looked),
            "SigBlk:\t0000000000000000\nSeccomp:\t2\n"
        );
    }
    (pod, container)
}

#[test]
fn privileged_a_container_of_runc_lives_as_any_other() {
    with_runc("a_container_of_runc_lives_as_any_other", |node, cri| {
        let (pod, container) = run_confined(node, cri);
        let stats = cri.container_stats(cri::ContainerStatsRequest {
            container_id: container.clone(),
        });
        let memory = stats.unwrap().stats.unwrap().memory.unwrap();
        assert!(memory.working_set_bytes.unwrap().value > 0, "{memory:?}");
        // The limit is written where the container is.
        let update = cri::UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(cri::LinuxContainerResources {
                memory_limit_in_bytes: LIMIT * 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        cri.update_container_resources(update).unwrap();
        let status = cri.look(&container);
        let told = status.resources.unwrap().linux.unwrap();
        assert_eq!(told.memory_limit_in_bytes, LIMIT * 2);
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
        assert_eq!(exec_cgroups(&id), Vec::<PathBuf>::new());
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
        owners::replace_shim(&id);
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
fn privileged_what_runc_can_do_is_told() {
    with_runc("what_runc_can_do_is_told", |_, cri| {
        assert_eq!(features(cri, "runc"), features(cri, "native"));
    });
}

/// A handler that can start nothing is told, and the others are not its business.
#[test]
fn privileged_a_handler_without_a_usable_program_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old-crun");
    fs::write(&old, "#!/bin/sh\necho unknown command $1 >&2; exit 1\n").unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "[runtimes.gone]\nkind = \"oci\"\npath = \"/no/such/runc\"\n\
         [runtimes.old]\nkind = \"oci\"\npath = \"{}\"\n",
        old.display()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let told = conditions_of(&mut cri).remove("RuntimeHandlersReady");
        let told = told.unwrap();
        assert!(!told.status, "{told:?}");
        for words in ["/no/such/runc", "unknown command features", "crun 1.8.6"] {
            assert!(told.message.contains(words), "{told:?}");
            assert!(node.log().contains(words), "{words} is not in the log");
        }
        for (name, words) in [("gone", "No such file"), ("old", "unknown command")] {
            let request = cri::RunPodSandboxRequest {
                config: Some(node.pod(name)),
                runtime_handler: name.to_owned(),
            };
            let refused = cri.run_pod_sandbox(request).unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(refused.message().contains(words), "{refused}");
            let can = features(&mut cri, name);
            assert!(!can.user_namespaces && !can.recursive_read_only_mounts);
        }
        let pod = cri.run_pod(&node.pod("native"));
        cri.remove_pod(&pod);
        // As the default handler it is everybody's business: no pod is to be placed here.
        node.kill();
        let written = fs::read_to_string(node.path("config.toml")).unwrap();
        let text = format!("default_runtime = \"gone\"\n{written}");
        fs::write(node.path("config.toml"), text).unwrap();
        node.restart();
        let runtime = conditions_of(&mut node.cri())
            .remove("RuntimeReady")
            .unwrap();
        assert!(!runtime.status, "{runtime:?}");
        assert!(runtime.message.contains("/no/such/runc"), "{runtime:?}");
    });
}

fn conditions_of(cri: &mut Cri) -> BTreeMap<String, cri::RuntimeCondition> {
    let status = cri.status(cri::StatusRequest::default()).unwrap();
    let conditions = status.status.unwrap().conditions.into_iter();
    conditions.map(|one| (one.r#type.clone(), one)).collect()
}

/// A runc that hangs is given up in time, and nothing stays of what it was to do.
#[test]
fn privileged_a_runc_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (slow, hang) = (dir.path().join("slow-runc"), dir.path().join("hang"));
    let test = |node: &mut Node, cri: &mut Cri| {
        let hangs = |verb: &str| fs::write(&hang, verb).unwrap();
        let (pod, id) = run(node, cri, &configs::idle("main"));
        hangs("exec");
        let refused = cri.execute(&id, &["true"]).unwrap_err();
        assert!(
            refused.message().contains("took longer than 8s"),
            "{refused}"
        );
        hangs("start");
        let config = configs::idle("late");
        let late = cri.create(&pod, &node.pod("foreign"), &config).unwrap();
        let refused = cri.start(&late).unwrap_err();
        assert!(
            refused.message().contains("took longer than 10s"),
            "{refused}"
        );
        assert_eq!(cri.look(&late).reason, "StartError");
        hangs("nothing");
        assert_eq!(cri.shell(&id, "echo lives"), "lives\n");
        assert_eq!(exec_cgroups(&id), Vec::<PathBuf>::new());
        hangs("delete");
        cri.remove_pod(&pod);
    };
    if tools::has("runc", "differential", "a_runc_that_hangs_is_given_up") {
        let (real, hang) = (tools::tool("runc"), hang.display());
        let script = format!(
            "#!/bin/sh\nverb=$(cat {hang} 2>/dev/null)\n\
             for word; do [ \"$word\" != \"$verb\" ] || exec sleep 60; done\n\
             exec {} \"$@\"\n",
            real.display()
        );
        fs::write(&slow, script).unwrap();
        fs::set_permissions(&slow, Permissions::from_mode(0o755)).unwrap();
        with_program(&slow, test);
    }
}

/// The cgroups of commands in a container that are there.
fn exec_cgroups(container: &str) -> Vec<PathBuf> {
    let line = format!("/sys/fs/cgroup -type d -path *{container}*/crisp-exec-*");
    let words: Vec<&str> = line.split(' ').collect();
    let found = tools::run("find", &words);
    found.lines().map(PathBuf::from).collect()
}
