//! Failures in a container's life, and how callers learn of them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::checker::remains;
use crisp_e2e::{Cri, Node, configs, eventually, in_pod, trial};
use tonic::Code;

/// Runs a test in a pod.
fn with_pod(test: impl FnOnce(&Node, &mut Cri, &str, &cri::PodSandboxConfig)) {
    in_pod("life", test);
}

fn nanoseconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}

#[test]
fn privileged_a_failed_start_is_a_status_too() {
    with_pod(|node, cri, id, pod| {
        let file = node.path("not-a-program");
        std::fs::write(&file, "plain text").unwrap();
        let mut inside = configs::container("inside", &["true"]);
        inside.working_dir = "/etc/passwd".to_owned();
        let cases = [
            (
                configs::container("missing", &["/no/such/program"]),
                "no such file",
            ),
            (
                configs::container("no-path", &["no-such-program"]),
                "not found",
            ),
            (
                configs::container("not-executable", &["/etc/passwd"]),
                "permission denied",
            ),
            (
                configs::container("directory", &["/etc"]),
                "permission denied",
            ),
            (inside, "not a directory"),
        ];
        for (config, cause) in cases {
            let name = &config.metadata.as_ref().unwrap().name;
            let begun = nanoseconds();
            let container = cri.create(id, pod, &config).unwrap();
            let error = cri.start(&container).unwrap_err();
            let text = error.message().to_lowercase();
            assert!(text.contains(cause), "{name}: {text}");
            let status = cri.look(&container);
            assert_eq!(
                status.state(),
                cri::ContainerState::ContainerExited,
                "{name}"
            );
            assert_eq!(
                (status.reason.as_str(), status.exit_code),
                ("StartError", 128),
                "{name}"
            );
            assert!(
                status.message.to_lowercase().contains(cause),
                "{name}: {}",
                status.message
            );
            assert!(status.created_at >= begun, "{name}");
            assert!(
                status.started_at >= status.created_at,
                "{name}: {}",
                status.started_at
            );
            assert!(status.finished_at >= status.started_at, "{name}");
            let again = cri.start(&container).unwrap_err();
            assert_eq!(again.code(), Code::FailedPrecondition, "{name}");
        }
    });
}

#[test]
fn privileged_what_cannot_be_made_is_refused_at_create_and_named() {
    with_pod(|node, cri, id, pod| {
        node.pull(&["user-unknown", "user-huge"]);
        let before = node.picture();
        for (config, named) in refused() {
            let error = cri.create(id, pod, &config).unwrap_err();
            assert!(error.message().contains(named), "{named}: {error:?}");
            let codes = [
                Code::InvalidArgument,
                Code::NotFound,
                Code::FailedPrecondition,
            ];
            assert!(codes.contains(&error.code()), "{named}: {error:?}");
            assert!(cri.container_ids().is_empty(), "{named}");
        }
        // A shim that was loaded for a container leaves when none is started for a while.
        eventually("nothing is left", || {
            let left = remains(&before, &node.picture());
            left.iter().all(|line| line.contains("descriptor"))
        });
        // The name is free all the same.
        cri.create(id, pod, &configs::container("refused", &["true"]))
            .unwrap();
        for name in ["user-unknown", "user-huge"] {
            cri.forget(name);
        }
    });
}

/// Containers that cannot be, each with what the answer has to name.
fn refused() -> Vec<(cri::ContainerConfig, &'static str)> {
    type Change = fn(&mut cri::ContainerConfig);
    let cases: [(&str, Change); 12] = [
        // A missing source is made, but nobody can make one there.
        ("/proc/no-such-source", |c| {
            c.mounts = vec![configs::mount("/proc/no-such-source", "/m")]
        }),
        ("nobody-knows", |c| {
            configs::security(c).run_as_username = "nobody-knows".into()
        }),
        ("nobody-knows", |c| of_image(c, "user-unknown")),
        ("4294967296", |c| of_image(c, "user-huge")),
        ("never-pulled", |c| of_image(c, "never-pulled")),
        ("/dev/no-such-device", |c| {
            c.devices = vec![device("/dev/no-such-device")]
        }),
        ("/etc/passwd", |c| c.devices = vec![device("/etc/passwd")]),
        ("NOT_A_CAPABILITY", |c| {
            configs::security(c).capabilities = Some(cri::Capability {
                add_capabilities: vec!["NOT_A_CAPABILITY".to_owned()],
                ..Default::default()
            });
        }),
        ("working_dir", |c| c.working_dir = "relative".into()),
        ("log_path", |c| c.log_path = "../outside.log".into()),
        ("metadata", |c| c.metadata = None),
        ("image", |c| c.image = None),
    ];
    let changed = cases.into_iter().map(|(named, change)| {
        let mut config = configs::container("refused", &["true"]);
        change(&mut config);
        (config, named)
    });
    changed.collect()
}

fn of_image(config: &mut cri::ContainerConfig, name: &str) {
    config.image.as_mut().unwrap().image = configs::image(name);
}

fn device(path: &str) -> cri::Device {
    cri::Device {
        host_path: path.to_owned(),
        container_path: path.to_owned(),
        permissions: "rw".to_owned(),
    }
}

#[test]
fn privileged_how_it_ended_is_told_as_callers_know_it() {
    with_pod(|_, cri, id, pod| {
        let mut cases = vec![
            ("true".to_owned(), 0, "Completed"),
            ("exit 42".to_owned(), 42, "Error"),
        ];
        for signal in [1, 2, 6, 9, 11, 15] {
            cases.push((format!("exec sh -c 'kill -{signal} $$'"), 0, "signal"));
        }
        for (number, (line, code, reason)) in cases.iter().enumerate() {
            // Process 1 of a PID namespace ignores what it has no handler for; its child does not.
            let line = match *reason {
                "signal" => format!("({line}); exit $?"),
                _ => line.clone(),
            };
            let container = cri.run(id, pod, &configs::shell(&format!("c{number}"), &line));
            let status = cri.wait_exit(&container);
            if *reason == "signal" {
                assert!(status.exit_code > 128, "{line}: {status:?}");
                assert_eq!(status.reason, "Error", "{line}");
            } else {
                assert_eq!(
                    (status.exit_code, status.reason.as_str()),
                    (*code, *reason),
                    "{line}"
                );
            }
        }
        // From outside, process 1 itself.
        let container = cri.run(id, pod, &configs::container("killed", &["sleep", "1000"]));
        cri.stop(&container, 0);
        let status = cri.look(&container);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
        let container = cri.run(id, pod, &configs::idle("terminated"));
        cri.wait_for_trap(&container);
        cri.stop(&container, 30);
        assert_eq!(cri.look(&container).exit_code, 0);
    });
}

#[test]
fn privileged_out_of_memory_is_told() {
    with_pod(|_, cri, id, pod| {
        let line = "a=x; while :; do a=$a$a; done";
        let mut config = configs::shell("greedy", line);
        configs::resources(&mut config).memory_limit_in_bytes = 16 << 20;
        configs::resources(&mut config).memory_swap_limit_in_bytes = 16 << 20;
        let container = cri.run(id, pod, &config);
        let status = cri.wait_exit(&container);
        assert_eq!(
            (status.reason.as_str(), status.exit_code),
            ("OOMKilled", 137),
            "{status:?}"
        );
    });
}

#[test]
fn privileged_stops_are_idempotent_and_a_shorter_grace_wins() {
    with_pod(|node, cri, id, pod| {
        let stubborn = configs::shell(
            "stubborn",
            "trap 'echo told' TERM; echo up; while :; do sleep 0.05; done",
        );
        let container = cri.run(id, pod, &stubborn);
        let log = Path::new(&pod.log_directory).join("stubborn.log");
        let said = |word: &str| std::fs::read_to_string(&log).is_ok_and(|text| text.contains(word));
        eventually("process 1 has set its trap", || said("up"));
        std::thread::scope(|scope| {
            let long = scope.spawn(|| node.cri().stop(&container, 1000));
            eventually("the long stop has begun", || said("told"));
            let begun = std::time::Instant::now();
            cri.stop(&container, 1);
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}",
                begun.elapsed()
            );
            long.join().unwrap();
        });
        assert_eq!(cri.look(&container).exit_code, 137);
        cri.stop(&container, 0);
        cri.stop(&container, 10);
        // Removal of a running one kills it first; removal of what is gone is a success.
        let running = cri.run(id, pod, &configs::idle("running"));
        for _ in 0..2 {
            let container_id = running.clone();
            cri.remove_container(cri::RemoveContainerRequest { container_id })
                .unwrap();
        }
        let gone = cri.container_status(cri::ContainerStatusRequest {
            container_id: running,
            verbose: false,
        });
        assert_eq!(gone.unwrap_err().code(), Code::NotFound);
    });
}

/// Image, the signal that is asked for, the one that is told, and the exit code of its trap.
const SIGNALS: [(&str, cri::Signal, cri::Signal, i32); 7] = {
    use cri::Signal as S;
    [
        ("busybox", S::RuntimeDefault, S::Sigterm, 15),
        ("busybox", S::Sigint, S::Sigint, 2),
        ("busybox", S::Sigrtminplus3, S::Sigrtminplus3, 37),
        ("stop-usr1", S::RuntimeDefault, S::Sigusr1, 10),
        ("stop-usr1", S::Sighup, S::Sighup, 1),
        ("stop-rtmin", S::RuntimeDefault, S::Sigrtminplus3, 37),
        ("stop-none", S::Sigusr1, S::Sigusr1, 10),
    ]
};

#[test]
fn privileged_a_stop_sends_the_signal_that_was_asked_for() {
    with_pod(|node, cri, id, pod| {
        let images = ["stop-usr1", "stop-rtmin", "stop-none"];
        node.pull(&images);
        let traps = "for n in 1 2 10 15 37; do trap \"exit $n\" $n; done; echo up; \
                     while :; do sleep 1000 & wait; done";
        for (number, (image, asked, expected, code)) in SIGNALS.into_iter().enumerate() {
            let name = format!("c{number}");
            let mut config = configs::shell(&name, traps);
            config.image.as_mut().unwrap().image = configs::image(image);
            config.stop_signal = asked.into();
            let container = cri.run(id, pod, &config);
            let log = Path::new(&pod.log_directory).join(format!("{name}.log"));
            eventually("the traps are set", || {
                std::fs::read_to_string(&log).is_ok_and(|text| text.contains("up"))
            });
            assert_eq!(cri.look(&container).stop_signal(), expected, "{name}");
            cri.stop(&container, 30);
            let status = cri.look(&container);
            assert_eq!(status.exit_code, code, "{name}: {status:?}");
            assert_eq!(status.stop_signal(), expected, "{name} is over");
        }
        let mut config = configs::idle("none");
        config.image.as_mut().unwrap().image = configs::image("stop-none");
        let refused = cri.create(id, pod, &config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("SIGNONE"), "{refused}");
        images.iter().for_each(|name| cri.forget(name));
    });
}

#[test]
fn privileged_a_stopped_pod_takes_no_more() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("life");
        let id = cri.run_pod(&pod);
        let created = cri.create(&id, &pod, &configs::idle("created")).unwrap();
        let running = cri.run(&id, &pod, &configs::idle("running"));
        for _ in 0..2 {
            let pod_sandbox_id = id.clone();
            cri.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })
                .unwrap();
        }
        assert_eq!(
            cri.look(&running).state(),
            cri::ContainerState::ContainerExited
        );
        let error = cri.create(&id, &pod, &configs::idle("late")).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        assert!(cri.start(&created).is_err());
        assert_eq!(cri.pod(&id).state(), cri::PodSandboxState::SandboxNotready);
        for _ in 0..2 {
            cri.remove_pod(&id);
        }
        assert!(cri.container_ids().is_empty());
    });
}

#[test]
fn privileged_a_repeated_create_finds_the_first() {
    with_pod(|_, cri, id, pod| {
        let config = configs::idle("main");
        let first = cri.create(id, pod, &config).unwrap();
        assert_eq!(cri.create(id, pod, &config).unwrap(), first);
        let mut next = config.clone();
        next.metadata.as_mut().unwrap().attempt = 1;
        let second = cri.create(id, pod, &next).unwrap();
        assert_ne!(first, second);
        let (first, second) = (cri.look(&first), cri.look(&second));
        assert!(second.created_at > first.created_at);
        assert_eq!(second.metadata.unwrap().attempt, 1);
    });
}

#[test]
fn privileged_a_container_is_started_once() {
    in_pod("once", |_, cri, pod, config| {
        let id = cri.run(pod, config, &configs::idle("main"));
        let started = cri.look(&id).started_at;
        let refused = cri.start(&id).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(
            refused.message().contains("is running already"),
            "{refused}"
        );
        assert_eq!(cri.look(&id).started_at, started);
        cri.stop(&id, 0);
        let refused = cri.start(&id).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("has ended"), "{refused}");
    });
}

fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    targets.any(|target| Path::new(target) == dir)
}

#[test]
fn privileged_pins_of_namespaces_are_mounted_while_pods_have_some() {
    trial(|node| {
        let pins = node.state().join("pins");
        let mut cri = node.cri();
        let pod = node.pod("over");
        let id = cri.run_pod(&pod);
        assert!(node.terminate().success());
        assert!(is_mounted(&pins), "the pod has lost its namespaces");
        node.restart();
        let request = cri::StopPodSandboxRequest {
            pod_sandbox_id: id.clone(),
        };
        cri.stop_pod_sandbox(request).unwrap();
        assert!(node.terminate().success());
        assert!(!is_mounted(&pins), "no pod has pins any more");
        let mut unusable = node.command();
        unusable.env("CRISPD_DIES", "nowhere");
        let output = node.net.run(|| unusable.output().unwrap());
        assert!(!output.status.success(), "{output:?}");
        assert!(!is_mounted(&pins), "the start came to nothing");
        node.restart();
        assert!(is_mounted(&pins));
        assert_eq!(cri.pod(&id).state(), cri::PodSandboxState::SandboxNotready);
        cri.remove_pod(&id);
    });
}
