//! Requests beside the usual life of a container: one that fails when half of it is done, two that
//! meet each other, and one that changes the record of a pod alone.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;
use tonic::Code;

use crate::client::{Answer, Client, is_lost};
use crate::model::{Container, Kind, Pod};

/// Two containers of one name.
const TWINS: (Kind, Kind) = (Kind::Writer, Kind::Ender { code: 5, after: 50 });

impl Client {
    /// A container that cannot be made: its image has no such user. Nothing of it stays.
    pub(crate) fn create_wrong(&mut self, pod: usize, name: &str) -> Answer {
        let Pod { id, config, .. } = &self.pods[pod];
        let mut container = configs::shell(name, "true");
        "nobody-here".clone_into(&mut configs::security(&mut container).run_as_username);
        match self.cri.create(id, config, &container) {
            Err(status) if is_lost(&status) => Err(status),
            Err(_) => Ok(()),
            Ok(id) => panic!("{id} has a user who is not there"),
        }
    }

    /// Two containers of one name at once: of the two that are asked for, one is made, and the other
    /// one gives way or is refused.
    pub(crate) fn create_twice(&mut self, pod: usize, name: &str) -> Answer {
        let Pod { id, config, .. } = &self.pods[pod];
        let (first, second) = TWINS;
        let (cri, beside) = (&mut self.cri, &mut self.beside);
        let answers = std::thread::scope(|scope| {
            let second = scope.spawn(|| beside.create(id, config, &second.config(name, config)));
            let first = cri.create(id, config, &first.config(name, config));
            [first, second.join().unwrap()]
        });
        let mut made = Vec::new();
        for (answer, kind) in answers.into_iter().zip([first, second]) {
            match answer {
                Ok(id) => made.push(Container::new(id, name, kind)),
                Err(status) if is_lost(&status) => return Err(status),
                Err(status) => {
                    let expected = [Code::AlreadyExists, Code::Unavailable];
                    assert!(expected.contains(&status.code()), "{name}: {status:?}");
                }
            }
        }
        assert_eq!(made.len(), 1, "of two, one is made: {made:?}");
        self.pods[pod].containers.append(&mut made);
        Ok(())
    }

    /// After two at once that were not answered.
    pub(crate) fn create_either(&mut self, pod: usize, name: &str) -> Answer {
        let (first, second) = TWINS;
        match self.create(pod, name, first) {
            Err(status) if status.code() == Code::AlreadyExists => self.create(pod, name, second),
            other => other,
        }
    }

    /// The totals of a pod change, which only its record tells.
    pub(crate) fn update_pod(&mut self, pod: usize) -> Answer {
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: self.pods[pod].id.clone(),
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: 100,
                ..Default::default()
            }),
            ..Default::default()
        };
        self.cri.update_pod_sandbox_resources(request).map(drop)
    }
}
