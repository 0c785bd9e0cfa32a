//! The truth that answers after a restart and exit codes are measured by.
//! A killed shim costs nothing; a container that has neither a shim nor a daemon for a while loses its
//! further output and perhaps its exit code.

use std::fs;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;

use crate::client::Client;
use crate::model::{Container, Kind, Pod, Shim, Stage};

/// A daemon needs so long to learn of an end that no shim tells: the kernel has the code once the
/// new parent has reaped the process, at its leisure, and the daemon looks after 1, 11, 111 and
/// 1111 ms.
const LEARNS_WITHIN: Duration = Duration::from_millis(2000);
/// Exit codes: killed; not started; nobody knows.
const KILLED: i32 = 137;
const NOT_STARTED: i32 = 128;
const UNKNOWN: i32 = 255;
/// Ended by SIGPIPE: shim and daemon were dead at once, so nobody held the pipe. A process that is
/// the init of its PID namespace does not get it.
const NOBODY_READS: i32 = 141;

/// Whether the kernel tells an exit code to others than the parent (Linux 6.15).
fn kernel_tells() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || -> u32 { numbers.next().unwrap().unwrap() };
    (next(), next()) >= (6, 15)
}

impl Client {
    /// Everything that was answered before the daemon was killed is true after its return.
    pub(crate) fn compare(&mut self) {
        let (pod, one) = match &self.pending {
            Some(wish) => (wish.pod(), wish.container()),
            None => (None, None),
        };
        for place in 0..self.pods.len() {
            if pod == Some(place) {
                continue;
            }
            let (id, is_ready) = (self.pods[place].id.clone(), self.pods[place].is_ready);
            let is = self.cri.pod(&id).state() == cri::PodSandboxState::SandboxReady;
            assert_eq!(is, is_ready, "pod {id} is ready");
            for number in 0..self.pods[place].containers.len() {
                if one != Some((place, number)) {
                    self.compare_container(place, number);
                }
            }
        }
    }

    fn compare_container(&mut self, pod: usize, one: usize) {
        let container = &self.pods[pod].containers[one];
        let (id, stage) = (container.id.clone(), container.stage);
        let ends_itself = matches!(container.kind, Kind::Ender { .. });
        let is_mute = self.pods[pod].makes_mute(container);
        match stage {
            Stage::Created => {
                let state = self.cri.look(&id).state();
                assert_eq!(state, cri::ContainerState::ContainerCreated, "{id}");
            }
            Stage::Started(running) if self.pods[pod].is_ready && !ends_itself => {
                let told = self.state(&id).unwrap();
                if is_mute && told.0 == cri::ContainerState::ContainerExited {
                    let told = self.cri.wait_exit(&id);
                    return self.check_end(pod, one, &told);
                }
                let expected = (cri::ContainerState::ContainerRunning, running);
                assert_eq!(
                    told,
                    expected,
                    "state and pid of {container:?}",
                    container = self.pods[pod].containers[one]
                );
            }
            Stage::Started(_) | Stage::Stopped => {
                let told = self.cri.wait_exit(&id);
                self.check_end(pod, one, &told);
            }
        }
    }

    fn check_end(&self, pod: usize, one: usize, told: &cri::ContainerStatus) {
        let (pod, container) = (&self.pods[pod], &self.pods[pod].containers[one]);
        let is_trapper = matches!(container.kind, Kind::Trapper { .. });
        let was_killed = !pod.is_ready || (container.stage == Stage::Stopped && !is_trapper);
        let mut codes: Vec<i32> = container.kind.code().into_iter().collect();
        if was_killed || container.shim == Shim::KilledInStart {
            codes.push(KILLED);
        }
        if container.shim == Shim::KilledInStart {
            codes.push(NOT_STARTED);
        }
        if pod.makes_mute(container) {
            codes.push(NOBODY_READS);
        }
        if container.shim != Shim::Whole && (self.nobody_saw(pod, container) || !kernel_tells()) {
            codes.push(UNKNOWN);
        }
        let code = told.exit_code;
        assert!(
            codes.contains(&code),
            "not {codes:?}: {container:?} {told:?}"
        );
        let reason = match code {
            0 => "Completed",
            NOT_STARTED if container.kind.code() != Some(NOT_STARTED) => "StartError",
            UNKNOWN => "Unknown",
            _ => "Error",
        };
        assert_eq!(told.reason, reason, "{container:?} {told:?}");
    }

    /// Whether a container without a shim may have ended while no daemon was there.
    fn nobody_saw(&self, pod: &Pod, container: &Container) -> bool {
        let over = pod.marks().join(format!("{}.over", container.name));
        let over = fs::metadata(over).and_then(|found| found.modified()).ok();
        // It ends at its next line.
        let mute = container.alone_since.filter(|_| pod.makes_mute(container));
        let dead_at = |time| {
            let mut deaths = self.deaths.iter();
            deaths.any(|(from, to)| *from - LEARNS_WITHIN <= time && time <= *to)
        };
        container.unseen || over.is_some_and(dead_at) || mute.is_some_and(dead_at)
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.pods.iter().map(|pod| pod.id.clone()).collect()
    }

    pub(crate) fn ready_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.is_ready)
    }

    pub(crate) fn containers(&self) -> Vec<String> {
        let all = self.pods.iter().flat_map(|pod| &pod.containers);
        all.map(|container| container.id.clone()).collect()
    }
}
