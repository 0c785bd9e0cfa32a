//! A client of events that stops reading: its stream ends with the word that events were lost, the
//! daemon's memory stays bounded, and nobody else waits for it.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::time::Duration;

use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, Options, configs, trial_with};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

type Stream = Streaming<cri::ContainerEventResponse>;

/// Bytes of annotations of the pod, which are in each of its events.
const LONG: usize = 32 << 10;
/// Containers that come and go: with two events each, more than the daemon keeps for a listener and
/// a connection holds.
const CONTAINERS: usize = 2200;
/// KiB by which the daemon may grow. All events, as they are sent, would take four times that.
const MOST: u64 = 36 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Subscribes; nothing is read but what the connection takes by itself.
async fn subscribe(node: &Node) -> Stream {
    let endpoint = format!("unix://{}", node.socket().display());
    let endpoint = Endpoint::from_shared(endpoint).unwrap();
    let channel: Channel = endpoint.connect().await.unwrap();
    let mut client = RuntimeServiceClient::new(channel);
    let reply = client.get_container_events(cri::GetEventsRequest {}).await;
    reply.unwrap().into_inner()
}

/// All that is left of a stream, and how it ended.
async fn read_on(stream: &mut Stream) -> (Vec<cri::ContainerEventResponse>, Option<Status>) {
    let mut events = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(status) => return (events, Some(status)),
        }
    }
}

/// Creates containers in a pod and removes them.
fn come_and_go(cri: &mut Cri, id: &str, pod: &cri::PodSandboxConfig) {
    for number in 0..CONTAINERS {
        let config = configs::idle(&format!("c{number}"));
        let container_id = cri.create(id, pod, &config).unwrap();
        cri.remove_container(cri::RemoveContainerRequest { container_id })
            .unwrap();
    }
}

#[test]
fn privileged_a_slow_client_of_events_is_told_that_it_lost_some() {
    let options = Options {
        // A line for each call takes longer than the call.
        log_level: "info",
        ..Options::default()
    };
    trial_with(&options, |node| {
        let mut cri = node.cri();
        let mut pod = node.pod("slow");
        pod.annotations.insert("long".into(), "x".repeat(LONG));
        let id = cri.run_pod(&pod);
        let before = node.memory();
        let executor = Runtime::new().unwrap();
        let mut slow = executor.block_on(subscribe(node));
        let fast = node.events();
        let reader = std::thread::spawn(move || {
            for _ in 0..CONTAINERS {
                assert_eq!(fast.next().container_event_type(), CREATED);
                assert_eq!(fast.next().container_event_type(), DELETED);
            }
        });
        come_and_go(&mut cri, &id, &pod);
        // A client that reads has seen all of them, in their order.
        reader.join().unwrap();
        let grown = node.memory().saturating_sub(before);
        assert!(grown < MOST, "{grown} KiB for a client that does not read");
        let (events, end) = executor
            .block_on(async { tokio::time::timeout(PATIENCE, read_on(&mut slow)).await })
            .expect("the stream does not end");
        let end = end.expect("a stream with a gap that ends well");
        assert_eq!(end.code(), Code::DataLoss, "{end:?}");
        let text = end.message();
        assert!(text.contains("events were lost") && text.contains("list pods"));
        // The events before the gap are whole and in order.
        assert!(!events.is_empty() && events.len() < 2 * CONTAINERS);
        for (number, event) in events.iter().enumerate() {
            let wanted = [CREATED, DELETED][number % 2];
            assert_eq!(event.container_event_type(), wanted, "event {number}");
        }
        eprintln!("{grown} KiB more, {} events before the end", events.len());
        // As it is told to: it connects again and sees what comes.
        drop(slow);
        let again = node.events();
        cri.create(&id, &pod, &configs::idle("next")).unwrap();
        assert_eq!(again.next().container_event_type(), CREATED);
        cri.remove_pod(&id);
    });
}

const CREATED: cri::ContainerEventType = cri::ContainerEventType::ContainerCreatedEvent;
const DELETED: cri::ContainerEventType = cri::ContainerEventType::ContainerDeletedEvent;
