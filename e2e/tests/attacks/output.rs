//! Output of many commands at once (CVE-2022-1708, CVE-2022-31030): each has its bound, and all have
//! one together. And the environment of containers that are made at once (CVE-2021-21334).

use std::thread;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, configs};

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("many commands print without end", many),
    ("children in the background keep the pipe", background),
    ("containers that are made at once", environments),
];

const CALLERS: usize = 10;

fn many(field: &mut Field<'_>) {
    let pod = field.pod("prints");
    let container = field.run(&pod, &configs::idle("main"));
    let (socket, before) = (field.node.socket(), field.node.peak_memory());
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut cri = Cri::at(&socket);
                let line = "head -c 40000000 /dev/zero; exit 5";
                let reply = cri.execute(&container, &["sh", "-c", line]);
                // A client that is slow may be refused; an answer is exact.
                if let Ok(reply) = reply {
                    assert_eq!(reply.exit_code, 5);
                    assert!(reply.stdout.len() <= 16 << 20);
                }
            });
        }
    });
    let grown = field.node.peak_memory().saturating_sub(before);
    assert!(grown < 256 << 10, "the daemon grew by {grown} KiB");
    assert_eq!(field.cri.shell(&container, "echo there"), "there\n");
}

/// CVE-2026-53495: what waits for the pipe's end waits for ever.
fn background(field: &mut Field<'_>) {
    let pod = field.pod("background");
    let container = field.run(&pod, &configs::idle("main"));
    let descriptors = || {
        let dir = format!("/proc/{}/fd", field.node.pid());
        std::fs::read_dir(dir).unwrap().count()
    };
    let (socket, before) = (field.node.socket(), descriptors());
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut cri = Cri::at(&socket);
                let reply = cri.execute(&container, &["sh", "-c", "sleep 1000 & echo out"]);
                assert_eq!(reply.unwrap().stdout, b"out\n");
            });
        }
    });
    crisp_e2e::eventually("the pipes are closed", || descriptors() <= before + 2);
}

fn environments(field: &mut Field<'_>) {
    let pod = field.pod("environments");
    let socket = field.node.socket();
    thread::scope(|scope| {
        for caller in 0..4 {
            let (socket, pod) = (&socket, &pod);
            scope.spawn(move || {
                let mut cri = Cri::at(socket);
                for round in 0..3 {
                    let name = format!("c{caller}-{round}");
                    let mut config = configs::idle(&name);
                    config.envs = vec![cri::KeyValue {
                        key: format!("OWN_{caller}_{round}"),
                        value: name.clone().into(),
                    }];
                    let container = cri.run(&pod.id, &pod.config, &config);
                    let seen = cri.shell(&container, "env | grep ^OWN");
                    assert_eq!(seen, format!("OWN_{caller}_{round}={name}\n"));
                }
            });
        }
    });
}
