//! A pod takes its neighbour's traffic (CVE-2020-10749 and its kind): whoever may send raw frames
//! can say that a neighbour's address is its own.

use crisp_e2e::configs;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[("a pod says that it is its neighbour", forged_arp)];

fn forged_arp(field: &mut Field<'_>) {
    let mut evil = field.node.pod("evil");
    let linux = evil.linux.get_or_insert_default();
    // With this the program may bind to the neighbour's address; a program that makes frames
    // itself needs nothing.
    let sysctl = ("net.ipv4.ip_nonlocal_bind".to_owned(), "1".to_owned());
    linux.sysctls.extend([sysctl]);
    let configs = [evil, field.node.pod("victim"), field.node.pod("neighbour")];
    let [evil, victim, neighbour] = configs.map(|config| {
        let pod = field.cri.run_pod(&config);
        let container = field.cri.run(&pod, &config, &configs::idle("main"));
        (field.cri.address(&pod), container)
    });
    let known = |field: &mut Field<'_>| {
        let look = format!(
            "ping -c 1 -W 5 {} >&2; grep '^{} ' /proc/net/arp",
            neighbour.0, neighbour.0
        );
        field.cri.shell(&victim.1, &look)
    };
    let before = known(field);
    // Three that nobody asked for, then an honest question, whose answer comes after they did.
    let forge = format!("arping -U -c 3 -w 9 -s {0} {0} >&2", neighbour.0);
    field.cri.shell(&evil.1, &forge);
    let ask = format!("arping -f -c 9 -w 9 {} >&2", victim.0);
    field.cri.shell(&evil.1, &ask);
    assert_eq!(known(field), before);
}
