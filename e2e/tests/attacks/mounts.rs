//! Mounts whose targets lead elsewhere: over /proc (CVE-2019-16884, CVE-2019-19921), and through a
//! link that another container puts in their way (CVE-2021-30465, CVE-2024-45310, CVE-2025-47290).

use std::fs;

use crisp_e2e::configs;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("volumes over parts of /proc and /", over_proc),
    ("a volume's directory turns into a link", flipped),
    ("a volume is a link of another container", through_link),
];

fn over_proc(field: &mut Field<'_>) {
    let volume = field.volume("false-proc");
    fs::create_dir_all(field.node.path("false-proc/self/attr")).unwrap();
    let pod = field.pod("over-proc");
    let targets = [
        "/proc",
        "/proc/",
        "//proc/.",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/1/root",
        "/x/../proc",
        "/proc/../proc/self",
        "/",
        "/..",
        "",
    ];
    for (attempt, target) in (0..).zip(targets) {
        let mut config = configs::idle("main");
        config.metadata.as_mut().unwrap().attempt = attempt;
        config.mounts = vec![configs::mount(&volume, target)];
        let why = field.try_run(&pod, &config).expect_err(target);
        assert!(!why.is_empty(), "{target}");
    }
}

/// How often the target is mounted while it flips.
const ROUNDS: u32 = 20;

fn flipped(field: &mut Field<'_>) {
    let (volume, inner) = (field.volume("flips"), field.volume("inner"));
    let pod = field.pod("flips");
    // Elsewhere: where the bait is, as seen from the host, and the host's root itself.
    let line = format!(
        "cd /v; while :; do mkdir -p d; rm -rf d; ln -s {} d; rm -f d; ln -s / d; rm -f d; \
         ln -s ../../../../../../../.. d; rm -f d; done 2>/dev/null",
        field.bait()
    );
    let mut flipper = configs::shell("flipper", &line);
    flipper.mounts = vec![configs::mount(&volume, "/v")];
    field.run(&pod, &flipper);
    let before = mounts(field);
    for attempt in 0..ROUNDS {
        let mut config = configs::container("main", &["true"]);
        config.metadata.as_mut().unwrap().attempt = attempt;
        let target = ["/v/d/crisp-inner", "/v/d/a/b"][attempt as usize % 2];
        config.mounts = vec![
            configs::mount(&volume, "/v"),
            configs::mount(&inner, target),
        ];
        // Refused or held within the container's root: both will do.
        field.try_run(&pod, &config).ok();
    }
    assert_eq!(mounts(field), before);
    for name in ["crisp-inner", "a"] {
        assert!(
            !fs::exists(format!("/{name}")).unwrap(),
            "/{name} on the host"
        );
    }
}

/// The host's mounts that name the node's directory.
fn mounts(field: &Field<'_>) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = field.path("");
    table.lines().filter(|line| line.contains(&dir)).count()
}

fn through_link(field: &mut Field<'_>) {
    let volume = field.volume("links");
    let pod = field.pod("links");
    let line = format!("ln -s {} /v/bait; ln -s /proc/1/root /v/root", field.bait());
    let mut maker = configs::shell("maker", &line);
    maker.mounts = vec![configs::mount(&volume, "/v")];
    let maker = field.run(&pod, &maker);
    field.cri.wait_exit(&maker);
    for (attempt, target) in (0..).zip(["/v/bait", "/v/bait/new", "/v/root/new", "/v/root"]) {
        let mut config = configs::shell("main", "echo x >/v/bait/file; echo x >/v/root/x; true");
        config.metadata.as_mut().unwrap().attempt = attempt;
        let inner = field.path("links");
        config.mounts = vec![
            configs::mount(&volume, "/v"),
            configs::mount(&inner, target),
        ];
        if let Ok(container) = field.try_run(&pod, &config) {
            field.cri.wait_exit(&container);
        }
        field.watched.check(target);
    }
}
