//! Devices by name (CDI): what a container gets for them, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, Options, configs, in_own_mounts, trial, trial_with};
use tempfile::TempDir;
use tonic::Code;

/// Runs a test in a pod of a node that reads device specs in `0` and `1` of a directory.
fn with_specs(test: impl FnOnce(&Path, &mut Node, &mut Cri, &str, &cri::PodSandboxConfig)) {
    let dir = TempDir::new().unwrap();
    let dirs = ["0", "1"].map(|name| dir.path().join(name));
    let config = format!("[cdi]\nspec_dirs = [{:?}, {:?}]\n", dirs[0], dirs[1]);
    let options = Options {
        config,
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let pod = node.pod("devices");
        let id = cri.run_pod(&pod);
        test(dir.path(), node, &mut cri, &id, &pod);
        cri.remove_pod(&id);
    });
}

fn named(config: &mut cri::ContainerConfig, names: &[&str]) {
    config.cdi_devices = names
        .iter()
        .map(|name| cri::CdiDevice {
            name: (*name).to_owned(),
        })
        .collect();
}

/// A spec with an edit of each kind, for one device or for all.
fn vendor(dir: &Path) -> String {
    format!(
        "cdiVersion: 0.7.0
kind: vendor.com/gpu
containerEdits:
  env: [DRIVER=4, MODE=all]
  mounts:
  - hostPath: {0}/lib
    containerPath: /usr/lib/vendor
    options: [ro, nosuid, nodev, rbind, rprivate]
  hooks:
  - hookName: createContainer
    path: {0}/hook
    args: [hook, created]
    env: [MODE=hook]
devices:
- name: \"0\"
  containerEdits:
    env: [MODE=one]
    deviceNodes:
    - path: /dev/vendor0
      hostPath: /dev/zero
      fileMode: 0640
      permissions: r
    additionalGids: [4711]
- name: other
  containerEdits:
    env: [OTHER=yes]
",
        dir.display()
    )
}

#[test]
fn privileged_a_device_brings_all_that_its_spec_says() {
    with_specs(|dir, _, cri, id, pod| {
        let hook = dir.join("hook");
        let line = format!("#!/bin/sh\necho \"$1 $MODE\" >> {}/told\n", dir.display());
        fs::write(&hook, line).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.join("lib")).unwrap();
        fs::write(dir.join("lib/driver"), "from the vendor").unwrap();
        // The daemon runs already: drivers write a spec for each claim.
        fs::create_dir(dir.join("1")).unwrap();
        fs::write(dir.join("1/vendor.yaml"), vendor(dir)).unwrap();
        let mut config = configs::idle("main");
        named(&mut config, &["vendor.com/gpu=0"]);
        let annotation = (
            "cdi.k8s.io/plugin".to_owned(),
            "vendor.com/gpu=other".to_owned(),
        );
        config.annotations.extend([annotation]);
        let container = cri.run(id, pod, &config);
        let mut see = |line: &str| cri.shell(&container, line);
        assert_eq!(see("echo $DRIVER $MODE $OTHER"), "4 one yes\n");
        assert_eq!(see("cat /usr/lib/vendor/driver"), "from the vendor");
        assert_eq!(
            see("touch /usr/lib/vendor/x 2>/dev/null || echo no"),
            "no\n"
        );
        assert_eq!(see("stat -c '%a %t:%T' /dev/vendor0"), "640 1:5\n");
        assert_eq!(see("head -c 3 /dev/vendor0 | od -An -tx1"), " 00 00 00\n");
        assert!(see("id -G").contains("4711"));
        let told = fs::read_to_string(dir.join("told")).unwrap();
        assert_eq!(told, "created hook\n");
        let user = cri.look(&container).user.unwrap().linux.unwrap();
        assert!(user.supplemental_groups.contains(&4711), "{user:?}");
    });
}

#[test]
fn privileged_a_device_that_cannot_be_had_is_named() {
    with_specs(|dir, node, cri, id, pod| {
        fs::create_dir(dir.join("0")).unwrap();
        let device = |name: &str, edits: &str| {
            format!(r#"{{"name": "{name}", "containerEdits": {{{edits}}}}}"#)
        };
        let devices = [
            device(
                "net",
                r#""netDevices": [{"hostInterfaceName": "a", "name": "b"}]"#,
            ),
            device("rdt", r#""intelRdt": {"closID": "a"}"#),
            device(
                "gone",
                r#""deviceNodes": [{"path": "/dev/no-such-device"}]"#,
            ),
        ];
        let spec = |devices: &str| {
            format!(r#"{{"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": [{devices}]}}"#)
        };
        fs::write(dir.join("0/v.json"), spec(&devices.join(", "))).unwrap();
        fs::write(dir.join("0/broken.json"), "{").unwrap();
        // A hook that runs after the container's end would be the first to meet it.
        let cut = device(
            "cut",
            r#""hooks": [{"hookName": "poststop", "path": "/bin/true", "args": ["a\u0000"]}]"#,
        );
        let cut = spec(&cut).replace("v.com", "cut.com");
        fs::write(dir.join("0/cut.json"), cut).unwrap();
        for name in ["x", "y"] {
            let twice = spec(&device("twice", r#""env": ["A=b"]"#));
            fs::write(dir.join(format!("0/{name}.json")), twice).unwrap();
        }
        let shown = dir.to_str().unwrap();
        for (name, told) in [
            (
                "v.com/c=unknown",
                &["v.com/c=unknown", shown, "broken.json"][..],
            ),
            ("v.com/c=twice", &["v.com/c=twice", "x.json", "y.json"]),
            ("v.com/c=net", &["netDevices"]),
            ("v.com/c=rdt", &["intelRdt"]),
            ("v.com/c=gone", &["/dev/no-such-device"]),
            ("cut.com/c=cut", &["cut.json", "argument of a hook", "NUL"]),
            ("no-name", &["no-name"]),
        ] {
            let mut config = configs::idle("main");
            named(&mut config, &[name]);
            let error = cri.create(id, pod, &config).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{}", error.message());
            for word in told {
                assert!(
                    error.message().contains(word),
                    "{word}: {}",
                    error.message()
                );
            }
        }
        assert_eq!(cri.container_ids(), <[String; 0]>::default());
        let warned = node.log().matches("passing over a device spec").count();
        assert_eq!(warned, 2, "each broken file once: {}", node.log());
    });
}

/// Shows a directory of the machine with another one over it, which takes what is written.
fn cover(place: &str, with: &Path) {
    let work = with.with_extension("work");
    fs::create_dir(&work).unwrap();
    let options = format!(
        "lowerdir={place},upperdir={},workdir={}",
        with.display(),
        work.display()
    );
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "-o", &options, "own", place]);
    assert!(mount.status().unwrap().success(), "{options}");
}

/// Writes a spec file as drivers do: it is there at once and whole.
fn write_whole(path: &str, text: &str) {
    let new = format!("{path}.new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn privileged_the_default_directories_are_read_for_each_container() {
    in_own_mounts(|| {
        let own = TempDir::new().unwrap();
        let (etc, var) = (own.path().join("etc"), own.path().join("var"));
        fs::create_dir(&etc).unwrap();
        // In the place of the link to /run.
        fs::create_dir_all(var.join("run")).unwrap();
        cover("/etc", &etc);
        cover("/var", &var);
        // Specs of the machine itself are out of sight.
        fs::remove_dir_all("/etc/cdi").ok();
        trial(specs_come_and_go);
        for place in ["/etc", "/var"] {
            let unmounted = Command::new("umount").args(["-l", place]).status();
            assert!(unmounted.unwrap().success());
        }
    });
}

/// A spec of version 1.0.0, whose device brings one word.
fn card(word: &str) -> String {
    format!(
        r#"{{
            "cdiVersion": "1.0.0",
            "kind": "vendor.com/card",
            "annotations": {{"vendor.com/made-by": "a driver"}},
            "containerEdits": {{"additionalGids": [4712]}},
            "devices": [{{
                "name": "0",
                "annotations": {{"vendor.com/slot": "3"}},
                "containerEdits": {{
                    "env": ["CARD={word}"],
                    "deviceNodes": [{{"path": "/dev/card0", "hostPath": "/dev/full"}}]
                }}
            }}]
        }}"#
    )
}

fn specs_come_and_go(node: &mut Node) {
    const IN_ETC: &str = "/etc/cdi/card.json";
    const IN_RUN: &str = "/var/run/cdi/card.json";
    let mut cri = node.cri();
    let pod = node.pod("cards");
    let id = cri.run_pod(&pod);
    let mut count = 0;
    let mut wanted = || {
        count += 1;
        let mut config = configs::idle(&format!("container-{count}"));
        named(&mut config, &["vendor.com/card=0"]);
        config
    };
    let refused = |cri: &mut Cri, config: &cri::ContainerConfig, words: &[&str]| {
        let error = cri.create(&id, &pod, config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{word}: {error}");
        }
    };
    refused(&mut cri, &wanted(), &["/etc/cdi and /var/run/cdi"]);
    fs::create_dir("/etc/cdi").unwrap();
    fs::create_dir("/var/run/cdi").unwrap();
    let look = |cri: &mut Cri, container: &str| {
        let line = "echo $CARD; stat -c %t:%T /dev/card0; id -G | grep -ow 4712";
        cri.shell(container, line)
    };
    let mut all = Vec::new();
    for (path, text, seen) in [
        (IN_ETC, Some("of-etc"), "of-etc"),
        // The directory of the running system wins.
        (IN_RUN, Some("of-run"), "of-run"),
        (IN_RUN, Some("changed"), "changed"),
        (IN_RUN, None, "of-etc"),
        (IN_ETC, Some("later"), "later"),
    ] {
        match text {
            Some(word) => write_whole(path, &card(word)),
            None => fs::remove_file(path).unwrap(),
        }
        let container = cri.run(&id, &pod, &wanted());
        let seen = format!("{seen}\n1:7\n4712\n");
        assert_eq!(look(&mut cri, &container), seen, "{path} {text:?}");
        all.push((container, seen));
    }
    // A file that is written in its place is no spec before it is whole.
    fs::write(IN_ETC, &card("half")[..40]).unwrap();
    refused(&mut cri, &wanted(), &["vendor.com/card=0", IN_ETC]);
    fs::remove_file(IN_ETC).unwrap();
    refused(&mut cri, &wanted(), &["vendor.com/card=0"]);
    // A container that is there has what it was made with, whatever becomes of the file.
    node.kill();
    node.restart();
    let mut cri = node.cri();
    for (container, seen) in &all {
        assert_eq!(&look(&mut cri, container), seen);
    }
    assert_eq!(cri.container_ids().len(), all.len());
    cri.remove_pod(&id);
}

#[test]
fn privileged_a_pod_with_a_user_namespace_gets_its_devices_too() {
    const FIRST: u32 = 0x0d00_0000;
    with_specs(|dir, node, cri, _, _| {
        // Its users get through to what is for all.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(dir.join("lib")).unwrap();
        fs::write(dir.join("lib/driver"), "from the vendor").unwrap();
        let told = dir.join("told");
        fs::write(&told, "").unwrap();
        fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).unwrap();
        let hook = dir.join("hook");
        let line = format!("#!/bin/sh\necho \"$1 $MODE\" >> {}\n", told.display());
        fs::write(&hook, line).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.join("0")).unwrap();
        fs::write(dir.join("0/vendor.yaml"), vendor(dir)).unwrap();
        let another = r#"{"cdiVersion": "1.0.0", "kind": "v.com/c", "devices": [{"name": "odd",
            "containerEdits": {"deviceNodes": [{"path": "/dev/odd", "hostPath": "/dev/zero",
            "type": "c", "major": 1, "minor": 3}]}}]}"#;
        fs::write(dir.join("0/another.json"), another).unwrap();

        let mut pod = node.pod("mapped");
        configs::namespaces(&mut pod).userns_options = Some(configs::users(FIRST));
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        let options = &mut configs::security(&mut config).namespace_options;
        options.get_or_insert_default().userns_options = Some(configs::users(FIRST));
        named(&mut config, &["vendor.com/gpu=0"]);
        let container = cri.run(&id, &pod, &config);
        let mut see = |line: &str| cri.shell(&container, line);
        assert_eq!(see("echo $DRIVER $MODE"), "4 one\n");
        let first = FIRST.to_string();
        assert_eq!(see("awk '{print $2}' /proc/self/uid_map").trim(), first);
        assert_eq!(see("cat /usr/lib/vendor/driver"), "from the vendor");
        assert_eq!(
            see("stat -c %F:%t:%T /dev/vendor0"),
            "character special file:1:5\n"
        );
        assert_eq!(see("head -c 3 /dev/vendor0 | od -An -tx1"), " 00 00 00\n");
        assert!(see("id -G").contains("4711"));
        assert_eq!(fs::read_to_string(&told).unwrap(), "created hook\n");
        // Such a pod is lent the host's node, whose mode stays, and so gets no other one.
        assert_eq!(cri.shell(&container, "stat -c %a /dev/vendor0"), "666\n");
        let log = node.log();
        let mut lines = log.lines();
        let told = lines.find(|line| line.contains("is lent the host's device node"));
        assert!(told.unwrap().contains("fileMode"), "{told:?}");
        let mut config = config.clone();
        config.metadata.as_mut().unwrap().name = "odd".to_owned();
        named(&mut config, &["v.com/c=odd"]);
        let error = cri.create(&id, &pod, &config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("/dev/zero"), "{error}");
        cri.remove_pod(&id);
    });
}
