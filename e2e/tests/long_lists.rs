//! Stream lists of a thousand containers: the size of their pieces, clients that read slowly, and
//! clients that vanish.
//!
//! The containers are created and not started, but for a few whose figures are asked for.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fmt::Debug;
use std::fs;
use std::time::{Duration, Instant};

use cri::runtime_service_client::RuntimeServiceClient;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::busybox;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::push::Registry;
use crisp_e2e::registry::{ADDRESS, HOST};
use crisp_e2e::{Cri, Node, Options, configs, eventually, tools, trial, trial_with};
use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

const CONTAINERS: usize = 1000;
const PODS: usize = 8;
/// Containers of each pod that run.
const RUNNING: usize = 2;
/// Bytes of a message, unless one item alone has more.
const MOST: usize = 512 << 10;
/// Bytes of annotations: of a pod, of a container that runs, and of one that does not.
const LONG: [usize; 3] = [100_000, 60_000, 8_000];

/// The ids of all pods, and how long a thousand containers took.
struct Full {
    pods: Vec<String>,
    took: Duration,
}

/// Fills the node, one thread for two pods.
fn fill(node: &Node) -> Full {
    let began = Instant::now();
    let names: Vec<String> = (0..PODS).map(|number| format!("pod{number}")).collect();
    let pods = std::thread::scope(|scope| {
        let fillers = names.chunks(2).map(|names| {
            scope.spawn(move || names.iter().map(|name| fill_pod(node, name)).collect())
        });
        let fillers: Vec<_> = fillers.collect();
        let filled = fillers.into_iter().map(|filler| filler.join().unwrap());
        filled.collect::<Vec<Vec<String>>>().concat()
    });
    Full {
        pods,
        took: began.elapsed(),
    }
}

fn fill_pod(node: &Node, name: &str) -> String {
    let mut cri = node.cri();
    let mut pod = node.pod(name);
    pod.annotations.insert("long".into(), "p".repeat(LONG[0]));
    let id = cri.run_pod(&pod);
    for number in 0..CONTAINERS / PODS {
        let runs = number < RUNNING;
        let mut config = configs::idle(&format!("c{number}"));
        let long = if runs { LONG[1] } else { LONG[2] };
        config.annotations.insert("long".into(), "c".repeat(long));
        let container = cri.create(&id, &pod, &config).unwrap();
        if runs {
            cri.start(&container).unwrap();
        }
    }
    id
}

/// Checks that messages are as large as they may be and no larger, and returns all items.
#[track_caller]
fn items<M: Message, I: Message + Clone>(messages: &[M], of: fn(&M) -> &Vec<I>) -> Vec<I> {
    let alone = |item: &I| {
        let length = item.encoded_len();
        1 + prost::length_delimiter_len(length) + length
    };
    for message in messages {
        assert!(!of(message).is_empty(), "a message without items");
        let bytes = message.encoded_len();
        assert!(bytes <= MOST || of(message).len() == 1, "{bytes} bytes");
    }
    for pair in messages.windows(2) {
        let bytes = pair[0].encoded_len() + alone(&of(&pair[1])[0]);
        assert!(
            bytes > MOST,
            "the next item would have fitted: {bytes} bytes"
        );
    }
    messages.iter().flat_map(|m| of(m).clone()).collect()
}

/// Checks that two lists are the same, without printing them.
#[track_caller]
fn same<T: PartialEq + Debug>(streamed: &[T], listed: &[T], pieces: (usize, usize)) {
    assert_eq!(streamed.len(), listed.len());
    let differs = streamed.iter().zip(listed).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{:.300?}", differs.map(|at| &streamed[at]));
    let (number, least) = pieces;
    assert!(number >= least, "{number} messages");
}

#[test]
fn privileged_lists_of_a_thousand_containers() {
    let options = Options {
        // A line for each call takes longer than the call.
        log_level: "info",
        ..Options::default()
    };
    trial_with(&options, |node| {
        let full = fill(node);
        let mut cri = node.cri();
        let began = Instant::now();
        come_in_pieces(&mut cri);
        figures(&mut cri);
        let told = began.elapsed();
        slow_readers(node, &mut cri);
        let read = began.elapsed();
        for id in &full.pods {
            cri.remove_pod(id);
        }
        tools::say(&format!(
            "{CONTAINERS} containers after {:.1?}, told in {told:.1?}, read slowly until {read:.1?}, \
             gone after {:.1?}",
            full.took,
            began.elapsed()
        ));
    });
}

fn come_in_pieces(cri: &mut Cri) {
    let messages = cri.stream_containers(Default::default()).unwrap();
    let streamed = items(&messages, |m| &m.containers);
    let listed = cri.list_containers(Default::default()).unwrap().containers;
    assert_eq!(listed.len(), CONTAINERS);
    same(&streamed, &listed, (messages.len(), 15));

    let messages = cri.stream_pod_sandboxes(Default::default()).unwrap();
    let streamed = items(&messages, |m| &m.pod_sandboxes);
    let listed = cri.list_pod_sandbox(Default::default()).unwrap().items;
    assert_eq!(listed.len(), PODS);
    same(&streamed, &listed, (messages.len(), 2));
}

/// Figures differ from look to look: their subjects are compared.
fn figures(cri: &mut Cri) {
    let messages = cri.stream_container_stats(Default::default()).unwrap();
    let streamed = items(&messages, |m| &m.container_stats);
    let listed = cri.list_container_stats(Default::default()).unwrap().stats;
    assert_eq!(listed.len(), PODS * RUNNING);
    let of = |stats: Vec<cri::ContainerStats>| -> Vec<_> {
        let subjects = stats.into_iter().map(|s| (s.attributes, s.cpu.is_some()));
        subjects.collect()
    };
    same(&of(streamed), &of(listed), (messages.len(), 2));

    let messages = cri.stream_pod_sandbox_stats(Default::default()).unwrap();
    let streamed = items(&messages, |m| &m.pod_sandbox_stats);
    let listed = cri
        .list_pod_sandbox_stats(Default::default())
        .unwrap()
        .stats;
    assert_eq!(listed.len(), PODS);
    let of = |stats: Vec<cri::PodSandboxStats>| -> Vec<_> {
        let linux = |s: &cri::PodSandboxStats| s.linux.as_ref().map(|l| l.containers.len());
        let subjects = stats.into_iter().map(|s| (linux(&s), s.attributes));
        subjects.collect()
    };
    let (streamed, listed) = (of(streamed), of(listed));
    assert!(
        streamed
            .iter()
            .all(|(running, _)| *running == Some(RUNNING))
    );
    same(&streamed, &listed, (messages.len(), 3));

    let messages = cri.stream_pod_sandbox_metrics(Default::default()).unwrap();
    let streamed = items(&messages, |m| &m.pod_sandbox_metrics);
    assert_eq!(streamed.len(), PODS);
}

#[test]
fn privileged_images_come_in_pieces() {
    const IMAGES: usize = 12;
    trial(|node| {
        let mut cri = node.cri();
        for number in 0..IMAGES {
            // The name of a user is told with each image.
            let user = format!("{number}{}", "u".repeat(100_000));
            let image = busybox::image().config(json!({"User": user}));
            let entry = Entry::from(&image);
            let name = format!("long{number}");
            let pushed = node
                .net
                .run(|| Registry::at(ADDRESS).push(&name, "1", &entry));
            pushed.unwrap();
            cri.pull(&format!("{HOST}/{name}:1")).unwrap();
        }
        let messages = cri.stream_images(Default::default()).unwrap();
        let streamed = items(&messages, |m| &m.images);
        let listed = cri.list_images(Default::default()).unwrap().images;
        assert_eq!(listed.len(), IMAGES + 1, "busybox as well");
        same(&streamed, &listed, (messages.len(), 3));
        for number in 0..IMAGES {
            cri.forget(&format!("long{number}"));
        }
    });
}

/// A connection of its own, with the smallest windows that HTTP/2 begins with: a server cannot send
/// more than 64 KiB ahead of its reader.
struct Reader {
    executor: Runtime,
    stream: Streaming<cri::StreamContainersResponse>,
    got: Vec<String>,
}

impl Reader {
    /// Asks for all containers, and reads the first message.
    fn begin(node: &Node) -> Self {
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let socket = format!("unix://{}", node.socket().display());
        let endpoint = Endpoint::from_shared(socket).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535);
        let endpoint = endpoint.initial_connection_window_size(65_535);
        let stream = executor.block_on(async {
            let channel: Channel = endpoint.connect().await.unwrap();
            let mut client = RuntimeServiceClient::new(channel);
            let request = cri::StreamContainersRequest::default();
            client
                .stream_containers(request)
                .await
                .unwrap()
                .into_inner()
        });
        let mut reader = Self {
            executor,
            stream,
            got: Vec::new(),
        };
        assert!(reader.reads_one());
        reader
    }

    /// Reads one message; tells whether there was one.
    fn reads_one(&mut self) -> bool {
        let message = self.stream.message();
        let patient = async { tokio::time::timeout(Duration::from_secs(30), message).await };
        let message = self.executor.block_on(patient);
        let Some(message) = message.expect("a message in time").unwrap() else {
            return false;
        };
        let ids = message.containers.into_iter().map(|c| c.id);
        self.got.extend(ids);
        true
    }
}

/// Open files of the daemon.
fn files(node: &Node) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap();
    open.count()
}

/// Readers who are slow hold up nobody and cost a few messages each, and those who vanish leave
/// nothing.
fn slow_readers(node: &Node, cri: &mut Cri) {
    const READERS: usize = 24;
    let all = cri.container_ids();
    let (memory, open) = (node.memory(), files(node));
    let mut readers: Vec<Reader> = (0..READERS).map(|_| Reader::begin(node)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let each = node.memory().saturating_sub(memory) / READERS as u64;
    // Of the list, which has more than 8 MB: the message that is being sent, the next, and the items
    // that they are made of.
    assert!(
        each < 5 * (MOST as u64 >> 10),
        "a slow reader costs {each} KiB"
    );
    let began = Instant::now();
    // A container that is removed meanwhile is still told: it was there when the list was asked for.
    let last = all.last().unwrap().clone();
    let gone = cri::RemoveContainerRequest { container_id: last };
    cri.remove_container(gone).unwrap();
    assert_eq!(cri.container_ids().len(), CONTAINERS - 1);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "others waited {took:?}");

    let mut patient = readers.pop().unwrap();
    // The others vanish, half of them in the middle of a message that is on its way.
    for reader in readers.iter_mut().step_by(2) {
        assert!(reader.reads_one());
    }
    drop(readers);
    while patient.reads_one() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let got = patient.got.len();
    assert!(patient.got == all, "each once, in order: {got} ids");
    drop(patient);
    eventually("the vanished clients' connections are closed", || {
        files(node) <= open
    });
}
