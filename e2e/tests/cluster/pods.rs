//! Pods of each kind: one on every node, to an end, by the clock, without memory, with users of their own,
//! with an image as volume, with limits that change, with volumes that the kubelet fills.

use serde_json::Value;

use crisp_e2e::cluster::Cluster;

/// Applies all of them at once, so that they start beside each other.
pub(crate) fn begin(cluster: &Cluster) {
    for node in ["node-1", "node-2"] {
        cluster.crisp(&format!("exec {node} mkdir -p /var/lib/volume"));
    }
    for file in ["pods.yaml", "volumes.yaml"] {
        cluster.apply(file);
    }
}

pub(crate) fn do_what_they_are_for(cluster: &Cluster) {
    cluster.rolled_out("daemonset/probe");
    let all = cluster.get(&["pods", "-l", "app=probe"]);
    let mut nodes: Vec<&str> = each(&all)
        .filter_map(|pod| pod["spec"]["nodeName"].as_str())
        .collect();
    nodes.sort_unstable();
    assert_eq!(nodes, crate::web::NODES);
    cluster.waited("condition=Complete", "job/job");
    let logs = cluster.kubectl(&["logs", "-l", "job-name=job", "--tail=-1"]);
    assert_eq!(logs, "done\n".repeat(6));
    runs_out_of_memory(cluster);
    has_users_of_its_own(cluster);
    shows_an_image(cluster);
    is_resized(cluster);
    has_volumes(cluster);
    keeps_its_claims(cluster);
}

/// The clock strikes within a minute, which is why nobody waits for it before the end.
pub(crate) fn the_clock_struck(cluster: &Cluster) {
    cluster.until("the clock has struck", |cluster| {
        !cluster.get(&["cronjob", "clock"])["status"]["lastSuccessfulTime"].is_null()
    });
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn runs_out_of_memory(cluster: &Cluster) {
    cluster.waited("jsonpath={.status.phase}=Failed", "pod/oom");
    let ended = cluster.get(&["pod", "oom"])["status"]["containerStatuses"][0].take();
    let ended = &ended["state"]["terminated"];
    assert_eq!(ended["reason"], "OOMKilled", "{ended}");
    assert_eq!(ended["exitCode"], 137);
}

fn has_users_of_its_own(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/userns");
    let map = cluster.sh("userns", "cat /proc/self/uid_map");
    let words: Vec<&str> = map.split_whitespace().collect();
    assert!(
        words[0] == "0" && words[1] != "0" && words[2] == "65536",
        "{map}"
    );
}

fn shows_an_image(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/image");
    let said = cluster.sh(
        "image",
        "/other/bin/busybox echo runs; touch /other/x 2>/dev/null || echo read-only",
    );
    assert_eq!(said, "runs\nread-only\n");
}

fn is_resized(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/sized");
    let wish = r#"{"spec":{"containers":[{"name":"c","resources":
        {"requests":{"cpu":"200m","memory":"24Mi"},"limits":{"cpu":"200m","memory":"24Mi"}}}]}}"#;
    cluster.kubectl(&[
        "patch",
        "pod",
        "sized",
        "--subresource",
        "resize",
        "-p",
        wish,
    ]);
    cluster.until("the pod has its new size", |cluster| {
        let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
        let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
        let said = cluster.sh("sized", &format!("{{ {quota}; {memory}; }} | cut -d ' ' -f 1"));
        said == format!("20000\n{}\n", 24 << 20)
    });
    let status = cluster.get(&["pod", "sized"])["status"]["containerStatuses"][0].take();
    assert_eq!(status["restartCount"], 0);
}

/// A user who is not root reads what belongs to its group, and writes to what is its own.
fn has_volumes(cluster: &Cluster) {
    cluster.waited("condition=Ready", "pod/volumes");
    let said = cluster.sh(
        "volumes",
        "cat /conf/greeting; echo; cat /one; echo; cat /secret/word; echo; cat /all/greeting /all/word; \
         echo; cat /labels/colour; echo; echo $WORD $NAME $(id -u) $(id -g); \
         test -s /all/token && echo token; \
         for place in data memory; do touch /$place/x && stat -c '%u %g' /$place/x; done; \
         touch /x 2>/dev/null || echo read-only; touch /conf/x 2>/dev/null || echo read-only; \
         head -c 2000000 /dev/zero 2>/dev/null >/memory/full || echo full",
    );
    let expected = "hello\nhello\nsesame\nhellosesame\ngreen\nsesame volumes 1000 1000\ntoken\n\
                    1000 2000\n1000 2000\nread-only\nread-only\nfull\n";
    assert_eq!(said, expected);
}

/// A pod of a set that is deleted comes again to its volume, where it finds what it wrote before.
fn keeps_its_claims(cluster: &Cluster) {
    cluster.rolled_out("statefulset/set");
    let node = |cluster: &Cluster| cluster.get(&["pod", "set-0"])["spec"]["nodeName"].take();
    let before = node(cluster);
    cluster.kubectl(&["delete", "pod", "set-0"]);
    // The set's status may be of the time before.
    cluster.waited("create", "pod/set-0");
    cluster.waited("condition=Ready", "pod/set-0");
    assert_eq!(node(cluster), before);
    assert_eq!(cluster.sh("set-0", "cat /data/lives"), "set-0\nset-0\n");
    assert_eq!(cluster.sh("set-1", "cat /data/lives"), "set-1\n");
    assert_eq!(cluster.sh("set-1", "stat -c %g /data"), "2000\n");
}
