//! CRI logs: format, order, rotation, and crictl's view of them.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, eventually, trial};

/// A line of a log: `TIME STREAM F|P TEXT`.
#[derive(Debug)]
struct Line {
    time: String,
    stream: String,
    is_full: bool,
    text: String,
}

fn read(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn last line");
    let line = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let mut next = || {
            parts
                .next()
                .unwrap_or_else(|| panic!("{line:?}"))
                .to_owned()
        };
        let (time, stream, tag, text) = (next(), next(), next(), next());
        assert!(matches!(stream.as_str(), "stdout" | "stderr"), "{line:?}");
        assert!(matches!(tag.as_str(), "F" | "P"), "{line:?}");
        Line {
            time,
            stream,
            is_full: tag == "F",
            text,
        }
    };
    text.lines().map(line).collect()
}

/// Runs a shell line to its end and returns its log.
fn log_of(script: &str, change: impl FnOnce(&mut cri::ContainerConfig)) -> Vec<Line> {
    let mut lines = Vec::new();
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("logs");
        let id = cri.run_pod(&pod);
        let mut config = configs::shell("main", script);
        change(&mut config);
        let container = cri.run(&id, &pod, &config);
        cri.wait_exit(&container);
        lines = read(&node.path("logs/logs/main.log"));
        cri.remove_pod(&id);
    });
    lines
}

#[test]
fn privileged_lines_carry_time_stream_and_text() {
    let lines = log_of("echo one; echo two >&2; echo; printf 'no end'", |_| {});
    let mut seen: Vec<(&str, &str)> = lines
        .iter()
        .map(|l| (l.stream.as_str(), l.text.as_str()))
        .collect();
    seen.sort_unstable();
    let expected = [
        ("stderr", "two"),
        ("stdout", ""),
        ("stdout", "no end"),
        ("stdout", "one"),
    ];
    assert_eq!(seen, expected);
    for line in &lines {
        let shape: String = line
            .time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert!(shape.starts_with("0000-00-00T00:00:00.0"), "{}", line.time);
    }
    let times: Vec<&String> = lines
        .iter()
        .filter(|l| l.stream == "stdout")
        .map(|l| &l.time)
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn privileged_long_lines_come_in_parts_and_lose_nothing() {
    const LENGTH: usize = 100_000;
    let script = format!("head -c {LENGTH} /dev/zero | tr '\\0' x; echo; echo after");
    let lines = log_of(&script, |_| {});
    let long: usize = lines
        .iter()
        .filter(|l| l.text != "after")
        .map(|l| l.text.len())
        .sum();
    assert_eq!(long, LENGTH);
    assert!(!lines[0].is_full, "the first part says that more comes");
    let last = lines.iter().rev().find(|l| l.text != "after").unwrap();
    assert!(last.is_full);
    assert!(lines.iter().all(|l| l.text.len() <= 16 * 1024 + 1024));
    assert_eq!(lines.last().unwrap().text, "after");
}

#[test]
fn privileged_a_terminal_is_one_stream() {
    let lines = log_of("echo out; echo err >&2; tty", |config| config.tty = true);
    let text: Vec<&str> = lines
        .iter()
        .map(|l| l.text.trim_end_matches('\r'))
        .collect();
    assert_eq!(text, ["out", "err", "/dev/pts/0"]);
    assert!(lines.iter().all(|l| l.stream == "stdout"));
}

#[test]
fn privileged_a_container_without_a_log_runs() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("logs");
        let id = cri.run_pod(&pod);
        let mut config = configs::shell("main", "seq 100000");
        config.log_path.clear();
        let container = cri.run(&id, &pod, &config);
        assert_eq!(cri.wait_exit(&container).exit_code, 0);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_rotation_loses_and_splits_no_line() {
    const LINES: usize = 20_000;
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("logs");
        let id = cri.run_pod(&pod);
        let script = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done");
        let container = cri.run(&id, &pod, &configs::shell("main", &script));
        let path = node.path("logs/logs/main.log");
        let mut rotated = Vec::new();
        for number in 0..10 {
            std::thread::sleep(Duration::from_millis(20));
            let aside = path.with_extension(number.to_string());
            fs::rename(&path, &aside).unwrap();
            let container_id = container.clone();
            let reopened =
                cri.reopen_container_log(cri::ReopenContainerLogRequest { container_id });
            rotated.push(aside);
            if reopened.is_err() {
                break;
            }
        }
        cri.wait_exit(&container);
        rotated.push(path);
        let text: Vec<String> = rotated
            .iter()
            .flat_map(|path| read(path))
            .map(|line| line.text)
            .collect();
        let expected: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
        assert!(text == expected, "{} lines of {LINES}", text.len());
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_crictl_shows_what_was_asked_for() {
    trial(|node| {
        let mut cri = node.cri();
        let crictl = node.crictl();
        let pod = node.pod("logs");
        let id = cri.run_pod(&pod);
        let script = "for i in 1 2 3; do echo line $i; done; sleep 1; echo late; sleep 1000";
        let container = cri.run(&id, &pod, &configs::shell("main", script));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !crictl.ok(&["logs", &container]).contains("late") {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(
            crictl.ok(&["logs", &container]),
            "line 1\nline 2\nline 3\nlate\n"
        );
        assert_eq!(
            crictl.ok(&["logs", "--tail", "2", &container]),
            "line 3\nlate\n"
        );
        let stamped = crictl.ok(&["logs", "-t", "--tail", "1", &container]);
        let time = stamped.split(' ').next().unwrap();
        assert!(
            time.contains('T') && stamped.ends_with("late\n"),
            "{stamped}"
        );
        assert_eq!(crictl.ok(&["logs", "--since", time, &container]), "late\n");

        // --follow ends with the container.
        let printed = node.path("followed");
        let mut follow = crictl.command(&["logs", "-f", &container]);
        let mut follow = follow.stdout(fs::File::create(&printed).unwrap()).spawn();
        let text = || fs::read_to_string(&printed).unwrap();
        eventually("crictl follows", || text().ends_with("late\n"));
        cri.stop(&container, 0);
        assert!(follow.as_mut().unwrap().wait().unwrap().success());
        assert!(text().ends_with("late\n"));
        cri.remove_pod(&id);
    });
}
