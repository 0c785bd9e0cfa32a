//! The environment of a container's program.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::*;
use crate::raw_environment;

#[test]
fn later_variables_win_in_their_first_place() {
    let mut case = case();
    case.container.env = vec![
        ("A".to_owned(), "one".into()),
        ("A".to_owned(), "two".into()),
        ("PATH".to_owned(), "/bin".into()),
    ];
    let spec = case.build().unwrap();
    let found = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(
        found,
        ["PATH=/bin", "HOSTNAME=web", "HOME=/", "A=two", "B=image="]
    );
    assert_eq!(case.with(raw_environment), Vec::<Vec<u8>>::new());
    let value = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    case.container.env = vec![
        ("KEY".to_owned(), value(b"\xff1")),
        ("KEY".to_owned(), value(b"\xfe2")),
        ("B".to_owned(), value(b"\xff")),
        ("B".to_owned(), "text".into()),
    ];
    assert_eq!(case.with(raw_environment), [b"KEY=\xfe2".to_vec()]);
    let spec = case.build().unwrap();
    let found = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(found[4..], ["B=text", "KEY=\u{fffd}2"]);
}

#[test]
fn a_pod_without_a_name_has_the_hosts() {
    for (pod, expected) in [("web", "HOSTNAME=web"), ("", "HOSTNAME=node")] {
        let mut case = case();
        case.pod.hostname = pod.to_owned();
        let spec = case.build().unwrap();
        let found = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(found[1], expected);
    }
}
