//! A client that works with pods of its own, remembers every answer, and asks again what was not
//! answered.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs};
use tonic::{Code, Status};

use crate::model::{Container, Kind, Pod, Stage, Wish};
use crate::random::Random;

/// Pods that a client has at most, and containers in each.
const PODS: usize = 2;
const CONTAINERS: usize = 3;

pub(crate) struct Client {
    cri: Cri,
    random: Random,
    number: u64,
    serial: u64,
    logs: PathBuf,
    pods: Vec<Pod>,
    /// Asked, and not answered.
    pending: Option<Wish>,
}

impl Client {
    pub(crate) fn new(node: &Node, number: u64, random: Random) -> Self {
        Self {
            cri: node.cri(),
            random,
            number,
            serial: 0,
            logs: node.path("logs"),
            pods: Vec::new(),
            pending: None,
        }
    }

    /// Asks for one thing after another until the daemon does not answer any more.
    pub(crate) fn work(&mut self, dying: &AtomicBool) {
        loop {
            let wish = self.next_wish();
            self.pending = Some(wish.clone());
            match self.ask(&wish) {
                Ok(()) => self.pending = None,
                Err(_) if dying.load(Ordering::SeqCst) => return,
                Err(status) => panic!("client {}: {wish:?}: {status}", self.number),
            }
        }
    }

    fn next_wish(&mut self) -> Wish {
        let pods = self.pods.len() as u64;
        if pods == 0 || (self.pods.len() < PODS && self.random.below(3) == 0) {
            return Wish::RunPod(Box::new(self.new_pod()));
        }
        let pod = index(self.random.below(pods));
        let count = self.pods[pod].containers.len();
        let dice = self.random.below(20);
        if !self.pods[pod].is_ready || dice == 0 {
            return Wish::RemovePod(pod);
        }
        if dice == 1 {
            return Wish::StopPod(pod);
        }
        if count == 0 || (count < CONTAINERS && dice < 8) {
            self.serial += 1;
            let kind = match self.random.below(2) {
                0 => Kind::Writer,
                _ => Kind::Ender {
                    code: i32::try_from(self.random.below(100)).unwrap(),
                    after: self.random.below(200),
                },
            };
            return Wish::Create(pod, format!("c{}", self.serial), kind);
        }
        let one = index(self.random.below(count as u64));
        match (self.pods[pod].containers[one].stage, dice) {
            (Stage::Created, _) => Wish::Start(pod, one),
            (Stage::Stopped, _) | (_, 8..=9) => Wish::Remove(pod, one),
            (Stage::Started(_), 10..=12) => Wish::Stop(pod, one),
            (Stage::Started(_), _) => Wish::Exec(pod, one),
        }
    }

    fn new_pod(&mut self) -> cri::PodSandboxConfig {
        self.serial += 1;
        let name = format!("crash-{}-{}", self.number, self.serial);
        let logs = self.logs.join(&name);
        fs::create_dir_all(&logs).unwrap();
        cri::PodSandboxConfig {
            log_directory: logs.to_str().unwrap().to_owned(),
            ..configs::pod(&name)
        }
    }

    /// Asks, and notes the answer.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn ask(&mut self, wish: &Wish) -> Result<(), Status> {
        match wish {
            Wish::RunPod(config) => self.run_pod(config),
            Wish::StopPod(pod) => {
                let pod_sandbox_id = self.pods[*pod].id.clone();
                self.cri
                    .stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id })?;
                self.pods[*pod].is_ready = false;
                Ok(())
            }
            Wish::RemovePod(pod) => {
                let pod_sandbox_id = self.pods[*pod].id.clone();
                self.cri
                    .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id })?;
                self.pods.remove(*pod).containers.iter().for_each(drop);
                Ok(())
            }
            Wish::Create(pod, name, kind) => self.create(*pod, name, *kind),
            Wish::Start(pod, one) => self.start(*pod, *one),
            Wish::Exec(pod, one) => self.exec(*pod, *one),
            Wish::Stop(pod, one) => {
                let request = cri::StopContainerRequest {
                    container_id: self.pods[*pod].containers[*one].id.clone(),
                    timeout: 0,
                };
                self.cri.stop_container(request)?;
                self.pods[*pod].containers[*one].stage = Stage::Stopped;
                Ok(())
            }
            Wish::Remove(pod, one) => {
                let container_id = self.pods[*pod].containers[*one].id.clone();
                self.cri
                    .remove_container(cri::RemoveContainerRequest { container_id })?;
                let gone = self.pods[*pod].containers.remove(*one);
                self.check_log(*pod, &gone);
                Ok(())
            }
        }
    }

    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn run_pod(&mut self, config: &cri::PodSandboxConfig) -> Result<(), Status> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let id = self.cri.run_pod_sandbox(request)?.pod_sandbox_id;
        self.pods.push(Pod {
            id,
            config: config.clone(),
            is_ready: true,
            containers: Vec::new(),
        });
        Ok(())
    }

    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn create(&mut self, pod: usize, name: &str, kind: Kind) -> Result<(), Status> {
        let Pod { id, config, .. } = &self.pods[pod];
        let id = self.cri.create(id, config, &kind.config(name))?;
        self.pods[pod].containers.push(Container {
            id,
            name: name.to_owned(),
            kind,
            stage: Stage::Created,
        });
        Ok(())
    }

    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn start(&mut self, pod: usize, one: usize) -> Result<(), Status> {
        let id = self.pods[pod].containers[one].id.clone();
        match self.cri.start(&id) {
            // It was started when the answer got lost.
            Err(status) if status.code() == Code::FailedPrecondition => {}
            other => other?,
        }
        let pid = self.pid(&id)?;
        self.pods[pod].containers[one].stage = Stage::Started(pid);
        Ok(())
    }

    /// Host pid of init, or 0 once it is over.
    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn pid(&mut self, id: &str) -> Result<i64, Status> {
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let info = self.cri.container_status(request)?.info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        Ok(info["pid"].as_i64().unwrap_or(0))
    }

    #[allow(
        clippy::result_large_err,
        reason = "it is the status that is looked at"
    )]
    fn exec(&mut self, pod: usize, one: usize) -> Result<(), Status> {
        let container = &self.pods[pod].containers[one];
        match self.cri.execute(&container.id, &["echo", "said"]) {
            Ok(reply) => assert!(
                reply.stdout == b"said\n" || container.kind != Kind::Writer,
                "{reply:?}"
            ),
            // It may have ended meanwhile.
            Err(_) if container.kind != Kind::Writer => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Everything that was answered before the daemon was killed is true after its return.
    pub(crate) fn compare(&mut self) {
        let (pod, one) = match &self.pending {
            Some(wish @ (Wish::StopPod(_) | Wish::RemovePod(_))) => (wish.pod(), None),
            Some(wish) => (None, wish.container()),
            None => (None, None),
        };
        for place in 0..self.pods.len() {
            if pod == Some(place) {
                continue;
            }
            let (id, is_ready) = (self.pods[place].id.clone(), self.pods[place].is_ready);
            let told = self.cri.pod(&id);
            let is = told.state == i32::from(cri::PodSandboxState::SandboxReady);
            assert_eq!(is, is_ready, "pod {id} is ready");
            for number in 0..self.pods[place].containers.len() {
                if one != Some((place, number)) {
                    self.compare_container(place, number);
                }
            }
        }
    }

    fn compare_container(&mut self, pod: usize, one: usize) {
        let is_ready = self.pods[pod].is_ready;
        let Container {
            id, kind, stage, ..
        } = &self.pods[pod].containers[one];
        let (id, kind, stage) = (id.clone(), *kind, *stage);
        match (stage, kind) {
            (Stage::Created, _) => {
                let state = self.cri.look(&id).state();
                assert_eq!(state, cri::ContainerState::ContainerCreated, "{id}");
            }
            (Stage::Started(pid), Kind::Writer) if is_ready => {
                assert_eq!(self.pid(&id).unwrap(), pid, "pid of {id}");
                let state = self.cri.look(&id).state();
                assert_eq!(state, cri::ContainerState::ContainerRunning, "{id}");
            }
            (Stage::Started(_), Kind::Ender { code, .. }) if is_ready => {
                assert_eq!(self.cri.wait_exit(&id).exit_code, code, "exit of {id}");
            }
            (_, Kind::Writer) => {
                assert_eq!(self.cri.wait_exit(&id).exit_code, 137, "exit of {id}");
            }
            (_, Kind::Ender { code, .. }) => {
                let told = self.cri.wait_exit(&id).exit_code;
                assert!(told == code || told == 137, "{id}: {told}, not {code}");
            }
        }
    }

    /// Asks again what was not answered: it is done now, or was done before.
    pub(crate) fn settle(&mut self) {
        if let Some(wish) = self.pending.take()
            && let Err(status) = self.ask(&wish)
        {
            panic!("client {}: again {wish:?}: {status}", self.number);
        }
    }

    pub(crate) fn pods(&self) -> Vec<String> {
        self.pods.iter().map(|pod| pod.id.clone()).collect()
    }

    pub(crate) fn ready_pods(&self) -> Vec<String> {
        let ready = self.pods.iter().filter(|pod| pod.is_ready);
        ready.map(|pod| pod.id.clone()).collect()
    }

    pub(crate) fn containers(&self) -> Vec<String> {
        let all = self.pods.iter().flat_map(|pod| &pod.containers);
        all.map(|container| container.id.clone()).collect()
    }

    /// Lines are numbered by their writer: none is missing, none is there twice.
    fn check_log(&self, pod: usize, container: &Container) {
        if container.kind != Kind::Writer || container.stage == Stage::Created {
            return;
        }
        let name = &self.pods[pod].config.metadata.as_ref().unwrap().name;
        let path = self.logs.join(name).join(format!("{}.log", container.name));
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let said = line.rsplit(' ').next().unwrap();
            assert_eq!(
                said,
                number.to_string(),
                "line {number} of {}",
                path.display()
            );
        }
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

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
