//! Calls about the runtime itself: version, conditions, handlers, settings.

use std::collections::BTreeMap;

use crisp_api::runtime::v1 as cri;
use crisp_cgroups::CgroupDriver;
use crisp_cni::PodCidr;
use crisp_node::Support;
use serde_json::json;
use tonic::{Code, Status};

use super::Service;
use crate::answer;
use crate::from_cri::check::required;
use crate::from_cri::invalid;

/// The version of the kubelet's side of CRI, which never moved.
const KUBE_API: &str = "0.1.0";

pub(super) fn version() -> cri::VersionResponse {
    cri::VersionResponse {
        version: KUBE_API.to_owned(),
        runtime_name: "crisp".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

/// A condition that holds unless something speaks against it.
fn condition(kind: &str, reason: &str, against: Option<&str>) -> cri::RuntimeCondition {
    let told = |text: &str| against.map(|_| text.to_owned()).unwrap_or_default();
    cri::RuntimeCondition {
        r#type: kind.to_owned(),
        status: against.is_none(),
        reason: told(reason),
        message: told(against.unwrap_or_default()),
    }
}

impl Service {
    pub(super) fn status(&self, is_verbose: bool) -> cri::StatusResponse {
        let handlers = self.engine.handlers();
        let has_users = handlers.iter().any(|h| h.user_namespaces == Support::Yes);
        let handlers = handlers.into_iter().map(|features| cri::RuntimeHandler {
            name: features.handler,
            features: Some(cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: features.recursive_read_only == Support::Yes,
                user_namespaces: features.user_namespaces == Support::Yes,
            }),
        });
        cri::StatusResponse {
            status: Some(cri::RuntimeStatus {
                conditions: self.conditions(),
            }),
            info: if is_verbose {
                self.info()
            } else {
                BTreeMap::new()
            },
            runtime_handlers: handlers.collect(),
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: has_users,
                mount_options: true,
            }),
        }
    }

    fn conditions(&self) -> Vec<cri::RuntimeCondition> {
        let network = self.engine.network_status();
        let runtime = self.runtime_condition();
        let network = cri::RuntimeCondition {
            r#type: "NetworkReady".to_owned(),
            status: network.ready,
            reason: network.reason,
            message: network.message,
        };
        // Beside the two that callers wait for, and only where there is something to tell.
        let apparmor = self.engine.apparmor_shortfall();
        let apparmor = apparmor
            .map(|short| condition("AppArmorDefaultReady", "NoDefaultProfile", Some(&short)));
        let handlers = self.engine.handlers_shortfall();
        let handlers = handlers
            .map(|short| condition("RuntimeHandlersReady", "ProgramsUnusable", Some(&short)));
        let further = apparmor.into_iter().chain(handlers);
        [runtime, network].into_iter().chain(further).collect()
    }

    /// The socket is served only after the engine has started: what can be wrong is that it hangs.
    fn runtime_condition(&self) -> cri::RuntimeCondition {
        const HANGS: &str = "no thread of the daemon is free: is a file system of this node stuck?";
        let default = self.engine.default_shortfall();
        let (reason, why) = match (self.engine.is_ready(), &default) {
            (false, _) => ("ThreadsDoNotAnswer", Some(HANGS)),
            (true, Some(why)) => ("DefaultHandlerUnusable", Some(why.as_str())),
            (true, None) => ("SelinuxEnforces", self.engine.unfit()),
        };
        condition("RuntimeReady", reason, why)
    }

    fn info(&self) -> BTreeMap<String, String> {
        let network = self.engine.network_status();
        let last_load = if network.ready {
            "OK".to_owned()
        } else {
            network.message
        };
        let owed = self.engine.owed_cgroups().into_iter().map(
            |owed| json!({"path": owed.path, "why": owed.why, "seconds": owed.since.as_secs()}),
        );
        let owed = serde_json::Value::from_iter(owed);
        let remains = self.engine.owed_remains().into_iter().map(|owed| {
            let container = owed.container.map(|id| id.to_string());
            json!({"pod": owed.pod.to_string(), "container": container, "why": owed.why,
                "seconds": owed.since.as_secs()})
        });
        let remains = serde_json::Value::from_iter(remains);
        let detachments = self.engine.owed_detachments().into_iter().map(|owed| {
            json!({"pod": owed.pod.to_string(), "why": owed.why, "seconds": owed.since.as_secs()})
        });
        let detachments = serde_json::Value::from_iter(detachments);
        let stuck = self.engine.stuck_looks().into_iter();
        let stuck = stuck.map(|(at, since)| json!({"at": at, "seconds": since.as_secs()}));
        let stuck = serde_json::Value::from_iter(stuck);
        BTreeMap::from([
            ("owedDetachments".to_owned(), detachments.to_string()),
            ("owedRemains".to_owned(), remains.to_string()),
            ("stuckLooks".to_owned(), stuck.to_string()),
            ("owedCgroups".to_owned(), owed.to_string()),
            ("config".to_owned(), self.about.config.to_string()),
            ("kernel".to_owned(), self.about.kernel.to_string()),
            ("lastCNILoadStatus".to_owned(), json!(last_load).to_string()),
        ])
    }

    pub(super) fn runtime_config(&self) -> cri::RuntimeConfigResponse {
        let driver = match self.engine.cgroup_driver() {
            CgroupDriver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
            CgroupDriver::Systemd => cri::CgroupDriver::Systemd,
        };
        cri::RuntimeConfigResponse {
            linux: Some(cri::LinuxRuntimeConfiguration {
                cgroup_driver: driver.into(),
            }),
        }
    }
}

impl Service {
    /// Takes the node's pod CIDR where it says which addresses pods get. CNI plugins have it in
    /// their own configuration.
    pub(super) async fn update_runtime_config(
        &self,
        request: cri::UpdateRuntimeConfigRequest,
    ) -> Result<cri::UpdateRuntimeConfigResponse, Status> {
        let cidr = pod_cidr(request)?;
        if cidr.is_empty() {
            return Ok(cri::UpdateRuntimeConfigResponse::default());
        }
        let pod_cidr = cidr.join(",");
        match self.engine.take_pod_cidr(cidr).await {
            Ok(PodCidr::InForce) => {
                tracing::info!(pod_cidr, "pods get their addresses of the pod CIDR")
            }
            Ok(PodCidr::Configured) => tracing::info!(
                pod_cidr,
                "the pod CIDR changes nothing: addresses come from the CNI configuration, or from \
                 network.builtin.subnets"
            ),
            Ok(PodCidr::InUse) => tracing::warn!(
                pod_cidr,
                "the pod CIDR is taken later, since pods have addresses of other subnets: once they are \
                 removed, as by draining the node"
            ),
            Err(error) => {
                tracing::warn!(pod_cidr, %error, "the pod CIDR is not taken");
                let status = answer::engine(error);
                // It is tried again here. Of anything else the kubelet has to know, which tells a pod
                // CIDR again until a runtime has taken it.
                if status.code() != Code::Unavailable {
                    return Err(status);
                }
            }
        }
        Ok(cri::UpdateRuntimeConfigResponse::default())
    }
}

/// The networks of the pod CIDR, one of each family at most.
fn pod_cidr(request: cri::UpdateRuntimeConfigRequest) -> Result<Vec<String>, Status> {
    const AT: &str = "runtime_config.network_config.pod_cidr";
    let config = required("runtime_config", request.runtime_config)?;
    let cidr = config.network_config.unwrap_or_default().pod_cidr;
    let networks = cidr.split(',').filter(|network| !network.is_empty());
    let networks: Vec<String> = networks.map(str::to_owned).collect();
    let wrong = |network: &&String| network.parse::<ipnet::IpNet>().is_err();
    if let Some(wrong) = networks.iter().find(wrong) {
        invalid(AT, format!("{wrong:?} is not a network like 10.88.0.0/16"))?;
    }
    let of_v6 = networks
        .iter()
        .filter(|network| network.contains(':'))
        .count();
    if of_v6 > 1 || networks.len() - of_v6 > 1 {
        invalid(AT, format!("{cidr:?} has two networks of one family"))?;
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_cidr_has_one_network_of_each_family() {
        let asked = |cidr: &str| cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig {
                network_config: Some(cri::NetworkConfig {
                    pod_cidr: cidr.to_owned(),
                }),
            }),
        };
        let both = pod_cidr(asked("10.96.0.0/24,fd00::/64")).unwrap();
        assert_eq!(both, ["10.96.0.0/24", "fd00::/64"]);
        assert_eq!(pod_cidr(asked("")).unwrap(), [""; 0]);
        for twice in [
            "10.96.0.0/24,10.95.0.0/24",
            "fd00::/64,fd01::/64",
            "10.96.0.0",
        ] {
            let refused = pod_cidr(asked(twice)).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{twice}");
        }
    }

    #[test]
    fn a_condition_says_why_it_does_not_hold() {
        let holds = condition("RuntimeReady", "Reason", None);
        assert!(holds.status && holds.reason.is_empty() && holds.message.is_empty());
        let not = condition("RuntimeReady", "Reason", Some("why"));
        assert_eq!(
            (not.status, &*not.reason, &*not.message),
            (false, "Reason", "why")
        );
    }
}
