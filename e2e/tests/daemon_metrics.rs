//! The daemon's own metrics: figures follow what a node does, to the number, in both formats, and
//! clients of the page harm nobody.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::patience::eventually;
use crisp_e2e::registry::known;
use crisp_e2e::{Node, Options, configs, owners, streams, trial, trial_with};
use rustix::process::{Resource, getrlimit, setrlimit};

const ADDRESS: &str = "127.0.0.1:9477";
const OPEN_METRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn options() -> Options {
    Options {
        config: format!("[metrics]\nlisten = \"{ADDRESS}\"\n"),
        ..Default::default()
    }
}

/// Asks for the page; the answer's head and body.
fn ask(node: &Node, accept: &str) -> (String, String) {
    let mut stream = node.net.run(|| TcpStream::connect(ADDRESS).unwrap());
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: {ADDRESS}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    (head.to_owned(), body.to_owned())
}

/// The numbers of a page, by name and labels as they stand there.
#[derive(Debug, Clone, PartialEq)]
struct Page(BTreeMap<String, f64>);

impl Page {
    fn of(node: &Node) -> Self {
        Self(parse(&ask(node, "text/plain").1, false))
    }

    /// A number; a series of calls that has not begun is 0.
    fn get(&self, series: &str) -> f64 {
        let name = series.split('{').next().unwrap();
        let is_there = self.0.contains_key(series) || name.starts_with("crisp_operation");
        assert!(is_there, "no {series} on the page");
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// How many calls of one kind ended so.
    fn calls(&self, operation: &str, code: &str) -> f64 {
        let labels = format!("operation=\"{operation}\",code=\"{code}\"");
        self.get(&format!(
            "crisp_operation_duration_seconds_count{{{labels}}}"
        ))
    }

    /// By how much a series has grown since another page.
    #[track_caller]
    fn grew(&self, since: &Self, series: &str, by: f64) {
        let (now, before) = (self.get(series), since.get(series));
        assert_eq!(now - before, by, "{series}: {before} -> {now}");
    }
}

/// Reads a page as strictly as its format is written down: each family once, with its help and type
/// before its samples and no other family between them, each series once, names and labels of the
/// allowed characters, histograms whose buckets grow and end with the count.
fn parse(page: &str, is_open: bool) -> BTreeMap<String, f64> {
    assert!(page.ends_with('\n') && !page.contains("\n\n"), "{page}");
    let (mut found, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut family = (String::new(), String::new());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(is_open && lines.peek().is_none(), "an end in the middle");
            return found;
        }
        let comment = line
            .strip_prefix("# ")
            .map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>());
        match comment.as_deref() {
            Some(["HELP", name, help]) => {
                assert!(is_name(name) && help.len() > 3, "{line}");
                assert!(families.insert((*name).to_owned()), "twice: {line}");
                family = ((*name).to_owned(), String::new());
            }
            Some(["TYPE", name, kind]) => {
                assert!(["counter", "gauge", "histogram"].contains(kind), "{line}");
                assert_eq!(*name, family.0, "{line}");
                assert!(family.1.is_empty(), "{line}");
                family.1 = (*kind).to_owned();
            }
            Some(["UNIT", name, unit]) => {
                assert!(
                    is_open && *name == family.0 && name.ends_with(unit),
                    "{line}"
                );
            }
            Some(other) => panic!("{other:?}"),
            None => {
                let (series, value) = sample(line, &family, is_open);
                assert!(found.insert(series, value).is_none(), "twice: {line}");
            }
        }
    }
    assert!(!is_open, "no end");
    found
}

fn sample(line: &str, (family, kind): &(String, String), is_open: bool) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value: f64 = value.parse().unwrap();
    let (name, labels) = match series.split_once('{') {
        None => (series, Vec::new()),
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap().split(',').collect()),
    };
    let suffix = name
        .strip_prefix(family.as_str())
        .unwrap_or_else(|| panic!("{line} in {family}"));
    let suffixes: &[&str] = match (kind.as_str(), is_open) {
        ("counter", true) => &["_total"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    assert!(is_name(name) && suffixes.contains(&suffix), "{line}");
    assert!(kind != "counter" || name.ends_with("_total"), "{line}");
    assert!(value >= 0.0, "{line}");
    for label in labels {
        let (name, value) = label.split_once("=\"").unwrap();
        let value = value.strip_suffix('"').unwrap();
        assert!(is_name(name) && !value.is_empty(), "{line}");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.+".contains(c);
        assert!(
            value.chars().all(is_plain) && value.len() < 40,
            "no constant: {line}"
        );
    }
    (series.to_owned(), value)
}

fn is_name(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks that each histogram's buckets grow and that the last is its count.
fn check_histograms(page: &Page) {
    let series = page.0.keys().filter(|key| key.contains("_seconds_count{"));
    for count in series {
        let bucket = count.replace("_count{", "_bucket{").replace('}', ",le=\"");
        let of = page.0.iter().filter(|(key, _)| key.starts_with(&bucket));
        let mut of: Vec<(f64, f64)> = of
            .map(|(key, value)| {
                let bound = key.rsplit("le=\"").next().unwrap().trim_end_matches("\"}");
                (bound.parse().unwrap(), *value)
            })
            .collect();
        of.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(of.is_sorted_by(|a, b| a.1 <= b.1), "{bucket}: {of:?}");
        assert_eq!(
            of.last().copied(),
            Some((f64::INFINITY, page.0[count])),
            "{count}"
        );
    }
}

const READY: &str = "crisp_pods{state=\"ready\"}";
const NOT_READY: &str = "crisp_pods{state=\"not_ready\"}";
const RUNNING: &str = "crisp_containers{state=\"running\"}";
const CREATED: &str = "crisp_containers{state=\"created\"}";
const EXITED: &str = "crisp_containers{state=\"exited\"}";

/// Gauges are as before in a new daemon, and counters begin anew.
fn survives_a_restart(node: &mut Node, runs: &Page) {
    node.kill();
    node.restart();
    let again = Page::of(node);
    for series in [READY, NOT_READY, RUNNING, CREATED, EXITED, "crisp_images"] {
        assert_eq!(again.get(series), runs.get(series), "{series}");
    }
    assert_eq!(again.get("crisp_recovered_pods"), 1.0);
    assert_eq!(again.calls("RunPodSandbox", "OK"), 0.0);
    eventually("the new daemon is connected to the shim", || {
        Page::of(node).get("crisp_shims") == 1.0
    });
}

#[test]
fn privileged_figures_follow_the_life_of_a_pod_and_survive_a_restart() {
    trial_with(&options(), |node| {
        let mut cri = node.cri();
        let before = Page::of(node);
        let pod = node.pod("counted");
        let id = cri.run_pod(&pod);
        let main = cri.create(&id, &pod, &configs::idle("main")).unwrap();
        let made = Page::of(node);
        made.grew(&before, READY, 1.0);
        made.grew(&before, CREATED, 1.0);
        made.grew(&before, "crisp_shims", 0.0);
        assert_eq!(
            made.calls("RunPodSandbox", "OK"),
            before.calls("RunPodSandbox", "OK") + 1.0
        );

        cri.start(&main).unwrap();
        cri.shell(&main, "true");
        let missing = cri.container_status(cri::ContainerStatusRequest {
            container_id: "f".repeat(64),
            verbose: false,
        });
        assert_eq!(missing.unwrap_err().code(), tonic::Code::NotFound);
        let runs = Page::of(node);
        for (series, by) in [
            (READY, 1.0),
            (CREATED, 0.0),
            (RUNNING, 1.0),
            ("crisp_shims", 1.0),
        ] {
            runs.grew(&before, series, by);
        }
        for (operation, code) in [
            ("CreateContainer", "OK"),
            ("StartContainer", "OK"),
            ("ExecSync", "OK"),
            ("ContainerStatus", "NotFound"),
        ] {
            let grown = runs.calls(operation, code) - before.calls(operation, code);
            assert_eq!(grown, 1.0, "{operation} {code}");
        }
        check_histograms(&runs);

        survives_a_restart(node, &runs);

        let mut cri = node.cri();
        cri.stop(&main, 0);
        eventually("the shim of a container that is over has left", || {
            let over = Page::of(node);
            over.get(EXITED) == 1.0 && over.get(RUNNING) == 0.0 && over.get("crisp_shims") == 0.0
        });
        cri.remove_pod(&id);
        let after = Page::of(node);
        for series in [READY, NOT_READY, RUNNING, CREATED, EXITED, "crisp_shims"] {
            assert_eq!(after.get(series), before.get(series), "{series}");
        }
        for kind in ["cgroup", "creation", "network"] {
            assert_eq!(
                after.get(&format!("crisp_debts{{kind=\"{kind}\"}}")),
                0.0,
                "{kind}"
            );
        }
    });
}

#[test]
fn privileged_a_shim_that_was_replaced_is_counted_once() {
    trial_with(&options(), |node| {
        let mut cri = node.cri();
        let pod = node.pod("mended");
        let id = cri.run_pod(&pod);
        let main = cri.run(&id, &pod, &configs::idle("main"));
        let before = Page::of(node);
        let replaced = "crisp_shims_replaced_total";
        assert_eq!(before.get(replaced), 0.0);
        owners::replace_shim(&main);
        eventually("commands run in it", || {
            cri.execute(&main, &["true"]).is_ok()
        });
        Page::of(node).grew(&before, replaced, 1.0);
        // The next one leaves with its container, and is not replaced.
        cri.stop(&main, 0);
        eventually("its shim has left", || {
            Page::of(node).get("crisp_shims") == 0.0
        });
        Page::of(node).grew(&before, replaced, 1.0);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_pulls_and_collections_are_counted_to_the_byte() {
    trial_with(&options(), |node| {
        let mut cri = node.cri();
        let before = Page::of(node);
        node.pull(&["web"]);
        cri.pull(&configs::image("web")).unwrap();
        cri.pull(&configs::image("no-such-image")).unwrap_err();
        let pulled = Page::of(node);
        // Its other layers are there: the last is the page.
        let sent = known()["web"].images[0].blobs.last().unwrap().bytes.len();
        pulled.grew(&before, "crisp_pull_received_bytes_total", sent as f64);
        for (series, by) in [
            ("crisp_images", 1.0),
            ("crisp_image_layers", 1.0),
            ("crisp_layers_unpacked_total", 1.0),
            ("crisp_pulls_total{outcome=\"done\"}", 2.0),
            ("crisp_pulls_total{outcome=\"failed\"}", 1.0),
            ("crisp_pulls_running", 0.0),
        ] {
            pulled.grew(&before, series, by);
        }
        cri.forget("web");
        let removed = Page::of(node);
        let held = pulled.get("crisp_image_disk_bytes") - removed.get("crisp_image_disk_bytes");
        assert!(held > 0.0, "{held}");
        removed.grew(&pulled, "crisp_image_collected_bytes_total", held);
        assert_eq!(
            removed.get("crisp_image_disk_bytes"),
            before.get("crisp_image_disk_bytes")
        );
        removed.grew(&pulled, "crisp_layers_collected_total", 1.0);
        removed.grew(&before, "crisp_images", 0.0);
        let runs = "crisp_image_collections_total";
        assert!(removed.get(runs) > pulled.get(runs));
    });
}

#[test]
fn privileged_sessions_and_listeners_are_counted_while_they_are_there() {
    trial_with(&options(), |node| {
        let mut cri = node.cri();
        let pod = node.pod("streamed");
        let id = cri.run_pod(&pod);
        let main = cri.run(&id, &pod, &configs::idle("main"));
        let (running, begun) = (
            "crisp_sessions_running{kind=\"exec\"}",
            "crisp_sessions_total{kind=\"exec\"}",
        );
        let before = Page::of(node);
        let url = cri.exec(cri::ExecRequest {
            container_id: main,
            cmd: ["sleep", "1000"].map(str::to_owned).to_vec(),
            stdout: true,
            ..Default::default()
        });
        let (session, answer) = streams::upgrade(node, &url.unwrap().url);
        assert!(answer.contains(" 101 "), "{answer}");
        let events = node.events();
        eventually("a session and a listener are counted", || {
            let now = Page::of(node);
            now.get(running) == 1.0 && now.get("crisp_event_listeners") == 1.0
        });
        drop((session, events));
        // The client's end of the stream of events is seen with the next event.
        cri.remove_pod(&id);
        eventually("both are gone", || {
            let now = Page::of(node);
            now.get(running) == 0.0 && now.get("crisp_event_listeners") == 0.0
        });
        Page::of(node).grew(&before, begun, 1.0);
    });
}

#[test]
fn privileged_the_page_is_whole_in_both_formats_and_tells_of_the_process() {
    trial_with(&options(), |node| {
        let (head, text) = ask(node, "*/*");
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        let classic = parse(&text, false);
        let (head, text) = ask(node, OPEN_METRICS);
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        let open = parse(&text, true);
        let names = |page: &BTreeMap<String, f64>| {
            let names = page
                .keys()
                .map(|key| key.split('{').next().unwrap().to_owned());
            names.collect::<BTreeSet<String>>()
        };
        assert_eq!(names(&classic), names(&open));
        let is_ours = |name: &String| name.starts_with("crisp_") || name.starts_with("process_");
        assert!(names(&open).iter().all(is_ours));

        let page = Page(classic);
        assert_eq!(page.get("crisp_ready{condition=\"runtime\"}"), 1.0);
        assert_eq!(page.get("crisp_ready{condition=\"network\"}"), 1.0);
        let files = fs::read_dir(format!("/proc/{}/fd", node.pid()))
            .unwrap()
            .count() as f64;
        let told = page.get("process_open_fds");
        assert!((files - told).abs() <= 8.0, "{told} of {files}");
        let (memory, told) = (
            node.memory() as f64 * 1024.0,
            page.get("process_resident_memory_bytes"),
        );
        assert!((memory / told - 1.0).abs() < 0.25, "{told} of {memory}");
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - page.get("process_start_time_seconds");
        assert!((0.0..300.0).contains(&age), "{age}");
        assert!(page.get("process_cpu_seconds_total") < 300.0);
        assert!(page.get("process_threads") >= 3.0);
    });
}

#[test]
fn privileged_a_thousand_clients_that_say_nothing_harm_nobody() {
    // The usual limit is 1,024 files.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    trial_with(&options(), |node| {
        let files = || {
            fs::read_dir(format!("/proc/{}/fd", node.pid()))
                .unwrap()
                .count()
        };
        let before = files();
        let silent: Vec<TcpStream> = node.net.run(|| {
            (0..1000)
                .map(|_| TcpStream::connect(ADDRESS).unwrap())
                .collect()
        });
        // Clients that ask and take nothing are no better.
        let greedy: Vec<TcpStream> = node.net.run(|| {
            let ask = |_| {
                let mut stream = TcpStream::connect(ADDRESS).unwrap();
                // It may have given way already.
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    .ok();
                stream
            };
            (0..100).map(ask).collect()
        });
        let begun = Instant::now();
        let page = Page::of(node);
        let mut cri = node.cri();
        cri.version(cri::VersionRequest::default()).unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(page.get("crisp_ready{condition=\"runtime\"}"), 1.0);
        assert!(files() < before + 64, "{before} -> {}", files());
        eventually(
            "all of them are closed, while they still hold their ends",
            || files() <= before + 4,
        );
        drop((silent, greedy));
    });
}

#[test]
fn privileged_nothing_listens_unasked_and_a_taken_address_is_told() {
    trial(|node| {
        let refused = node.net.run(|| TcpStream::connect(ADDRESS).unwrap_err());
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let taken = node
            .net
            .run(|| std::net::TcpListener::bind(ADDRESS).unwrap());
        let status = node.terminate();
        assert!(status.success(), "{status}");
        let mut command = node.command();
        command.args(["--metrics-listen", ADDRESS]);
        let output = node.net.run(|| command.output().unwrap());
        assert_eq!(output.status.code(), Some(73), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        let last = told.lines().last().unwrap();
        assert!(
            last.contains(ADDRESS) && last.contains("metrics.listen"),
            "{last}"
        );
        drop(taken);
        node.restart();
    });
}
