//! A start in which both the shim and the daemon are killed: what has run is not started again.

use std::fs;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Node, configs, eventually, owners, trial};
use rustix::process::Pid;

use crate::client::is_lost;
use crate::fire;

/// Exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

/// Starts a container whose daemon dies before it has recorded the start, and kills the shim too.
/// Tells pod, container and init.
fn begin(node: &mut Node, name: &str) -> (String, String, Pid) {
    let pod = node.pod(name);
    let mut cri = node.cri();
    let sandbox = cri.run_pod(&pod);
    let line = "echo s >> /m/starts; exec sleep 1000";
    let mut config = configs::shell("main", line);
    config.mounts = vec![configs::mount(&pod.log_directory, "/m")];
    let id = cri.create(&sandbox, &pod, &config).unwrap();
    node.kill();
    assert!(node.restart_to_die("before record 1"));
    let status = node.cri().start(&id).unwrap_err();
    assert!(is_lost(&status), "{status:?}");
    eventually("the daemon has died", || node.has_died());
    eventually("the program has run", || starts(node, name) == 1);
    let shim = owners::shim(&id).unwrap();
    let children = format!("/proc/{shim}/task/{shim}/children");
    let children = fs::read_to_string(children).unwrap();
    let init = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    fire::kill(shim);
    eventually("the shim is gone", || owners::shim(&id).is_none());
    (sandbox, id, init)
}

fn starts(node: &Node, name: &str) -> usize {
    let file = node.path("logs").join(name).join("starts");
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

#[test]
fn privileged_what_has_run_is_not_started_again() {
    trial(|node| {
        let (sandbox, id, _) = begin(node, "alive");
        node.restart();
        let mut cri = node.cri();
        assert!(cri.start(&id).is_err(), "it runs");
        let status = cri.look(&id);
        assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
        assert_eq!(starts(node, "alive"), 1);
        cri.stop(&id, 0);
        cri.remove_pod(&sandbox);

        let (sandbox, id, init) = begin(node, "over");
        fire::kill(init);
        node.restart();
        let mut cri = node.cri();
        assert!(cri.start(&id).is_err(), "it has run");
        let status = cri.wait_exit(&id);
        assert_eq!(status.exit_code, UNKNOWN, "{status:?}");
        assert_eq!(starts(node, "over"), 1);
        cri.remove_pod(&sandbox);
    });
}
