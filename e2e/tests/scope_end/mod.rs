//! The scope of a container that has ended, when the daemon dies right there.

use crisp_e2e::{configs, trial};

use super::{is_here, nothing_is_left, sliced, units, wait_for};

/// A daemon that dies between the end of a container and that of its scope: the next one ends it,
/// though the container stays listed.
#[test]
fn privileged_systemd_scopes_end_with_the_next_daemon() {
    if !is_here() {
        return;
    }
    trial(|node| {
        for side in ["before", "after"] {
            node.kill();
            assert!(node.restart_to_die(&format!("{side} end-scope 1")));
            let mut cri = node.cri();
            let pod = sliced(node, side);
            let id = cri.run_pod(&pod);
            let container = cri.run(&id, &pod, &configs::shell("main", "sleep 1; exit 3"));
            wait_for("the daemon has died", || node.has_died());
            node.restart();
            let mut cri = node.cri();
            assert_eq!(cri.wait_exit(&container).exit_code, 3);
            let unit = format!("crisp-{container}.scope");
            wait_for("an ended container has no scope", || {
                !units().iter().any(|line| line.starts_with(&unit))
            });
            cri.remove_pod(&id);
        }
    });
    nothing_is_left();
}
