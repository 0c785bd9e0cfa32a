//! A client that works with pods of its own, remembers every answer, kills shims, holders and
//! plugins, and asks again what was not answered. `truth` says what its answers must agree with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::netns::Net;
use crisp_e2e::{Cri, Node, eventually, owners};
use tonic::{Code, Status};

use crate::fire;
use crate::model::{Container, Fire, Kind, Pod, Shim, Stage, Wish};
use crate::random::Random;
use crate::traces;

/// Below it are all pods' cgroups; a kubelet's name, so that the checker finds them.
pub(crate) const CGROUP: &str = "kubepods-crash";
/// Longest between the loss of a connection and the discovery that the daemon is dead.
const NOTICED: Duration = Duration::from_secs(10);

pub(crate) type Answer<T = ()> = Result<T, Status>;

pub(crate) struct Client {
    pub(crate) cri: Cri,
    pub(crate) pods: Vec<Pod>,
    /// Asked, and not answered.
    pub(crate) pending: Option<Wish>,
    /// From when to when no daemon was there.
    pub(crate) deaths: Vec<(SystemTime, SystemTime)>,
    /// Pods that are over.
    pub(crate) lives: u64,
    /// Shims, holders and plugins that were killed.
    pub(crate) kills: u64,
    /// The effect at which the daemon is to die.
    pub(crate) favoured: Option<&'static str>,
    pub(crate) random: Random,
    pub(crate) number: u64,
    pub(crate) serial: u64,
    pub(crate) logs: PathBuf,
    /// Networks are made by plugins.
    pub(crate) plugins: bool,
    /// For a call beside another.
    pub(crate) beside: Cri,
    /// The network in which streams are served.
    pub(crate) net: Net,
}

/// Whether an error says that the daemon has gone, and not that it answers.
pub(crate) fn is_lost(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Waits until it is known that the daemon has died.
#[track_caller]
pub(crate) fn wait_for_death(status: &Status, over: &AtomicBool) {
    let deadline = Instant::now() + NOTICED;
    while !over.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "the daemon lives, and {status}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Client {
    pub(crate) fn new(node: &Node, number: u64, random: Random, plugins: bool) -> Self {
        Self {
            cri: node.cri(),
            pods: Vec::new(),
            pending: None,
            deaths: Vec::new(),
            lives: 0,
            kills: 0,
            favoured: None,
            random,
            number,
            serial: 0,
            logs: node.path("logs"),
            plugins,
            beside: node.cri(),
            net: Net::at(Path::new(&node.net.path())),
        }
    }

    /// Asks for one thing after another until the daemon has gone.
    pub(crate) fn work(&mut self, over: &AtomicBool) {
        loop {
            if let Err(status) = self.settle() {
                return wait_for_death(&status, over);
            }
            self.pending = Some(self.next_wish());
            let wish = self.pending.clone().unwrap();
            if let Err(status) = self.answered(&wish) {
                return wait_for_death(&status, over);
            }
        }
    }

    /// Asks again what was not answered: it is done now, or was done before.
    pub(crate) fn settle(&mut self) -> Answer {
        match self.pending.clone() {
            Some(wish) => {
                self.unseen(&wish);
                self.answered(&wish.without_fire())
            }
            None => Ok(()),
        }
    }

    /// Asks; an error is the loss of the daemon.
    fn answered(&mut self, wish: &Wish) -> Answer {
        match self.ask(wish) {
            Err(status) if !is_lost(&status) => {
                panic!("client {}: {wish:?}: {status:?}", self.number)
            }
            other => {
                other?;
                self.pending = None;
                Ok(())
            }
        }
    }

    /// A daemon died in a call that ends containers: it has not seen the end of one without a shim.
    fn unseen(&mut self, wish: &Wish) {
        let of_pod = wish.pod();
        for (place, pod) in self.pods.iter_mut().enumerate() {
            for (number, container) in pod.containers.iter_mut().enumerate() {
                let is_meant = of_pod == Some(place) || wish.container() == Some((place, number));
                container.unseen |= is_meant && container.shim != Shim::Whole;
            }
        }
    }

    /// Asks, and notes the answer.
    fn ask(&mut self, wish: &Wish) -> Answer {
        match wish {
            Wish::RunPod(config, fire) => self.run_pod(config, *fire),
            Wish::StopPod(pod, fire) => self.stop_pod(*pod, *fire),
            Wish::RemovePod(pod) => self.remove_pod(*pod),
            Wish::KillHolder(pod) => self.kill_holder(*pod),
            Wish::UpdatePod(pod) => self.update_pod(*pod),
            Wish::CreateWrong(pod, name) => self.create_wrong(*pod, name),
            Wish::CreateTwice(pod, name) => self.create_twice(*pod, name),
            Wish::CreateEither(pod, name) => self.create_either(*pod, name),
            Wish::Create(pod, name, kind) => self.create(*pod, name, *kind),
            Wish::Start(pod, one, fire) => self.start((*pod, *one), *fire),
            Wish::Exec(pod, one) => self.exec(*pod, *one),
            Wish::Update(pod, one) => self.update(*pod, *one),
            Wish::ReopenLog(pod, one) => {
                let container_id = self.pods[*pod].containers[*one].id.clone();
                let request = cri::ReopenContainerLogRequest { container_id };
                let answer = self.cri.reopen_container_log(request).map(drop);
                self.if_it_runs((*pod, *one), answer)
            }
            Wish::Session(pod, one) => self.session(*pod, *one),
            Wish::KillShim(pod, one) => {
                self.kill_shim(*pod, *one);
                Ok(())
            }
            Wish::Stop(pod, one) => self.stop(*pod, *one),
            Wish::Remove(pod, one) => self.remove(*pod, *one),
        }
    }

    fn run_pod(&mut self, config: &cri::PodSandboxConfig, fire: Fire) -> Answer {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let name = config.metadata.as_ref().unwrap().name.clone();
        let find = || fire::plugin(&name);
        let (answer, killed) = fire::during(fire, find, || self.cri.run_pod_sandbox(request));
        self.kills += u64::from(killed);
        let id = match answer {
            // It is undone, whatever the killed plugin had done.
            Err(status) if killed && !is_lost(&status) => return Ok(()),
            other => other?.pod_sandbox_id,
        };
        self.pods.push(Pod {
            id,
            config: config.clone(),
            is_ready: true,
            containers: Vec::new(),
        });
        Ok(())
    }

    fn stop_pod(&mut self, pod: usize, fire: Fire) -> Answer {
        let pod_sandbox_id = self.pods[pod].id.clone();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id };
        let name = self.pods[pod].name().to_owned();
        let find = || fire::plugin(&name);
        let again = request.clone();
        let (answer, killed) = fire::during(fire, find, || self.cri.stop_pod_sandbox(request));
        self.kills += u64::from(killed);
        match answer {
            Err(status) if killed && !is_lost(&status) => drop(self.cri.stop_pod_sandbox(again)?),
            other => drop(other?),
        }
        self.pods[pod].is_ready = false;
        Ok(())
    }

    fn remove_pod(&mut self, pod: usize) -> Answer {
        let pod_sandbox_id = self.pods[pod].id.clone();
        self.cri
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })?;
        let gone = self.pods.remove(pod);
        self.lives += 1;
        let each = gone.containers.iter();
        each.for_each(|container| traces::check(&gone, container));
        Ok(())
    }

    /// Its pod is over then.
    fn kill_holder(&mut self, pod: usize) -> Answer {
        if let Some(holder) = owners::holder(&self.pods[pod].id) {
            self.kills += u64::from(fire::kill(holder));
        }
        let deadline = Instant::now() + NOTICED;
        loop {
            let request = cri::PodSandboxStatusRequest {
                pod_sandbox_id: self.pods[pod].id.clone(),
                verbose: false,
            };
            let status = self.cri.pod_sandbox_status(request)?.status.unwrap();
            if status.state() == cri::PodSandboxState::SandboxNotready {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "ready without holder: {status:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.pods[pod].is_ready = false;
        Ok(())
    }

    pub(crate) fn create(&mut self, pod: usize, name: &str, kind: Kind) -> Answer {
        let Pod { id, config, .. } = &self.pods[pod];
        let id = self.cri.create(id, config, &kind.config(name, config))?;
        self.pods[pod]
            .containers
            .push(Container::new(id, name, kind));
        Ok(())
    }

    fn start(&mut self, (pod, one): (usize, usize), fire: Fire) -> Answer {
        let id = self.pods[pod].containers[one].id.clone();
        let find = || owners::shim(&id);
        let (answer, killed) = fire::during(fire, find, || self.cri.start(&id));
        let container = &mut self.pods[pod].containers[one];
        if killed {
            container.shim = Shim::KilledInStart;
            container.alone_since = Some(SystemTime::now());
            self.kills += 1;
        } else if answer.is_ok() {
            // An earlier start that lost its shim has come to nothing: this one has a shim anew.
            container.shim = Shim::Whole;
            container.alone_since = None;
        }
        match answer {
            // It was started when the answer got lost.
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) if !is_lost(&status) && container.shim == Shim::KilledInStart => {}
            other => other?,
        }
        let (state, pid) = self.state(&id)?;
        let container = &mut self.pods[pod].containers[one];
        container.stage = match state {
            cri::ContainerState::ContainerExited if container.shim != Shim::Whole => Stage::Stopped,
            cri::ContainerState::ContainerRunning | cri::ContainerState::ContainerExited => {
                Stage::Started(pid)
            }
            state => panic!("{container:?} is {state:?} after its start"),
        };
        Ok(())
    }

    /// State, and the host pid of init, or 0 once it is over.
    pub(crate) fn state(&mut self, id: &str) -> Answer<(cri::ContainerState, i64)> {
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let reply = self.cri.container_status(request)?;
        let info: serde_json::Value = serde_json::from_str(&reply.info["info"]).unwrap();
        let pid = info["pid"].as_i64().unwrap_or(0);
        Ok((reply.status.unwrap().state(), pid))
    }

    fn exec(&mut self, pod: usize, one: usize) -> Answer {
        let container = &self.pods[pod].containers[one];
        let may_end = self.may_have_ended(pod, one);
        let answer = self.cri.execute(&container.id, &["echo", "said"]);
        let answer = answer.map(|reply| {
            assert!(reply.stdout == b"said\n" || may_end, "{reply:?}");
        });
        self.if_it_runs((pod, one), answer)
    }

    fn update(&mut self, pod: usize, one: usize) -> Answer {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: self.pods[pod].containers[one].id.clone(),
            linux: Some(cri::LinuxContainerResources {
                cpu_shares: i64::try_from(100 + self.random.below(1000)).unwrap(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = self.cri.update_container_resources(request).map(drop);
        self.if_it_runs((pod, one), answer)
    }

    /// The answer to a call that wants a container that runs, and its shim.
    pub(crate) fn if_it_runs(&self, (pod, one): (usize, usize), answer: Answer) -> Answer {
        let container = &self.pods[pod].containers[one];
        match answer.as_ref().map_err(Status::code) {
            Err(Code::FailedPrecondition) if self.may_have_ended(pod, one) => Ok(()),
            Err(Code::Unavailable) if container.shim != Shim::Whole => match answer {
                Err(status) if is_lost(&status) => Err(status),
                _ => Ok(()),
            },
            _ => answer,
        }
    }

    pub(crate) fn may_have_ended(&self, pod: usize, one: usize) -> bool {
        let of = &self.pods[pod];
        let container = &of.containers[one];
        matches!(container.kind, Kind::Ender { .. }) || of.makes_mute(container)
    }

    fn kill_shim(&mut self, pod: usize, one: usize) {
        let pod = &mut self.pods[pod];
        let log = fs::read(pod.log(&pod.containers[one])).unwrap_or_default();
        let lines = log.iter().filter(|byte| **byte == b'\n').count();
        let container = &mut pod.containers[one];
        if let Some(shim) = owners::shim(&container.id) {
            container.shim = Shim::Killed(lines);
            container.alone_since = Some(SystemTime::now());
            self.kills += u64::from(fire::kill(shim));
            eventually("the shim is gone", || {
                owners::shim(&container.id) != Some(shim)
            });
        }
    }

    fn stop(&mut self, pod: usize, one: usize) -> Answer {
        let of = &self.pods[pod];
        let container = &of.containers[one];
        let is_trapper = matches!(container.kind, Kind::Trapper { .. });
        if is_trapper {
            let ready = of.marks().join(format!("{}.ready", container.name));
            let (is_mute, id) = (of.makes_mute(container), container.id.clone());
            let exited = cri::ContainerState::ContainerExited;
            eventually("the trap is set", || {
                ready.exists() || (is_mute && self.cri.look(&id).state() == exited)
            });
        }
        let container = &self.pods[pod].containers[one];
        let request = cri::StopContainerRequest {
            container_id: container.id.clone(),
            timeout: if is_trapper { 20 } else { 0 },
        };
        self.cri.stop_container(request)?;
        self.pods[pod].containers[one].stage = Stage::Stopped;
        Ok(())
    }

    fn remove(&mut self, pod: usize, one: usize) -> Answer {
        let container_id = self.pods[pod].containers[one].id.clone();
        self.cri
            .remove_container(cri::RemoveContainerRequest { container_id })?;
        let gone = self.pods[pod].containers.remove(one);
        traces::check(&self.pods[pod], &gone);
        Ok(())
    }

    /// Removes everything, and looks at every log.
    pub(crate) fn remove_all(&mut self) {
        while !self.pods.is_empty() {
            while !self.pods[0].containers.is_empty() {
                self.ask(&Wish::Remove(0, 0)).unwrap();
            }
            self.ask(&Wish::RemovePod(0)).unwrap();
        }
    }
}
