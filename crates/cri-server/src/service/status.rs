//! Calls about the runtime itself: version, conditions, handlers, settings.

use std::collections::BTreeMap;

use crisp_api::runtime::v1 as cri;
use crisp_cgroups::CgroupDriver;
use crisp_node::Support;
use serde_json::json;
use tonic::Status;

use super::Service;
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

impl Service {
    pub(super) fn status(&self, is_verbose: bool) -> cri::StatusResponse {
        let handlers = self
            .engine
            .handlers()
            .into_iter()
            .map(|handler| cri::RuntimeHandler {
                name: handler.name,
                features: Some(cri::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: handler.recursive_read_only == Support::Yes,
                    user_namespaces: handler.user_namespaces == Support::Yes,
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
                user_namespaces_host_network: false,
                mount_options: true,
            }),
        }
    }

    fn conditions(&self) -> Vec<cri::RuntimeCondition> {
        let network = self.engine.network_status();
        vec![
            // The socket is served only after the engine has started.
            cri::RuntimeCondition {
                r#type: "RuntimeReady".to_owned(),
                status: true,
                reason: String::new(),
                message: String::new(),
            },
            cri::RuntimeCondition {
                r#type: "NetworkReady".to_owned(),
                status: network.ready,
                reason: network.reason,
                message: network.message,
            },
        ]
    }

    fn info(&self) -> BTreeMap<String, String> {
        let network = self.engine.network_status();
        let last_load = if network.ready {
            "OK".to_owned()
        } else {
            network.message
        };
        BTreeMap::from([
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

/// Takes note of the node's pod CIDR. CNI plugins have it in their own configuration, and the
/// built-in network in Crisp's.
pub(super) fn update_runtime_config(
    request: cri::UpdateRuntimeConfigRequest,
) -> Result<cri::UpdateRuntimeConfigResponse, Status> {
    const AT: &str = "runtime_config.network_config.pod_cidr";
    let config = required("runtime_config", request.runtime_config)?;
    let cidr = config.network_config.unwrap_or_default().pod_cidr;
    if cidr.is_empty() {
        return Ok(cri::UpdateRuntimeConfigResponse::default());
    }
    if let Some(wrong) = cidr
        .split(',')
        .find(|one| one.parse::<ipnet::IpNet>().is_err())
    {
        invalid(AT, format!("{wrong:?} is not a network like 10.88.0.0/16"))?;
    }
    tracing::info!(
        pod_cidr = cidr,
        "the pod CIDR changes nothing: addresses come from the CNI configuration, or from \
         network.builtin.subnets"
    );
    Ok(cri::UpdateRuntimeConfigResponse::default())
}
