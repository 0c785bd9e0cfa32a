//! A directory whose file system takes its time: a command that was given up meanwhile does not run
//! when the directory answers, and one that cannot end before is waited for.
//!
//! The file system is one of FUSE, whose every byte is the test's: it can keep back the answer to
//! chdir(2), which asks for leave (ACCESS).

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crisp_model::{ExitStatus, Signal};
use crisp_shim_api::{ExecRequest, Reply, Request};
use crisp_sys::rootfs::proc_path;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::json;

use crate::exec::{ended, run};
use crate::lab::{Lab, borrow, null, until};

const GETATTR: u32 = 3;
const INIT: u32 = 26;
const ACCESS: u32 = 34;
/// Requests that have no answer: FORGET, INTERRUPT, BATCH_FORGET.
const ONE_WAY: [u32; 3] = [2, 36, 42];
const ENOSYS: i32 = 38;

/// The mount, and what was asked of it.
struct Slow {
    /// Whether the next ACCESS waits for its release.
    holds: Arc<Mutex<bool>>,
    asked: Receiver<()>,
    release: Sender<()>,
}

impl Slow {
    fn mount(at: &Path) -> Self {
        let mut options = File::options();
        let device = options.read(true).write(true).open("/dev/fuse").unwrap();
        let number = proc_path(&device);
        let number = number.file_name().unwrap().display();
        let data = format!("fd={number},rootmode=40000,user_id=0,group_id=0,allow_other");
        let data = std::ffi::CString::new(data).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("slow", at, "fuse", flags, data.as_c_str()).unwrap();
        let holds = Arc::new(Mutex::new(false));
        let (tell, asked) = channel();
        let (release, released) = channel();
        let held = Arc::clone(&holds);
        std::thread::spawn(move || serve(device, &held, (&tell, &released)));
        Self {
            holds,
            asked,
            release,
        }
    }
}

/// Answers until the mount is gone, or the test with its end of a channel.
fn serve(mut device: File, holds: &Mutex<bool>, (tell, released): (&Sender<()>, &Receiver<()>)) {
    let mut request = vec![0; 64 << 10];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let (head, _) = request[..length].split_at(40);
        let opcode = u32::from_ne_bytes(head[4..8].try_into().unwrap());
        if ONE_WAY.contains(&opcode) {
            continue;
        }
        if opcode == ACCESS && std::mem::take(&mut *holds.lock().unwrap()) {
            tell.send(()).ok();
            if released.recv().is_err() {
                return;
            }
        }
        let (error, body) = match opcode {
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            ACCESS => (0, Vec::new()),
            _ => (-ENOSYS, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
        let answer = [&length[..], &error.to_ne_bytes(), &head[8..16], &body].concat();
        // The asker may have been killed.
        drop(device.write_all(&answer));
    }
}

/// `struct fuse_init_out` of version 7.31.
fn init() -> Vec<u8> {
    let words: [u32; 16] = [7, 31, 0, 0, 0, 4096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct fuse_attr_out` of a directory.
fn attributes() -> Vec<u8> {
    let mut bytes = vec![0; 104];
    bytes[16..24].copy_from_slice(&1_u64.to_ne_bytes());
    let (mode, links) = (0o40755_u32, 2_u32);
    bytes[76..80].copy_from_slice(&mode.to_ne_bytes());
    bytes[80..84].copy_from_slice(&links.to_ne_bytes());
    bytes
}

/// Runs a test whose mounts are its own, and without a version 2 tree where the machine has one
/// beside version 1: a command has no cgroup of its own then, by which it would be killed whole.
fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    let apart = std::thread::spawn(|| {
        #[expect(deprecated, reason = "the thread has no other users of its namespace")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).unwrap();
        // Other machines have none there.
        rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH).ok();
        test();
    });
    if let Err(panic) = apart.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The container has the directory as `/slow`.
fn lab_with_slow(mut lab: Lab) -> (Lab, Slow) {
    let place = lab.dir.path().join("slow");
    fs::create_dir(&place).unwrap();
    let slow = Slow::mount(&place);
    let mount = json!({
        "destination": "/slow", "type": "bind", "source": place, "options": ["bind"]
    });
    lab.spec["mounts"].as_array_mut().unwrap().push(mount);
    (lab, slow)
}

#[test]
fn privileged_a_killed_command_does_not_run_when_its_directory_answers() {
    in_own_mounts(|| {
        let (mut lab, slow) = lab_with_slow(Lab::new("sleep 1000"));
        lab.spec["process"]["cwd"] = json!("/slow");
        let init = lab.start().pid;
        *slow.holds.lock().unwrap() = true;
        let exec = ExecRequest {
            exec_id: "given-up".to_owned(),
            args: ["sh", "-c", "echo > /tmp/ran"].map(str::to_owned).to_vec(),
            ..ExecRequest::default()
        };
        let fds = [null(), null(), null()];
        lab.send(Request::Exec(Box::new(exec)), &borrow(&fds));
        slow.asked.recv().unwrap();
        let cgroup = lab.cgroup.child("c");
        let others = || {
            let mut all = cgroup.procs().unwrap();
            all.retain(|pid| *pid != init);
            all
        };
        let command = others()[0];
        let exec_id = "given-up".to_owned();
        assert_eq!(lab.ask(Request::KillExec { exec_id }), Reply::Done);
        // Its maker has ended: it is the shim's, or has ended with it.
        let shim = lab.shim.as_ref().unwrap().id();
        let parent = format!("PPid:\t{shim}\n");
        until("its maker is gone", || {
            let status = fs::read_to_string(format!("/proc/{command}/status"));
            status.is_ok_and(|status| status.contains(&parent))
        });
        slow.release.send(()).unwrap();
        until("the command is gone", || others().is_empty());
        assert!(!lab.dir.path().join("rootfs/tmp/ran").exists(), "it ran");
        lab.ask(Request::KillAll);
        lab.exited();
        lab.shut_down();
    });
}

/// The daemon sends a shim away as soon as it hears of the container's end.
#[test]
fn privileged_the_end_of_a_command_that_is_held_up_is_told_before_the_shim_leaves() {
    in_own_mounts(|| {
        // In a PID namespace of its own, init would end after the command.
        let lab = Lab::new("trap 'exit 3' TERM; : > /tmp/ready; while :; do sleep 0.05; done");
        let (mut lab, slow) = lab_with_slow(lab.in_host_pid_namespace());
        lab.start();
        let ready = lab.dir.path().join("rootfs/tmp/ready");
        until("init takes signals", || ready.exists());
        *slow.holds.lock().unwrap() = true;
        let reply = run(&mut lab, "held", &["sh", "-c", "cd /slow"]).0;
        assert!(matches!(reply, Reply::Exec { .. }), "{reply:?}");
        slow.asked.recv().unwrap();
        lab.ask(Request::Signal {
            signal: Signal::TERM,
        });
        assert_eq!(lab.exited().status, ExitStatus::Code(3));
        let shutdown = lab.send(Request::Shutdown, &[]);
        let state = lab.ask(Request::State);
        assert!(matches!(state, Reply::State(_)), "{state:?}");
        slow.release.send(()).unwrap();
        assert_eq!(ended(&mut lab, "held"), ExitStatus::Signal(9));
        assert_eq!(lab.reply_to(shutdown).0, Reply::Done);
        lab.is_gone();
    });
}
