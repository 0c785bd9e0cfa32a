//! Writes to procfs, sysfs and cgroups of the host (CVE-2023-25809, CVE-2025-52881), and what the
//! init of a pod's shared PID namespace gives away.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("root of a container writes to the kernel's files", writes),
    ("root of a container mounts them anew", mounts_anew),
    ("process one of a pod gives nothing away", holder),
];

/// As a kubelet asks for it.
fn confined(name: &str) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    let security = configs::security(&mut config);
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    security.masked_paths = paths(&["/proc/kcore", "/proc/keys", "/proc/timer_list"]);
    security.readonly_paths = paths(&[
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]);
    config
}

fn writes(field: &mut Field<'_>) {
    let pod = field.pod("writes");
    let container = field.run(&pod, &confined("main"));
    // Written back as it is, so that a success harms nobody; `h` only prints.
    let line = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
                /proc/sys/vm/panic_on_oom /proc/sys/fs/binfmt_misc/status \
                /sys/kernel/uevent_helper /sys/kernel/mm/transparent_hugepage/enabled \
                /sys/power/state /sys/module/kernel/parameters/panic; do \
                  [ ! -e $f ] || { v=$(cat $f); echo \"$v\" >$f && echo wrote $f; }; done; \
                echo h >/proc/sysrq-trigger && echo wrote sysrq; \
                for d in $(find /sys/fs/cgroup -maxdepth 2 -type d); do \
                  mkdir $d/crisp-new && echo made $d/crisp-new; done; \
                for f in release_agent notify_on_release cgroup.procs cgroup.subtree_control; do \
                  for g in $(find /sys/fs/cgroup -maxdepth 2 -name $f); do \
                    echo 0 >$g && echo wrote $g; done; done; true";
    let text = field.cri.shell(&container, line);
    assert_eq!(text, "");
}

fn mounts_anew(field: &mut Field<'_>) {
    let pod = field.pod("anew");
    let container = field.run(&pod, &confined("main"));
    let line = "for c in 'mount -o remount,rw /proc/sys' 'umount /proc/sys' \
                'mount -o remount,rw /sys' 'umount /proc/kcore' 'mount -t proc p /tmp' \
                'mount -t sysfs s /tmp' 'mount -t cgroup2 c /tmp' 'mount -t tmpfs t /proc' \
                'mount --bind /tmp /proc/self/attr' 'umount -l /' 'unshare -m true' \
                'chroot /proc/1/root mount -t tmpfs t /tmp'; do \
                  $c && echo did $c; done 2>/dev/null; true";
    let text = field.cri.shell(&container, line);
    assert_eq!(text, "");
}

/// Process one is ours: its root is empty and cannot be written, and it holds no descriptor.
fn holder(field: &mut Field<'_>) {
    let mut config = field.node.pod("holder");
    configs::namespaces(&mut config).pid = cri::NamespaceMode::Pod.into();
    let id = field.cri.run_pod(&config);
    let mut container = confined("main");
    let security = configs::security(&mut container);
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    security.capabilities = Some(cri::Capability {
        add_capabilities: vec!["SYS_PTRACE".to_owned(), "DAC_OVERRIDE".to_owned()],
        ..Default::default()
    });
    let container = field.cri.run(&id, &config, &container);
    assert_eq!(
        field.cri.shell(&container, "cat /proc/1/comm").trim(),
        "crisp-holder"
    );
    let line = "ls -A /proc/1/root/ 2>/dev/null; \
                touch /proc/1/root/x 2>/dev/null && echo wrote; \
                for f in /proc/1/fd/*; do l=$(readlink $f) || continue; \
                  echo $f $l; done; \
                for f in /proc/1/exe /proc/1/mem; do \
                  (echo x >$f) 2>/dev/null && echo wrote $f; done; \
                ls -A /proc/1/cwd/ 2>/dev/null; true";
    let text = field.cri.shell(&container, line);
    assert_eq!(text, "");
}
