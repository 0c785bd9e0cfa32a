//! Calls about containers.

use std::sync::Arc;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_model::ContainerId;
use crisp_node::{ContainerView, ExecOutput, PodView};
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri::check::{each, no_nul, number, required};
use crate::from_cri::filter::ContainerFilter;
use crate::from_cri::{self, Refusal, container_config, resources};
use crate::to_cri::{container, info};

/// Timeouts are cut to a year, far beyond any use and within the range of clocks.
const LONGEST: i64 = 365 * 24 * 3600;

/// Output of ExecSync is cut to this size: it leaves room for the rest of a 16 MiB message.
const MOST_OUTPUT: usize = (16 << 20) - 4096;

fn seconds(at: &str, value: i64) -> Result<Duration, Refusal> {
    let value = number::<u64>(at, value.min(LONGEST), 0..=LONGEST)?;
    Ok(Duration::from_secs(value))
}

impl Service {
    pub(super) async fn create(
        &self,
        request: cri::CreateContainerRequest,
    ) -> Result<cri::CreateContainerResponse, Status> {
        let pod = self
            .engine
            .pod(&request.pod_sandbox_id)
            .map_err(answer::engine)?;
        let find = |name: &str| target(&pod, name);
        let config = container_config(request.config, &pod.config, find)?;
        let create = self.engine.create_container(pod.id.as_str(), config);
        let id = create.await.map_err(answer::engine)?;
        Ok(cri::CreateContainerResponse {
            container_id: id.to_string(),
        })
    }

    pub(super) async fn start(&self, id: &str) -> Result<cri::StartContainerResponse, Status> {
        self.engine
            .start_container(id)
            .await
            .map_err(answer::engine)?;
        Ok(cri::StartContainerResponse::default())
    }

    /// Success for a container that is not there, as CRI has it.
    pub(super) async fn stop(
        &self,
        request: &cri::StopContainerRequest,
    ) -> Result<cri::StopContainerResponse, Status> {
        let grace = seconds("timeout", request.timeout)?;
        match self
            .engine
            .stop_container(&request.container_id, grace)
            .await
        {
            Ok(()) | Err(crisp_node::Error::NotFound { .. }) => {
                Ok(cri::StopContainerResponse::default())
            }
            Err(error) => Err(answer::engine(error)),
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<cri::RemoveContainerResponse, Status> {
        self.engine
            .remove_container(id)
            .await
            .map_err(answer::engine)?;
        Ok(cri::RemoveContainerResponse::default())
    }

    pub(super) fn list_containers(
        &self,
        request: cri::ListContainersRequest,
    ) -> Result<cri::ListContainersResponse, Status> {
        let containers = self.select_containers(&ContainerFilter::of_list(request.filter)?);
        Ok(cri::ListContainersResponse {
            containers: containers.iter().map(|c| container::item(c)).collect(),
        })
    }

    /// The containers that a filter takes.
    pub(super) fn select_containers(&self, filter: &ContainerFilter) -> Vec<Arc<ContainerView>> {
        let mut containers = self.engine.containers();
        containers.retain(|view| filter.takes(view));
        containers
    }

    pub(super) async fn container_status(
        &self,
        request: &cri::ContainerStatusRequest,
    ) -> Result<cri::ContainerStatusResponse, Status> {
        let view = self
            .engine
            .container(&request.container_id)
            .map_err(answer::engine)?;
        let mut response = cri::ContainerStatusResponse {
            status: Some(container::status(&view)),
            ..cri::ContainerStatusResponse::default()
        };
        if request.verbose {
            // A container that was removed just now has no spec.
            let spec = self.engine.spec(view.id.as_str()).await.unwrap_or_default();
            response.info = info::container(&view, &spec);
        }
        Ok(response)
    }

    pub(super) async fn update_container(
        &self,
        request: cri::UpdateContainerResourcesRequest,
    ) -> Result<cri::UpdateContainerResourcesResponse, Status> {
        if request.windows.is_some() {
            from_cri::invalid("windows", "this node runs Linux")?;
        }
        let limits = resources::resources("linux", required("linux", request.linux)?)?;
        let update = self.engine.update_resources(&request.container_id, limits);
        update.await.map_err(answer::engine)?;
        Ok(cri::UpdateContainerResourcesResponse::default())
    }

    pub(super) async fn reopen_log(
        &self,
        id: &str,
    ) -> Result<cri::ReopenContainerLogResponse, Status> {
        self.engine.reopen_log(id).await.map_err(answer::engine)?;
        Ok(cri::ReopenContainerLogResponse::default())
    }

    pub(super) async fn exec_sync(
        &self,
        request: cri::ExecSyncRequest,
    ) -> Result<cri::ExecSyncResponse, Status> {
        let timeout = seconds("timeout", request.timeout)?;
        let command = each("cmd", request.cmd, no_nul)?;
        if command.is_empty() {
            from_cri::invalid("cmd", "is empty")?;
        }
        let timeout = (!timeout.is_zero()).then_some(timeout);
        let exec = self
            .engine
            .exec_sync(&request.container_id, command, timeout);
        Ok(fitting(exec.await.map_err(answer::engine)?))
    }
}

/// Cuts the output to the size of a message; of two long streams the longer one is cut first.
fn fitting(mut output: ExecOutput) -> cri::ExecSyncResponse {
    let too_much = (output.stdout.len() + output.stderr.len()).saturating_sub(MOST_OUTPUT);
    if too_much > 0 {
        let half = MOST_OUTPUT / 2;
        let short = output.stdout.len().min(output.stderr.len()).min(half);
        output
            .stdout
            .truncate(MOST_OUTPUT - short.min(output.stderr.len()));
        output.stderr.truncate(MOST_OUTPUT - output.stdout.len());
    }
    cri::ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.code,
    }
}

/// The container of this pod that a caller means by an id or its beginning.
fn target(pod: &PodView, name: &str) -> Result<ContainerId, Refusal> {
    const AT: &str = "config.linux.security_context.namespace_options.target_id";
    let mut found = pod
        .containers
        .iter()
        .filter(|c| c.id.as_str().starts_with(name));
    match (found.next(), found.next()) {
        (Some(container), None) => Ok(container.id.clone()),
        (None, _) => from_cri::invalid(AT, format!("{name:?} is no container of the pod")),
        (Some(_), Some(_)) => from_cri::invalid(AT, format!("{name:?} is ambiguous")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_fits_into_a_message() {
        let full = 16 << 20;
        let cases = [
            (full, 0, MOST_OUTPUT, 0),
            (0, full, 0, MOST_OUTPUT),
            (full, full, MOST_OUTPUT - MOST_OUTPUT / 2, MOST_OUTPUT / 2),
            (full, 10, MOST_OUTPUT - 10, 10),
            (10, full, 10, MOST_OUTPUT - 10),
            (10, 20, 10, 20),
        ];
        for (stdout, stderr, out, err) in cases {
            let output = ExecOutput {
                stdout: vec![0; stdout],
                stderr: vec![0; stderr],
                code: 3,
            };
            let response = fitting(output);
            let got = (
                response.stdout.len(),
                response.stderr.len(),
                response.exit_code,
            );
            assert_eq!(got, (out, err, 3), "{stdout} {stderr}");
        }
    }

    #[test]
    fn seconds_are_bounded() {
        assert!(seconds("timeout", -1).is_err() && seconds("timeout", i64::MIN).is_err());
        assert_eq!(seconds("timeout", 0), Ok(Duration::ZERO));
        assert_eq!(
            seconds("timeout", i64::MAX),
            Ok(Duration::from_secs(31_536_000))
        );
    }
}
