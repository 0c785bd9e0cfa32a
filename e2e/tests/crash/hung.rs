//! The daemon dies when it is about to end a shim that hangs, and right after: the container ends
//! all the same.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Node, configs, eventually, owners, trial};
use rustix::process::{Signal, kill_process};

use crate::client::is_lost;

/// Exit codes of a container that was killed: its shim says nothing any more, and a kernel that
/// does not tell them to others may have told nobody.
const KILLED: [i32; 2] = [137, 255];

/// A stop at which the daemon dies. The shim hangs only once this daemon knows it: one that is
/// silent from the start is ended another way.
fn stop_until_death(node: &mut Node, side: &str, id: &str) {
    node.kill();
    assert!(node.restart_to_die(&format!("{side} end-silent-shim 1")));
    let mut cri = node.cri();
    assert_eq!(cri.shell(id, "echo well"), "well\n");
    kill_process(owners::shim(id).unwrap(), Signal::STOP).unwrap();
    let stop = cri::StopContainerRequest {
        container_id: id.to_owned(),
        timeout: 0,
    };
    let status = cri.stop_container(stop).unwrap_err();
    assert!(is_lost(&status), "{side}: {status:?}");
    eventually("the daemon has died", || node.has_died());
}

#[test]
fn privileged_a_shim_that_hangs_is_ended_whenever_the_daemon_dies() {
    trial(|node| {
        for side in ["before", "after"] {
            let mut cri = node.cri();
            let pod = node.pod(side);
            let sandbox = cri.run_pod(&pod);
            let id = cri.run(&sandbox, &pod, &configs::idle("main"));
            stop_until_death(node, side, &id);
            node.restart();
            let mut cri = node.cri();
            cri.stop(&id, 0);
            let status = cri.wait_exit(&id);
            assert!(KILLED.contains(&status.exit_code), "{side}: {status:?}");
            eventually("its shim is gone", || owners::shim(&id).is_none());
            cri.remove_pod(&sandbox);
        }
    });
}
