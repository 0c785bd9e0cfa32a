//! Traces: a call that comes with a `traceparent` is seen at the collector as part of its caller's
//! trace, and so is the work that it causes. The collector is one of the test's own; it is not
//! there when the daemon starts.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crisp_e2e::netns::Net;
use crisp_e2e::{Options, configs, trial_with};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Where the collector listens, in the node's network namespace.
const ADDRESS: &str = "127.0.0.1:4317";
/// A batch may come this late: the connection is tried anew after a while.
const PATIENCE: Duration = Duration::from_secs(20);

/// The trace and the span of the caller.
const TRACE: [u8; 16] = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
const CALLER: [u8; 8] = 0xb7ad_6b71_6920_3331_u64.to_be_bytes();

struct Desk(Sender<Vec<Span>>);

#[tonic::async_trait]
impl TraceService for Desk {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).collect();
        // The test may be over.
        drop(self.0.send(spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that hands on the spans that it gets; it ends with the runtime.
fn collector(net: &Net) -> (Runtime, Receiver<Vec<Span>>) {
    let listener = net.run(|| TcpListener::bind(ADDRESS).unwrap());
    listener.set_nonblocking(true).unwrap();
    let (sender, receiver) = channel();
    let runtime = Runtime::new().unwrap();
    let inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let server = Server::builder().add_service(TraceServiceServer::new(Desk(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    drop(inside);
    (runtime, receiver)
}

/// Waits for these spans of the caller's trace, by the last part of their names.
fn spans_of_trace(spans: &Receiver<Vec<Span>>, wanted: &[&str]) -> BTreeMap<String, Span> {
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while !wanted.iter().all(|name| found.contains_key(*name)) {
        let wait = deadline.saturating_duration_since(Instant::now());
        let batch = spans.recv_timeout(wait);
        let batch = batch.unwrap_or_else(|_| panic!("only {:?} of {wanted:?}", found.keys()));
        for span in batch.into_iter().filter(|span| span.trace_id == TRACE) {
            let name = span.name.rsplit('/').next().unwrap().to_owned();
            found.insert(name, span);
        }
    }
    found
}

#[test]
fn privileged_a_call_goes_on_with_its_callers_trace() {
    let options = Options {
        config: format!("[telemetry]\notlp_endpoint = \"http://{ADDRESS}\"\n"),
        ..Default::default()
    };
    trial_with(&options, |node| {
        let (_collector, spans) = collector(&node.net);
        let mut cri = node.cri();
        cri.trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let pod = node.pod("traced");
        let id = cri.run_pod(&pod);
        cri.run(&id, &pod, &configs::idle("main"));
        let trace = spans_of_trace(
            &spans,
            &["RunPodSandbox", "StartContainer", "boot", "launch"],
        );
        let parent = |name: &str| trace[name].parent_span_id.clone();
        assert_eq!(parent("RunPodSandbox"), CALLER);
        assert_eq!(parent("StartContainer"), CALLER);
        assert_eq!(parent("boot"), trace["RunPodSandbox"].span_id);
        assert_eq!(parent("launch"), trace["StartContainer"].span_id);
        cri.remove_pod(&id);
    });
}
