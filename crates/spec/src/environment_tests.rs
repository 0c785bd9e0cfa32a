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

#[test]
fn a_variable_of_an_image_that_no_program_can_have_is_refused() {
    for wrong in ["KEY=a\0b", "KEY\0=a"] {
        let mut case = case();
        case.image.env = vec!["A=b".to_owned(), wrong.to_owned()];
        let error = case.build().unwrap_err().to_string();
        assert!(error.contains("image ENV: \"KEY\""), "{error}");
    }
}

/// The document of an image can hold as many: compared each with each, they would take minutes.
#[test]
fn many_variables_take_no_longer_than_their_number() {
    let mut case = case();
    let many = 300_000;
    case.image.env = (0..many).map(|n| format!("V{n}={n}")).collect();
    let begun = std::time::Instant::now();
    let spec = case.build().unwrap();
    let took = begun.elapsed();
    assert!(took.as_secs() < 10, "{took:?}");
    let found = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(found.len(), many + 3);
}
