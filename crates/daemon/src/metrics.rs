//! The daemon's figures as families with names and words: the one table of all that stands on the
//! metrics page but the calls, which the doors record.

use std::net::SocketAddr;
use std::sync::Weak;

use crisp_node::Engine;
use crisp_streaming::{Server as Streaming, Sessions};
use crisp_telemetry::metrics::{self, Bound, Figure, Kind, Operations, Server, Unit};

use crate::exit::{Exit, Fatal};
use crate::process_figures;

/// The metrics before the engine is there: an address that is taken is told at once, and has
/// changed nothing. Empty where none are wanted.
#[derive(Debug)]
pub struct Begun(Option<Bound>);

/// Takes the address, if one is configured.
///
/// # Errors
/// When it cannot be had, with the key to set.
pub async fn begin(listen: Option<SocketAddr>) -> Result<Begun, Fatal> {
    let Some(listen) = listen else {
        return Ok(Begun(None));
    };
    let bound = metrics::bind(listen).await.map_err(|error| {
        Fatal::new(
            Exit::CannotCreate,
            format!(
                "cannot listen on {listen} for metrics: {error}: set metrics.listen to an address \
                 of this node that is free"
            ),
        )
    })?;
    Ok(Begun(Some(bound)))
}

impl Begun {
    /// Serves the figures from now on, and gives the record for the doors' calls.
    pub fn serve(
        self,
        engine: &Engine,
        streaming: Weak<Streaming>,
    ) -> (Operations, Option<Server>) {
        let Some(bound) = self.0 else {
            return (Operations::default(), None);
        };
        let operations = Operations::recorded();
        let engine = engine.clone();
        let server = bound.serve(&operations, move || {
            // The streaming server ends first.
            let sessions = streaming.upgrade().map(|server| server.sessions());
            all(&engine, &sessions.unwrap_or_default())
        });
        tracing::info!(address = %server.address(), "metrics are served");
        (operations, Some(server))
    }
}

/// Every family, as of now. Reads files of `/proc`.
fn all(engine: &Engine, sessions: &Sessions) -> Vec<Figure> {
    let mut figures = vec![build()];
    figures.extend(readiness(engine));
    let of = engine.figures();
    figures.extend(of_engine(&of).into_iter().chain(of_troubles(&of)));
    figures.extend(of_images(&engine.images().figures()));
    figures.extend(of_sessions(sessions));
    figures.extend(process_figures::all());
    figures
}

fn build() -> Figure {
    Figure::new(
        Kind::Gauge,
        "crisp_build_info",
        "Always 1, for the version in its label",
    )
    .with(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64)
}

fn readiness(engine: &Engine) -> [Figure; 1] {
    let runtime = engine.is_ready() && engine.unfit().is_none();
    let network = engine.network_status().ready;
    let help = "Whether the condition holds that the node's status shows, 1 or 0";
    [Figure::new(Kind::Gauge, "crisp_ready", help)
        .with(&[("condition", "runtime")], u64::from(runtime))
        .with(&[("condition", "network")], u64::from(network))]
}

fn of_engine(engine: &crisp_node::Figures) -> Vec<Figure> {
    let (pods, containers) = (&engine.pods, &engine.containers);
    let gauge = |name, help| Figure::new(Kind::Gauge, name, help);
    vec![
        gauge(
            "crisp_pods",
            "Pods by state; those that boot are not among them",
        )
        .with(&[("state", "ready")], pods.ready)
        .with(&[("state", "stopping")], pods.stopping)
        .with(&[("state", "not_ready")], pods.not_ready),
        gauge("crisp_containers", "Containers by state")
            .with(&[("state", "created")], containers.created)
            .with(&[("state", "running")], containers.running)
            .with(&[("state", "stopping")], containers.stopping)
            .with(&[("state", "exited")], containers.exited),
        gauge(
            "crisp_shims",
            "Shims of containers that the daemon is connected to",
        )
        .plain(engine.shims),
        gauge(
            "crisp_spare_shims",
            "Shims that are loaded and wait for a container to start",
        )
        .plain(engine.spare_shims),
        gauge(
            "crisp_event_listeners",
            "Clients of the stream of events, and connections of \
             port-forward, which listen for the end of their pod",
        )
        .plain(engine.listeners),
    ]
}

/// Faults that were mended, or are still to be.
fn of_troubles(engine: &crisp_node::Figures) -> Vec<Figure> {
    let gauge = |name, help| Figure::new(Kind::Gauge, name, help);
    let counter = |name, help| Figure::new(Kind::Counter, name, help);
    vec![
        counter(
            "crisp_shims_replaced",
            "Shims that were killed and in whose place another went on",
        )
        .plain(engine.shims_replaced),
        gauge(
            "crisp_recovered_pods",
            "Pods that the daemon found in its records when it started",
        )
        .plain(engine.pods_recovered),
        counter(
            "crisp_pod_task_failures",
            "Faults of the daemon in the work for one pod, after which \
             it was resumed from its record",
        )
        .plain(engine.failed_tasks),
        gauge(
            "crisp_debts",
            "Remains that could not be removed yet and are tried again, by kind; \
             crictl info names each",
        )
        .with(&[("kind", "cgroup")], engine.owed_cgroups)
        .with(&[("kind", "creation")], engine.owed_remains)
        .with(&[("kind", "network")], engine.owed_detachments),
        gauge(
            "crisp_stuck_looks",
            "Looks at paths of the node's file systems that do not come back",
        )
        .plain(engine.stuck_looks),
    ]
}

fn of_images(images: &crisp_image::Figures) -> Vec<Figure> {
    let gauge = |name, help| Figure::new(Kind::Gauge, name, help);
    let counter = |name, help| Figure::new(Kind::Counter, name, help);
    vec![
        gauge("crisp_images", "Images on this node").plain(images.images),
        gauge(
            "crisp_image_layers",
            "Unpacked layers of images and containers",
        )
        .plain(images.layers),
        gauge(
            "crisp_image_disk",
            "Disk space of layers and documents of images",
        )
        .in_unit(Unit::Bytes)
        .plain(images.disk_bytes),
        gauge(
            "crisp_pulls_running",
            "Pulls under way; callers that ask for the same share one",
        )
        .plain(images.pulls_running),
        counter(
            "crisp_pulls",
            "Pulls that ended, by outcome; one whose image was here already is done",
        )
        .with(&[("outcome", "done")], images.pulls_done)
        .with(&[("outcome", "failed")], images.pulls_failed),
        counter(
            "crisp_pull_received",
            "Layers as registries sent them, those of failed pulls too",
        )
        .in_unit(Unit::Bytes)
        .plain(images.received_bytes),
        counter(
            "crisp_layers_unpacked",
            "Layers that were fetched and unpacked",
        )
        .plain(images.layers_unpacked),
        counter(
            "crisp_image_collections",
            "Runs of the image collection, which removes layers and \
             documents that nothing needs",
        )
        .plain(images.collections),
        counter(
            "crisp_layers_collected",
            "Layers that the image collection has removed",
        )
        .plain(images.layers_removed),
        counter(
            "crisp_image_collected",
            "Disk space of what the image collection has removed",
        )
        .in_unit(Unit::Bytes)
        .plain(images.freed_bytes),
    ]
}

fn of_sessions(sessions: &Sessions) -> [Figure; 2] {
    let by_kind = |figure: Figure, of: &crisp_streaming::ByKind| {
        figure
            .with(&[("kind", "exec")], of.exec)
            .with(&[("kind", "attach")], of.attach)
            .with(&[("kind", "port_forward")], of.port_forward)
    };
    let running = "Sessions of streaming clients that are connected, by kind";
    let begun = "Sessions of streaming clients that have begun, by kind";
    [
        by_kind(
            Figure::new(Kind::Gauge, "crisp_sessions_running", running),
            &sessions.running,
        ),
        by_kind(
            Figure::new(Kind::Counter, "crisp_sessions", begun),
            &sessions.begun,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_says_which_key_to_set() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refused = begin(Some(address)).await.unwrap_err();
        assert_eq!(refused.exit, Exit::CannotCreate);
        let text = refused.reason;
        assert!(
            text.contains(&address.to_string()) && text.contains("metrics.listen"),
            "{text}"
        );
        assert!(begin(None).await.unwrap().0.is_none());
    }
}
