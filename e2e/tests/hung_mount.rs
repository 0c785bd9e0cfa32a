//! A volume on a file system whose server is gone: its own pod is told so, and no other feels it.
//! And the service manager's watchdog, which is fed by the rounds that would end if one did.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Options, configs, eventually, in_own_mounts, trial, trial_with};
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::Code;

/// A FUSE file system that nobody serves. Every look at it hangs until this is dropped.
struct Dead {
    _device: File,
}

impl Dead {
    fn mount(at: &Path) -> Self {
        let mut options = File::options();
        let device = options.read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let data = std::ffi::CString::new(data).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("dead", at, "fuse", flags, data.as_c_str()).unwrap();
        Self { _device: device }
    }
}

fn with_volume(name: &str, source: &Path) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    config.mounts.push(cri::Mount {
        container_path: "/volume".to_owned(),
        host_path: source.to_str().unwrap().to_owned(),
        ..cri::Mount::default()
    });
    config
}

/// The part of the verbose status that says what hangs.
fn stuck_looks(cri: &mut Cri) -> String {
    let status = cri.status(cri::StatusRequest { verbose: true });
    status.unwrap().info["stuckLooks"].clone()
}

fn is_ready(status: &cri::StatusResponse) -> bool {
    let conditions = &status.status.as_ref().unwrap().conditions;
    let ready = conditions.iter().find(|c| c.r#type == "RuntimeReady");
    ready.unwrap().status
}

#[test]
fn privileged_a_dead_volume_is_its_own_pods_alone() {
    in_own_mounts(|| {
        trial(|node| {
            let place = node.path("dead");
            fs::create_dir(&place).unwrap();
            let dead = Dead::mount(&place);
            let mut cri = node.cri();
            let pods = ["first", "second", "other"].map(|name| node.pod(name));
            let [first, second, other] = [0, 1, 2].map(|at: usize| cri.run_pod(&pods[at]));
            let create = |pod: &str, at: usize| {
                let (mut cri, sandbox) = (node.cri(), pods[at].clone());
                let (pod, config) = (pod.to_owned(), with_volume("main", &place.join("data")));
                std::thread::spawn(move || cri.create(&pod, &sandbox, &config))
            };
            let hung = create(&first, 0);
            eventually("the look is stuck", || {
                stuck_looks(&mut cri).contains("/dead")
            });
            let told = create(&second, 1);
            let begun = Instant::now();
            let container = cri.run(&other, &pods[2], &configs::idle("main"));
            assert_eq!(cri.shell(&container, "echo well"), "well\n");
            assert_eq!(cri.container_ids(), std::slice::from_ref(&container));
            cri.stop(&container, 0);
            assert!(begun.elapsed() < Duration::from_secs(3));
            let error = told.join().unwrap().unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            let text = error.message();
            assert!(
                text.contains("still stuck") && text.contains("/dead"),
                "{text}"
            );
            // The runtime is ready all the same.
            let status = cri.status(cri::StatusRequest::default());
            assert!(is_ready(&status.unwrap()));
            // The server comes back, in its way: the look ends, and with it what it held.
            drop(dead);
            let error = hung.join().unwrap().unwrap_err();
            assert!(error.message().contains("/dead"), "{error}");
            rustix::mount::unmount(&place, UnmountFlags::DETACH).unwrap();
            fs::remove_dir(&place).unwrap();
            for pod in [&first, &second, &other] {
                cri.remove_pod(pod);
            }
        });
    });
}

/// A creation that hangs cannot be cancelled: the kernel keeps its look until the server answers.
/// Its pod stops and goes all the same, and nothing of the creation is left once the look ends.
#[test]
fn privileged_a_pod_stops_and_goes_while_a_creation_in_it_hangs() {
    in_own_mounts(|| {
        trial(|node| {
            let place = node.path("dead");
            fs::create_dir(&place).unwrap();
            let dead = Dead::mount(&place);
            let mut cri = node.cri();
            let pod = node.pod("stuck");
            let id = cri.run_pod(&pod);
            let neighbour = cri.run(&id, &pod, &configs::idle("neighbour"));
            let (mut other, sandbox, config) = (
                node.cri(),
                id.clone(),
                with_volume("main", &place.join("data")),
            );
            let of_pod = pod.clone();
            let hung = std::thread::spawn(move || other.create(&sandbox, &of_pod, &config));
            eventually("the look is stuck", || {
                stuck_looks(&mut cri).contains("/dead")
            });
            let begun = Instant::now();
            let pod_sandbox_id = id.clone();
            let stop = cri::StopPodSandboxRequest { pod_sandbox_id };
            cri.stop_pod_sandbox(stop).unwrap();
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(5), "the stop waited: {took:?}");
            let exited = cri::ContainerState::ContainerExited;
            assert_eq!(cri.look(&neighbour).state(), exited);
            // The caller is told at once too, and not only when the server is back.
            let error = hung.join().unwrap().unwrap_err();
            assert!(begun.elapsed() < Duration::from_secs(5), "{error}");
            cri.remove_pod(&id);
            let took = begun.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "the removal waited: {took:?}"
            );
            assert!(cri.pod_ids().is_empty() && cri.container_ids().is_empty());
            // The name is free for another pod, whose containers need nothing of the dead volume.
            let again = cri.run_pod(&pod);
            let container = cri.run(&again, &pod, &configs::idle("main"));
            assert_eq!(cri.shell(&container, "echo well"), "well\n");
            cri.remove_pod(&again);
            drop(dead);
            eventually("the look has ended", || {
                !stuck_looks(&mut cri).contains("/dead")
            });
            rustix::mount::unmount(&place, UnmountFlags::DETACH).unwrap();
            fs::remove_dir(&place).unwrap();
        });
    });
}

#[test]
fn privileged_the_watchdog_is_fed_by_real_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let line = format!(
        "NOTIFY_SOCKET={}/notify WATCHDOG_USEC=60000000 exec \"$@\"",
        dir.path().display()
    );
    let options = Options {
        through: Some(&*line.leak()),
        ..Options::default()
    };
    trial_with(&options, |_| {
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut told = [0; 1024];
        loop {
            let length = socket.recv(&mut told).unwrap();
            let text = String::from_utf8_lossy(&told[..length]).into_owned();
            if text.contains("WATCHDOG=1") {
                return;
            }
        }
    });
}
