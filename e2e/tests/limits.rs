//! A node at its limits: a disk without room, a daemon without descriptors, signals that end it in
//! the midst of calls, and starts that are refused.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Node, Options, configs, eventually, in_own_mounts, trial_with};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};
use tonic::{Code, Status};

/// Makes empty files until the disk has no inode left.
fn take_inodes(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for number in 0.. {
        if let Err(error) = File::create(dir.join(number.to_string())) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
            return;
        }
    }
}

/// Fills a file until the disk has no block left.
fn take_blocks(path: &Path) {
    let mut file = File::create(path).unwrap();
    for part in [1 << 20, 4096] {
        let zeros = vec![0; part];
        while file.write_all(&zeros).is_ok() {}
    }
}

#[track_caller]
fn check_full<T: std::fmt::Debug>(answer: Result<T, Status>, path: &str) {
    let status = answer.unwrap_err();
    let text = status.message();
    assert_eq!(status.code(), Code::ResourceExhausted, "{text}");
    let tells = text.contains(path) && text.contains("no room is left there");
    assert!(tells, "{text}");
}

/// The root directory of the daemon is a small disk of its own.
fn on_a_small_disk(test: impl FnOnce(&mut Node) + Send + 'static) {
    in_own_mounts(|| {
        let mount = "mkdir -p \"$3\"; mountpoint -q \"$3\" || \
             mount -t tmpfs -o size=64m,nr_inodes=4000,mode=700 small \"$3\"; exec \"$@\"";
        let mut node = Node::start(Options {
            through: Some(mount),
            ..Options::default()
        });
        node.pull(&["busybox"]);
        test(&mut node);
        assert!(node.cri().pod_ids().is_empty(), "the test left pods");
        let (dir, root) = (node.path(""), node.root());
        drop(node);
        rustix::mount::unmount(&root, UnmountFlags::DETACH).unwrap();
        fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
fn privileged_a_disk_without_inodes_is_told_and_harms_nothing_that_runs() {
    on_a_small_disk(|node| {
        let mut cri = node.cri();
        let pod = node.pod("small");
        let id = cri.run_pod(&pod);
        let lives = cri.run(&id, &pod, &configs::idle("lives"));
        let late = cri.create(&id, &pod, &configs::idle("late")).unwrap();
        // It writes a file for a moment, whose inode a start could take then.
        eventually("layers are synced", || {
            node.log().contains("layers are on the disk")
        });
        let filler: PathBuf = node.root().join("filler");
        take_inodes(&filler);
        check_full(cri.start(&late), "/exit/");
        assert_eq!(cri.look(&late).reason, "StartError");
        check_full(cri.create(&id, &pod, &configs::idle("new")), "/");
        check_full(cri.try_run_pod(&node.pod("other")), "/");
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&id));
        assert_eq!(cri.shell(&lives, "echo well"), "well\n");
        cri.remove_pod(&id);
        fs::remove_dir_all(&filler).unwrap();
        let id = cri.run_pod(&pod);
        let again = cri.run(&id, &pod, &configs::idle("again"));
        assert_eq!(cri.shell(&again, "echo well"), "well\n");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_disk_without_blocks_is_told_and_keeps_no_pod_from_going() {
    on_a_small_disk(|node| {
        let mut cri = node.cri();
        let pod = node.pod("small");
        let id = cri.run_pod(&pod);
        let lives = cri.run(&id, &pod, &configs::idle("lives"));
        let late = cri.create(&id, &pod, &configs::idle("late")).unwrap();
        let filler = node.root().join("filler");
        take_blocks(&filler);
        check_full(cri.create(&id, &pod, &configs::idle("new")), "/");
        check_full(cri.try_run_pod(&node.pod("other")), "/");
        assert_eq!(cri.shell(&lives, "echo well"), "well\n");
        cri.stop(&lives, 0);
        cri.remove_container(cri::RemoveContainerRequest { container_id: late })
            .unwrap();
        // A daemon starts on a full disk, and knows what there is.
        node.kill();
        node.restart();
        let mut cri = node.cri();
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&id));
        cri.remove_pod(&id);
        fs::remove_file(&filler).unwrap();
        let id = cri.run_pod(&pod);
        cri.run(&id, &pod, &configs::idle("again"));
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_without_descriptors_pods_can_be_stopped_and_removed() {
    let options = Options {
        through: Some("ulimit -n 160; exec \"$@\""),
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let first = node.pod("first");
        let mut ids = vec![cri.run_pod(&first)];
        cri.run(&ids[0], &first, &configs::idle("main"));
        // Clients that forget their connections take only a part.
        let idle: Vec<UnixStream> = (0..100)
            .map_while(|_| UnixStream::connect(node.socket()).ok())
            .collect();
        let told = loop {
            match cri.try_run_pod(&node.pod(&format!("p{}", ids.len()))) {
                Ok(id) => ids.push(id),
                Err(status) => break status,
            }
        };
        let text = told.message();
        assert!(text.contains("Too many open files"), "{text}");
        for id in &ids {
            cri.remove_pod(id);
        }
        drop(idle);
        let again = cri.run_pod(&node.pod("again"));
        cri.remove_pod(&again);
    });
}

#[test]
fn privileged_the_daemon_ends_in_a_second_and_pods_go_on() {
    trial_with(&Options::default(), |node| {
        let mut cri = node.cri();
        let pod = node.pod("goes-on");
        let id = cri.run_pod(&pod);
        let deaf = configs::shell("main", "trap '' TERM; while :; do sleep 0.1; done");
        let container = cri.run(&id, &pod, &deaf);
        let stop = cri::StopContainerRequest {
            container_id: container.clone(),
            timeout: 600,
        };
        let mut caller = node.cri();
        let call = std::thread::spawn(move || caller.stop_container(stop));
        eventually("the stop is under way", || {
            node.log().contains("container stopping")
        });
        let begun = Instant::now();
        assert!(node.terminate().success());
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(1500), "{took:?}");
        let status = call.join().unwrap().unwrap_err();
        assert!(
            matches!(
                status.code(),
                Code::Unavailable | Code::Cancelled | Code::Unknown
            ),
            "the kubelet asks again: {status:?}"
        );
        node.restart();
        let mut cri = node.cri();
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
        assert_eq!(cri.shell(&container, "echo well"), "well\n");
        cri.stop(&container, 0);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_hangup_ends_nothing_and_is_told() {
    trial_with(&Options::default(), |node| {
        let pid = Pid::from_raw(i32::try_from(node.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        eventually("it is told", || node.log().contains("SIGHUP is ignored"));
        assert!(node.cri().pod_ids().is_empty(), "and it serves");
    });
}

#[test]
fn privileged_a_read_only_hierarchy_is_told_as_the_cause() {
    in_own_mounts(|| {
        let read_only = "for dir in /sys/fs/cgroup/memory /sys/fs/cgroup; do \
             mountpoint -q $dir && mount -o remount,bind,ro $dir && break; done; exec \"$@\"";
        let node = Node::start(Options {
            through: Some(read_only),
            ..Options::default()
        });
        let status = node.cri().status(cri::StatusRequest::default());
        let conditions = status.unwrap().status.unwrap().conditions;
        let ready = conditions.iter().find(|c| c.r#type == "RuntimeReady");
        let ready = ready.unwrap();
        assert!(!ready.status, "{ready:?}");
        assert!(ready.message.contains("read-only"), "{ready:?}");
    });
}

/// hide NUMBER PROGRAM ARGUMENTS...: a program for which a system call does not exist.
const HIDE: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, atoi(argv[1]), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  if (argc < 3 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
  execv(argv[2], argv + 2);
  return 1;
}
"#;

/// Numbers of system calls, the same for all processors.
const OPENAT2: u32 = 437;
const MOUNT_SETATTR: u32 = 442;

/// Before Linux 5.6 and 5.12 the kernel has not all that a container needs: the daemon says which it is.
#[test]
fn privileged_a_kernel_that_lacks_a_call_is_told_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let (source, hide) = (dir.path().join("hide.c"), dir.path().join("hide"));
    fs::write(&source, HIDE).unwrap();
    let made = Command::new("gcc")
        .arg("-o")
        .args([&hide, &source])
        .status();
    assert!(made.unwrap().success());
    for (number, words) in [
        (OPENAT2, "no container can start before Linux 5.6"),
        (MOUNT_SETATTR, "no container can start before Linux 5.12"),
    ] {
        let line = format!("exec {} {number} \"$@\"", hide.display());
        let node = Node::start(Options {
            through: Some(line.leak()),
            ..Options::default()
        });
        let status = node.cri().status(cri::StatusRequest::default());
        let conditions = status.unwrap().status.unwrap().conditions;
        let ready = conditions.iter().find(|c| c.r#type == "RuntimeReady");
        let ready = ready.unwrap();
        assert!(!ready.status && ready.message.contains(words), "{ready:?}");
        assert!(
            node.log().contains("a feature is missing"),
            "{}",
            node.log()
        );
    }
}

/// How a daemon ends that is started beside the one of a node, at some of its places: the exit code
/// and all that it says.
fn beside(node: &Node, config: &Path, shared: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(node.command().get_program());
    let place = |option: &str, ours: PathBuf, other: &str| {
        if shared.contains(&option) {
            ours
        } else {
            node.path(other)
        }
    };
    let socket = place("--listen", node.socket(), "other.sock");
    let output = command
        .arg("--root")
        .arg(place("--root", node.root(), "other"))
        .arg("--state")
        .arg(place("--state", node.state(), "other-state"))
        .args(["--listen", &format!("unix://{}", socket.display())])
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn privileged_another_program_in_the_place_of_the_shim_is_refused() {
    trial_with(&Options::default(), |node| {
        let config = fs::read_to_string(node.path("config.toml")).unwrap();
        let wrong = node.path("wrong.toml");
        fs::write(
            &wrong,
            format!("{config}\n[daemon]\nshim = \"/bin/true\"\n"),
        )
        .unwrap();
        let (code, said) = beside(node, &wrong, &[]);
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("/bin/true is not crisp-shim"), "{said}");
    });
}

#[test]
fn privileged_a_second_daemon_is_told_at_once() {
    trial_with(&Options::default(), |node| {
        let mut cri = node.cri();
        let pod = cri.run_pod(&node.pod("first"));
        let config = node.path("config.toml");
        for shared in [
            &["--root", "--state", "--listen"][..],
            &["--root"],
            &["--state"],
            &["--listen"],
        ] {
            let begun = Instant::now();
            let (code, said) = beside(node, &config, shared);
            let took = begun.elapsed();
            assert_eq!(code, Some(75), "{shared:?}: {said}");
            let names = format!("(process {})", node.pid());
            assert!(said.contains(&names), "{shared:?}: {said}");
            assert!(took < Duration::from_millis(1500), "{shared:?}: {took:?}");
        }
        assert_eq!(cri.pod_ids(), std::slice::from_ref(&pod), "it serves");
        // A name that stays behind a killed daemon keeps nobody waiting.
        node.kill();
        node.restart();
        node.cri().remove_pod(&pod);
    });
}
