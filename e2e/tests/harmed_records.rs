//! A journal that is harmed while the daemon is down: no running pod vanishes with it, none is
//! started twice, and each can be stopped and removed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs::{self, OpenOptions};
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Node, Options, checker, configs, eventually, in_own_mounts, owners, trial};

/// How a journal is harmed.
type Harm = (&'static str, fn(&Path));

const HARMS: [Harm; 8] = [
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("emptied", |path| cut(path, 0)),
    ("cut at 30 %", |path| cut(path, 30)),
    ("cut at 70 %", |path| cut(path, 70)),
    ("cut at 90 %", |path| cut(path, 90)),
    ("zeroed", |path| {
        let length = fs::read(path).unwrap().len();
        fs::write(path, vec![0; length]).unwrap();
    }),
    ("a flipped bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[40] ^= 1;
        fs::write(path, bytes).unwrap();
    }),
];

/// Keeps a part of what is written; the rest of the file was reserved.
fn cut(path: &Path, percent: usize) {
    let bytes = fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let kept = u64::try_from(written * percent / 100).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(kept).unwrap();
}

#[test]
fn privileged_no_running_pod_vanishes_with_its_journal() {
    trial(|node| {
        for (what, harm) in HARMS {
            let mut cri = node.cri();
            let config = node.pod("harmed");
            let pod = cri.run_pod(&config);
            let container = cri.run(&pod, &config, &configs::idle("main"));
            node.kill();
            harm(&node.root().join("pods").join(&pod).join("journal"));
            node.restart();
            let mut cri = node.cri();
            assert_eq!(cri.pod_ids(), std::slice::from_ref(&pod), "{what}");
            assert_eq!(
                cri.container_ids(),
                std::slice::from_ref(&container),
                "{what}"
            );
            assert_eq!(
                cri.run_pod(&config),
                pod,
                "{what}: one of this name is there"
            );
            assert_eq!(cri.shell(&container, "echo here").trim(), "here", "{what}");
            let told = "made anew from its twin";
            assert!(node.log().contains(told), "{what}: nothing was logged");
            // The new journal is as good as the old one was.
            node.kill();
            node.restart();
            let mut cri = node.cri();
            assert_eq!(
                cri.container_ids(),
                std::slice::from_ref(&container),
                "{what}"
            );
            cri.remove_pod(&pod);
            assert!(cri.pod_ids().is_empty(), "{what}");
        }
        let kept = node.root().join("quarantine");
        assert_eq!(fs::read_dir(&kept).unwrap().count(), HARMS.len() - 1);
        sweep_kept(node);
    });
}

#[test]
fn privileged_without_a_twin_a_cut_journal_is_what_it_was() {
    trial(|node| {
        let mut cri = node.cri();
        let config = node.pod("alone");
        let pod = cri.run_pod(&config);
        node.kill();
        fs::remove_file(node.state().join("records").join(&pod)).unwrap();
        node.restart();
        let mut cri = node.cri();
        assert_eq!(cri.run_pod(&config), pod);
        let twin = node.state().join("records").join(&pod);
        assert!(fs::exists(&twin).unwrap(), "the twin is made again");
        cri.remove_pod(&pod);
        assert!(!fs::exists(&twin).unwrap());
    });
}

/// Without any record a pod cannot go on: all that it had is removed, and other pods feel nothing.
#[test]
fn privileged_a_pod_whose_journal_and_twin_are_lost_leaves_nothing() {
    trial(|node| {
        let mut cri = node.cri();
        let other = node.pod("other");
        let stays = cri.run_pod(&other);
        let there = cri.run(&stays, &other, &configs::idle("main"));
        // A part of what was cut off may be read.
        let reads = |what: &str| what.starts_with("cut at");
        for (what, harm) in HARMS.iter().filter(|(what, _)| !reads(what)) {
            let config = node.pod("lost");
            let pod = cri.run_pod(&config);
            let container = cri.run(&pod, &config, &configs::idle("main"));
            node.kill();
            harm(&node.root().join("pods").join(&pod).join("journal"));
            harm(&node.state().join("records").join(&pod));
            node.restart();
            cri = node.cri();
            assert_eq!(cri.pod_ids(), std::slice::from_ref(&stays), "{what}");
            assert_eq!(owners::shim(&container), None, "{what}: it runs on");
            assert_eq!(cri.shell(&there, "echo here").trim(), "here", "{what}");
            // Its name is free.
            let next = cri.run_pod(&config);
            assert_ne!(next, pod, "{what}");
            cri.remove_pod(&next);
        }
        cri.remove_pod(&stays);
        sweep_kept(node);
    });
}

/// Files that were set aside are the operator's to remove.
fn sweep_kept(node: &Node) {
    let kept = node.root().join("quarantine");
    fs::remove_dir_all(&kept).unwrap();
    fs::create_dir(&kept).unwrap();
}

/// A journal that cannot be set aside is written over: nothing of the old one may be read again.
#[test]
fn privileged_a_damaged_journal_that_stays_where_it_is_is_damaged_once() {
    trial(|node| {
        let mut cri = node.cri();
        let config = node.pod("stays");
        let pod = cri.run_pod(&config);
        for name in ["one", "two", "three"] {
            cri.create(&pod, &config, &configs::idle(name)).unwrap();
        }
        node.kill();
        let journal = node.root().join("pods").join(&pod).join("journal");
        let mut bytes = fs::read(&journal).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[written / 2] ^= 1;
        fs::write(&journal, bytes).unwrap();
        // No file takes the place of a directory.
        fs::create_dir_all(node.root().join("quarantine").join(&pod).join("in the way")).unwrap();
        node.restart();
        let damaged = |log: &str| log.matches("damaged record set aside").count();
        let log = node.log();
        let made_anew = log.matches("made anew from its twin").count();
        assert!(log.contains("damaged record stays where it is"), "{log}");
        node.kill();
        node.restart();
        let again = node.log();
        assert_eq!(damaged(&again), damaged(&log), "{again}");
        assert_eq!(again.matches("made anew from its twin").count(), made_anew);
        let mut cri = node.cri();
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&pod));
        cri.remove_pod(&pod);
        sweep_kept(node);
    });
}

#[test]
fn privileged_a_twin_that_another_daemon_left_behind_is_no_pod() {
    trial(|node| {
        let mut cri = node.cri();
        let config = node.pod("gone");
        let pod = cri.run_pod(&config);
        let container = cri.run(&pod, &config, &configs::idle("main"));
        let twins = node.state().join("records");
        let kept = fs::read(twins.join(&pod)).unwrap();
        // A daemon that knows no twins removes a container, and later its pod.
        cri.stop(&container, 0);
        let request = cri::RemoveContainerRequest {
            container_id: container,
        };
        cri.remove_container(request).unwrap();
        node.kill();
        fs::write(twins.join(&pod), &kept).unwrap();
        node.restart();
        let mut cri = node.cri();
        assert!(
            cri.container_ids().is_empty(),
            "removed, and its journal says so"
        );
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&pod));
        cri.remove_pod(&pod);
        // The directory of a record goes after the answer; a daemon that knows no twins removed it before.
        let record = node.root().join("pods").join(&pod);
        eventually("the record's directory is gone", || !record.exists());
        node.kill();
        fs::write(twins.join(&pod), &kept).unwrap();
        let nameless = "f".repeat(pod.len());
        fs::write(twins.join(&nameless), "no record").unwrap();
        node.restart();
        assert!(node.cri().pod_ids().is_empty(), "removed by another daemon");
        for id in [pod, nameless] {
            let twin = twins.join(id);
            eventually("the twin of no pod is swept", || !twin.exists());
        }
    });
}

#[test]
fn privileged_a_node_whose_daemon_cannot_start_leaves_nothing_to_the_next_test() {
    let before = checker::of_machine();
    let mut node = Node::start(Options::default());
    node.pull(&["busybox"]);
    let mut cri = node.cri();
    let mut pod = node.pod("left");
    configs::namespaces(&mut pod).pid = cri::NamespaceMode::Pod.into();
    let id = cri.run_pod(&pod);
    cri.run(&id, &pod, &configs::shell("main", "sleep 1000 & wait"));
    node.kill();
    fs::write(node.path("config.toml"), "no such thing").unwrap();
    drop(node);
    eventually("nothing of it is there", || {
        checker::remains(&before, &checker::of_machine()).is_empty()
    });
}

/// Gives this test's machine another boot id, as if it had booted anew.
fn boot_again(node: &Node) {
    let id = node.path("boot_id");
    fs::write(&id, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    rustix::mount::mount_bind(&id, "/proc/sys/kernel/random/boot_id").unwrap();
}

/// A program that the record has about to start may have run before the machine went down.
#[test]
fn privileged_no_program_runs_twice_across_a_boot() {
    in_own_mounts(|| {
        trial(|node| {
            let mut cri = node.cri();
            let pod = node.pod("boots");
            let id = cri.run_pod(&pod);
            let made = cri.create(&id, &pod, &configs::idle("made")).unwrap();
            let about = cri.create(&id, &pod, &configs::idle("about")).unwrap();
            node.kill();
            assert!(node.restart_to_die("after commit-start 1"));
            node.cri().start(&about).unwrap_err();
            eventually("the daemon died at the point", || node.has_died());
            boot_again(node);
            node.restart();
            let mut cri = node.cri();
            for container in [&made, &about] {
                let status = cri.wait_exit(container);
                assert_eq!(status.exit_code, 255, "{status:?}");
                assert_eq!(status.reason, "Unknown");
            }
            assert_eq!(
                cri.pod(&id).state,
                cri::PodSandboxState::SandboxNotready as i32
            );
            cri.remove_pod(&id);
        });
    });
}
