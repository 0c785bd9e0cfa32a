//! Tests of spec files: each form that vendors write, and each fault.

use super::*;

const WHOLE: &str = r#"{
    "cdiVersion": "0.7.0",
    "kind": "vendor.com/gpu",
    "annotations": {"a": "b"},
    "devices": [{
        "name": "0",
        "annotations": null,
        "containerEdits": {
            "env": ["GPU=0"],
            "deviceNodes": [{
                "path": "/dev/gpu0", "hostPath": "/dev/card0", "type": "c", "major": 195,
                "minor": 0, "fileMode": 432, "permissions": "rw", "uid": 1, "gid": 2
            }],
            "mounts": [{
                "hostPath": "/lib/gpu", "containerPath": "/usr/lib/gpu", "options": ["ro", "bind"]
            }],
            "hooks": [{
                "hookName": "createContainer", "path": "/bin/hook", "args": ["hook"],
                "env": ["A=b"], "timeout": 5
            }],
            "intelRdt": {"closID": "x"},
            "additionalGids": [5]
        }
    }],
    "containerEdits": {"additionalGIDs": [0, 7], "netDevices": [{"name": "eth1"}]}
}"#;

const YAML: &str = "---
cdiVersion: 0.5.0
kind: vendor.com/gpu
containerEdits:
devices:
# The first one.
- name: \"0\"
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      fileMode: 0660
      permissions: rw
    env: [GPU=0]
    hooks: null
";

#[test]
fn json_and_yaml_say_the_same() {
    let whole = Document::parse(WHOLE.as_bytes()).unwrap();
    let edits = &whole.devices[0].container_edits;
    assert_eq!(edits.device_nodes[0].file_mode, Some(0o660));
    assert_eq!(edits.hooks[0].timeout, Some(5));
    assert!(edits.intel_rdt.is_some());
    assert_eq!(whole.container_edits.additional_gids, [0, 7]);
    let yaml = Document::parse(YAML.as_bytes()).unwrap();
    let node = &yaml.devices[0].container_edits.device_nodes[0];
    assert_eq!(
        node.file_mode,
        Some(0o660),
        "octal, as Go's readers have it"
    );
    assert_eq!(yaml.devices[0].container_edits.env, ["GPU=0"]);
    assert_eq!(yaml.container_edits, Edits::default());
}

/// A file with something else in it is refused, and what is told says this.
#[track_caller]
fn check_fault((good, bad): (&str, &str), told: &str) {
    let text = WHOLE.replacen(good, bad, 1);
    assert_ne!(text, WHOLE, "{good}");
    let why = Document::parse(text.as_bytes()).unwrap_err();
    assert!(why.contains(told), "{bad}: {why}");
}

#[test]
fn every_fault_is_told() {
    for (good, bad, told) in [
        ("\"0.7.0\"", "\"2.0.0\"", "2.0.0"),
        ("vendor.com/gpu", "gpu", "gpu"),
        ("\"name\": \"0\"", "\"name\": \"-\"", "\"-\""),
        ("\"GPU=0\"", "\"=0\"", "=0"),
        ("\"GPU=0\"", "\"G\\u0000=0\"", "environment"),
        ("\"/dev/gpu0\"", "\"dev/gpu0\"", "dev/gpu0"),
        ("\"/dev/gpu0\"", "\"/dev/../gpu0\"", ".."),
        ("\"type\": \"c\"", "\"type\": \"x\"", "x"),
        ("195", "-1", "negative"),
        ("\"rw\"", "\"rx\"", "rx"),
        ("\"/lib/gpu\"", "\"\"", "hostPath"),
        ("\"/usr/lib/gpu\"", "\"/\"", "containerPath"),
        ("createContainer", "createDevice", "createDevice"),
        ("\"/bin/hook\"", "\"hook\"", "hook"),
        ("\"timeout\": 5", "\"timeout\": 0", "timeout"),
        ("\"permissions\"", "\"permission\"", "permission"),
        (
            "\"devices\": [{",
            "\"devices\": [{\"name\": \"0\"}, {",
            "twice",
        ),
    ] {
        check_fault((good, bad), told);
    }
    for text in [
        "",
        "{}",
        "[]",
        "a: b",
        "\u{0}",
        "{\"devices\": []}",
        "- - - -",
    ] {
        assert!(Document::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    let empty = YAML.split("# The first one.").next().unwrap();
    assert!(Document::parse(empty.as_bytes()).is_err(), "no devices");
}

/// `0` stands for the byte.
#[test]
fn a_text_that_the_kernel_would_cut_is_told() {
    for (good, bad, told) in [
        ("/lib/gpu", "/l0", "hostPath of the mount at /usr/lib/gpu"),
        (
            "[\"ro\"",
            "[\"r0o\"",
            "an option of the mount at /usr/lib/gpu",
        ),
        (
            "\"options\"",
            "\"type\": \"0\", \"options\"",
            "type of the mount",
        ),
        ("/dev/card0", "/dev/c0", "hostPath of device node /dev/gpu0"),
        ("[\"hook\"]", "[\"hook\", \"0\"]", "an argument of a hook"),
        ("A=b", "A=0", "environment"),
    ] {
        check_fault((good, &bad.replace('0', "\\u0000")), told);
    }
    let relative = ("/dev/card0", "card0");
    check_fault(relative, "hostPath of device node /dev/gpu0");
}

#[test]
fn a_path_that_no_kernel_takes_is_told() {
    for (long, is_taken) in [
        ("x".repeat(255), true),
        ("x".repeat(256), false),
        ("x/".repeat(2047), true),
        ("x/".repeat(2048), false),
    ] {
        let text = WHOLE.replacen("/usr/lib/gpu", &format!("/{long}"), 1);
        let read = Document::parse(text.as_bytes());
        assert_eq!(read.is_ok(), is_taken, "{} bytes", long.len());
    }
}

#[test]
fn what_expands_without_end_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let of = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            of.trim_end_matches(", ")
        ));
    }
    assert!(Document::parse(bomb.as_bytes()).is_err());
    let deep = "[".repeat(100_000);
    assert!(Document::parse(deep.as_bytes()).is_err());
}
