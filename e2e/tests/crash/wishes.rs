//! A client's choice of what to ask for next: by chance, or what leads to the effect at which the
//! daemon is to die.

use std::fs;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;

use crate::client::{CGROUP, Client};
use crate::model::{Container, Fire, Kind, Stage, Wish};

/// Pods that a client has at most, and containers in each.
const PODS: usize = 2;
const CONTAINERS: usize = 3;

impl Client {
    pub(crate) fn next_wish(&mut self) -> Wish {
        if let Some(effect) = self.favoured
            && self.random.one_in(2)
            && let Some(wish) = self.wish_for(effect)
        {
            return wish;
        }
        if self.pods.is_empty() || (self.pods.len() < PODS && self.random.one_in(3)) {
            let fire = self.fire(self.plugins, 4, 40);
            return Wish::RunPod(Box::new(self.new_pod()), fire);
        }
        let pod = self.random.index(self.pods.len());
        let count = self.pods[pod].containers.len();
        let dice = self.random.below(24);
        if !self.pods[pod].is_ready && dice < 4 && self.pods.len() < PODS {
            return self.again(pod);
        }
        if !self.pods[pod].is_ready || dice == 0 {
            return Wish::RemovePod(pod);
        }
        match dice {
            1 => return Wish::StopPod(pod, self.fire(self.plugins, 2, 40)),
            2 if self.pods[pod].shares_pid() => return Wish::KillHolder(pod),
            2 => return Wish::UpdatePod(pod),
            3 => return self.wrong(pod),
            4 if count < CONTAINERS => return self.twice(pod),
            _ => {}
        }
        if count == 0 || (count < CONTAINERS && dice < 9) {
            self.serial += 1;
            let kind = self.new_kind();
            return Wish::Create(pod, format!("c{}", self.serial), kind);
        }
        let one = self.random.index(count);
        match (self.pods[pod].containers[one].stage, dice) {
            (Stage::Created, _) => Wish::Start(pod, one, self.fire(true, 12, 15)),
            (Stage::Stopped, _) | (_, 9..=10) => Wish::Remove(pod, one),
            (Stage::Started(_), 11..=14) => Wish::Stop(pod, one),
            (Stage::Started(_), 15) => Wish::KillShim(pod, one),
            (Stage::Started(_), 16) => Wish::Update(pod, one),
            (Stage::Started(_), 17) => Wish::ReopenLog(pod, one),
            (Stage::Started(_), 18) => Wish::Session(pod, one),
            (Stage::Started(_), _) => Wish::Exec(pod, one),
        }
    }

    /// In one of some cases, a kill within some milliseconds.
    fn fire(&mut self, may: bool, one_in: u64, within: u64) -> Fire {
        if may && self.random.one_in(one_in) {
            return Fire::After(self.random.below(within));
        }
        Fire::None
    }

    fn new_kind(&mut self) -> Kind {
        let code = i32::try_from(self.random.below(100)).unwrap();
        match self.random.below(4) {
            0 => Kind::Writer,
            1 => Kind::Trapper { code },
            _ => Kind::Ender {
                code,
                after: self.random.below(200),
            },
        }
    }

    fn new_pod(&mut self) -> cri::PodSandboxConfig {
        self.serial += 1;
        let name = format!("crash-{}-{}", self.number, self.serial);
        let logs = self.logs.join(&name);
        fs::create_dir_all(logs.join("marks")).unwrap();
        let mut pod = cri::PodSandboxConfig {
            log_directory: logs.to_str().unwrap().to_owned(),
            ..configs::pod(&name)
        };
        pod.linux.as_mut().unwrap().cgroup_parent = format!("/{CGROUP}/{name}");
        if self.random.one_in(4) {
            configs::namespaces(&mut pod).pid = cri::NamespaceMode::Pod.into();
        }
        if self.random.one_in(3) {
            let port = 20_000 + self.number * 5_000 + self.serial;
            let port = i32::try_from(port).unwrap();
            pod.port_mappings = vec![configs::port(cri::Protocol::Tcp, port, 80)];
        }
        pod
    }

    /// Something that leads to an effect which the usual course of lives rarely has.
    fn wish_for(&mut self, effect: &str) -> Option<Wish> {
        let ready: Vec<usize> = (0..self.pods.len())
            .filter(|pod| self.pods[*pod].is_ready)
            .collect();
        if effect == "bounce" {
            // Asked for again, a pod that is ready is answered as it is: that is no other one.
            let lives = |name| self.ready_pods().any(|pod| pod.name() == name);
            let mut pods = self.pods.iter();
            let over = pods.position(|pod| !pod.is_ready && !lives(pod.name()));
            return match over.filter(|_| self.pods.len() <= PODS) {
                Some(pod) => Some(self.again(pod)),
                None => ready.first().map(|pod| Wish::StopPod(*pod, Fire::None)),
            };
        }
        if ready.is_empty() {
            return None;
        }
        let pod = ready[self.random.index(ready.len())];
        let containers = &self.pods[pod].containers;
        let is_started = |stage| matches!(stage, Stage::Started(_));
        let started = containers.iter().rposition(|one| is_started(one.stage));
        match effect {
            "commit-update" => Some(Wish::UpdatePod(pod)),
            "unmake" | "owe" => Some(self.wrong(pod)),
            "cancel" if containers.len() < CONTAINERS => Some(self.twice(pod)),
            "update" => started.map(|one| Wish::Update(pod, one)),
            "exec" => started.map(|one| Wish::Exec(pod, one)),
            "session" | "close-input" => {
                let writes = |one: &&Container| one.kind == Kind::Writer && is_started(one.stage);
                let writer = containers.iter().rfind(writes)?;
                let one = containers.iter().position(|c| c.id == writer.id)?;
                Some(Wish::Session(pod, one))
            }
            "reopen-log" => started.map(|one| Wish::ReopenLog(pod, one)),
            "judge" | "watch-alone" => started.map(|one| Wish::KillShim(pod, one)),
            _ => None,
        }
    }

    /// The name of a pod that is over, for another one.
    fn again(&self, pod: usize) -> Wish {
        Wish::RunPod(Box::new(self.pods[pod].config.clone()), Fire::None)
    }

    fn wrong(&mut self, pod: usize) -> Wish {
        self.serial += 1;
        Wish::CreateWrong(pod, format!("w{}", self.serial))
    }

    fn twice(&mut self, pod: usize) -> Wish {
        self.serial += 1;
        Wish::CreateTwice(pod, format!("c{}", self.serial))
    }
}
