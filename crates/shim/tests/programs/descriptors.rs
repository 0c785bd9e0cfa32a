//! A shim whose descriptors have run out.

use std::fs;

use crisp_shim_api::{FromShim, MAX_FRAME, Reply, Request, ToShim};
use crisp_sys::process::Stat;
use crisp_sys::socket::Conn;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::lab::{Lab, until};

/// A connection that cannot be taken waits, and costs nothing meanwhile.
#[test]
fn privileged_a_connection_waits_for_descriptors() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let pid = i32::try_from(lab.shim.as_ref().unwrap().id()).unwrap();
    let limit = |current: Option<u64>| {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(Pid::from_raw(pid), Resource::Nofile, limit).unwrap()
    };
    let is_open = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    let first_free = (0..).find(|number| !is_open(number));
    let before = limit(first_free);
    let conn = Conn::connect(&lab.launch.socket).unwrap();
    let sleeps = || Stat::read(pid).unwrap().state == b'S';
    until("it rests", || (0..50).all(|_| sleeps()));
    limit(before.current);
    let (seq, request) = (1, Request::State);
    conn.send(&ToShim { seq, request }.encode().unwrap(), &[])
        .unwrap();
    let (bytes, _) = conn.recv(MAX_FRAME).unwrap().unwrap();
    let answer = FromShim::decode(&bytes).unwrap();
    assert!(
        matches!(
            answer,
            FromShim::Reply {
                reply: Reply::State(_),
                ..
            }
        ),
        "{answer:?}"
    );
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}
