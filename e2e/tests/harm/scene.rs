//! A pod with a container of each kind, and what is seen of it: what a harmed file may cost is told
//! by comparing two sights.

use std::collections::BTreeMap;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs};

/// The exit code of the container that is over.
const CODE: i32 = 7;

/// A pod, by what was answered when it was made.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) pod: String,
    pub(crate) running: String,
    pub(crate) over: String,
    pub(crate) created: String,
}

/// The things that are seen of a scene.
pub(crate) type Sight = BTreeMap<&'static str, String>;

impl Scene {
    pub(crate) fn new(node: &Node, name: &str, port: i32) -> Self {
        let mut cri = node.cri();
        let mut config = node.pod(name);
        config.port_mappings = vec![configs::port(cri::Protocol::Tcp, port, 80)];
        let pod = cri.run_pod(&config);
        let running = cri.run(&pod, &config, &configs::idle("running"));
        let over = configs::shell("over", &format!("exit {CODE}"));
        let over = cri.run(&pod, &config, &over);
        cri.wait_exit(&over);
        let created = configs::idle("created");
        let created = cri.create(&pod, &config, &created).unwrap();
        Self {
            pod,
            running,
            over,
            created,
        }
    }

    /// Ids of all that is in it.
    pub(crate) fn ids(&self) -> [&str; 4] {
        [&self.pod, &self.running, &self.over, &self.created]
    }

    /// The host pid of what runs.
    pub(crate) fn pid(&self, cri: &mut Cri) -> i32 {
        let request = cri::ContainerStatusRequest {
            container_id: self.running.clone(),
            verbose: true,
        };
        let info = cri.container_status(request).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
    }

    /// Looks at all of it; what cannot be seen is an error's code.
    pub(crate) fn look(&self, cri: &mut Cri) -> Sight {
        let mut sight = Sight::new();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: self.pod.clone(),
            verbose: false,
        };
        let pod = cri.pod_sandbox_status(request);
        let pod = pod.map(|reply| reply.status.unwrap());
        let (state, address) = match pod {
            Ok(pod) => (
                pod.state().as_str_name().to_owned(),
                pod.network.unwrap_or_default().ip,
            ),
            Err(status) => (format!("{:?}", status.code()), String::new()),
        };
        sight.insert("pod", state);
        sight.insert("address", address);
        for (name, id) in [
            ("running", &self.running),
            ("over", &self.over),
            ("created", &self.created),
        ] {
            sight.insert(name, state_of(cri, id));
        }
        let said = cri.execute(&self.running, &["echo", "said"]);
        let said = said.map(|reply| String::from_utf8_lossy(&reply.stdout).into_owned());
        let said = said.unwrap_or_else(|status| format!("{:?}", status.code()));
        sight.insert("exec", said);
        sight
    }
}

fn state_of(cri: &mut Cri, id: &str) -> String {
    let request = cri::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    match cri.container_status(request) {
        Ok(reply) => {
            let status = reply.status.unwrap();
            let info: serde_json::Value = serde_json::from_str(&reply.info["info"]).unwrap();
            let pid = &info["pid"];
            format!(
                "{} {} pid {pid}",
                status.state().as_str_name(),
                status.exit_code
            )
        }
        Err(status) => format!("{:?}", status.code()),
    }
}
