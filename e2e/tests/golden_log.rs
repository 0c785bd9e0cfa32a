//! The log of one pod's life, line by line: one INFO line a transition and one WARN line a failed
//! call, none twice, and each with the ids and names of its pod and container.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use crisp_e2e::{configs, trial};

/// Ids, addresses, pids and times left out.
const GOLDEN: &str = "\
INFO crisp::pod: pod ready ips=ADDRESSES pod=e2e/golden pod_id=POD
INFO crisp::container: container created image=registry.test/busybox:1 container=main container_id=MAIN pod=e2e/golden pod_id=POD
INFO crisp::container: container started pid=PID warnings=\"\" container=main container_id=MAIN pod=e2e/golden pod_id=POD
INFO crisp::container: container exited code=3 reason=Error why=\"\" container=main container_id=MAIN pod=e2e/golden pod_id=POD
INFO crisp::container: container created image=registry.test/busybox:1 container=bad container_id=BAD pod=e2e/golden pod_id=POD
INFO crisp::container: container exited code=128 reason=StartError why=\"start: exec: \\\"/absent\\\": stat /absent: no such file or directory\" container=bad container_id=BAD pod=e2e/golden pod_id=POD
WARN crisp::door: call failed code=Internal why=\"start: exec: \\\"/absent\\\": stat /absent: no such file or directory\" took=TOOK rpc=StartContainer pod=e2e/golden pod_id=POD container=bad container_id=BAD
INFO crisp::container: container removed container=main container_id=MAIN pod=e2e/golden pod_id=POD
INFO crisp::pod: pod stopping pod=e2e/golden pod_id=POD
INFO crisp::pod: pod stopped pod=e2e/golden pod_id=POD
INFO crisp::container: container removed container=bad container_id=BAD pod=e2e/golden pod_id=POD
INFO crisp::pod: pod removed pod=e2e/golden pod_id=POD
";

/// The value of `key=` or `key="…"` becomes a word.
fn blot(line: &str, key: &str, word: &str) -> String {
    let Some((before, after)) = line.split_once(&format!(" {key}=")) else {
        return line.to_owned();
    };
    let (quote, rest) = match after.strip_prefix('"') {
        Some(inside) => ("\"", inside.split_once('"').unwrap().1),
        None => ("", after.find(' ').map_or("", |at| &after[at..])),
    };
    format!("{before} {key}={quote}{word}{quote}{rest}")
}

#[test]
fn privileged_one_pods_life_has_this_log() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("golden");
        let id = cri.run_pod(&pod);
        let main = cri.run(&id, &pod, &configs::shell("main", "exit 3"));
        cri.wait_exit(&main);
        let bad = cri
            .create(&id, &pod, &configs::container("bad", &["/absent"]))
            .unwrap();
        cri.start(&bad).unwrap_err();
        let container_id = main.clone();
        cri.remove_container(crisp_api::runtime::v1::RemoveContainerRequest { container_id })
            .unwrap();
        cri.remove_pod(&id);
        let log = node.log();
        let begin = log.rfind(": pod ready ").unwrap();
        let begin = log[..begin].rfind('\n').unwrap() + 1;
        let lines = log[begin..]
            .lines()
            .filter(|line| !line.contains(" DEBUG "));
        let lines = lines.map(|line| {
            let (_, line) = line.split_once(' ').unwrap();
            let line = line.trim_start().replace(&id, "POD").replace(&main, "MAIN");
            let line = line.replace(&bad, "BAD");
            let line = blot(&blot(&line, "ips", "ADDRESSES"), "pid", "PID");
            blot(&line, "took", "TOOK") + "\n"
        });
        let log: String = lines.collect();
        assert!(log == GOLDEN, "--- expected\n{GOLDEN}\n--- logged\n{log}");
    });
}
