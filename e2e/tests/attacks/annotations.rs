//! Annotations grant nothing (CVE-2023-6476, CVE-2024-3154): other runtimes take limits, devices,
//! properties of systemd and handlers from them.

use std::collections::BTreeMap;

use crisp_e2e::configs;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[("annotations are only shown", only_shown)];

const ASKING: [(&str, &str); 14] = [
    ("io.kubernetes.cri-o.Devices", "/dev/kmsg:/dev/kmsg:rwm"),
    ("io.kubernetes.cri-o.ShmSize", "1Gi"),
    ("io.kubernetes.cri-o.UnifiedCgroup.main", "memory.max=max"),
    ("io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw", "true"),
    ("io.kubernetes.cri-o.userns-mode", "auto"),
    ("io.kubernetes.cri-o.seccompNotifierAction", "stop"),
    ("io.kubernetes.cri.untrusted-workload", "true"),
    ("cpu-quota.crio.io", "disable"),
    ("org.systemd.property.MemoryMax", "uint64 1"),
    (
        "org.systemd.property.ExecStopPost",
        "[('/bin/touch', ['touch', '/x'], false)]",
    ),
    ("run.oci.handler", "krun"),
    ("run.oci.keep_original_groups", "1"),
    ("run.oci.hooks.stderr", "/x"),
    (
        "container.apparmor.security.beta.kubernetes.io/main",
        "unconfined",
    ),
];

fn only_shown(field: &mut Field<'_>) {
    const LOOK: &str = "grep -E '^(Cap|Seccomp|NoNewPrivs|Groups)' /proc/self/status; ls /dev; \
                        grep -o 'size=[0-9]*' /proc/mounts; cat /proc/self/uid_map; \
                        cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes \
                        cpu.max cpu/cpu.cfs_quota_us 2>/dev/null; true";
    let asking: BTreeMap<String, String> = ASKING
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut seen = Vec::new();
    for annotations in [BTreeMap::new(), asking] {
        let mut config = field.node.pod("asks");
        config.metadata.as_mut().unwrap().attempt = u32::from(!annotations.is_empty());
        config.annotations.clone_from(&annotations);
        let id = field.cri.run_pod(&config);
        let mut container = configs::idle("main");
        container.annotations.clone_from(&annotations);
        let resources = configs::resources(&mut container);
        resources.memory_limit_in_bytes = 64 << 20;
        resources.cpu_quota = 50_000;
        resources.cpu_period = 100_000;
        let container = field.cri.run(&id, &config, &container);
        let status = field.cri.look(&container);
        assert_eq!(status.annotations, annotations);
        seen.push(field.cri.shell(&container, LOOK));
    }
    assert!(seen[0].contains("67108864"), "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}
