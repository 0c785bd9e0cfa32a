//! Shims that are killed: each is replaced, and its container feels nothing of it. Its pipes stay
//! open, its log goes on, commands run in it, and its end is told.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs, eventually, in_pod, owners, trial};
use rustix::process::{Signal, kill_process};

/// Writes numbered lines as fast as a shell can sleep, and ends with a code of its own.
const COUNTS: &str = "trap 'exit 7' TERM; i=0; \
    while :; do echo line $i; i=$((i+1)); sleep 0.01; done";

/// A configuration whose process is not the init of its PID namespace: a pipe that nobody reads
/// ends it by SIGPIPE.
fn no_init(name: &str, line: &str) -> cri::ContainerConfig {
    let mut config = configs::shell(name, line);
    let security = configs::security(&mut config);
    security.namespace_options.as_mut().unwrap().pid = cri::NamespaceMode::Pod.into();
    config
}

fn run_shared(node: &Node, cri: &mut Cri, config: &cri::ContainerConfig) -> (String, String) {
    let mut pod = node.pod("shared");
    configs::namespaces(&mut pod).pid = cri::NamespaceMode::Pod.into();
    let id = cri.run_pod(&pod);
    let container = cri.run(&id, &pod, config);
    (id, container)
}

/// The numbers of the lines that were logged.
fn numbers(log: &Path) -> Vec<usize> {
    numbers_in(&fs::read_to_string(log).unwrap_or_default())
}

fn numbers_in(text: &str) -> Vec<usize> {
    let lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
    let number = |line: &str| {
        let number = line.trim_end().rsplit_once("stdout F line ");
        let (_, number) = number.unwrap_or_else(|| panic!("{line:?}"));
        number.parse().unwrap()
    };
    lines.map(number).collect()
}

/// Waits until the log has so many lines more than it has now.
fn goes_on(log: &Path, more: usize) {
    let last = numbers(log).last().map_or(0, |last| last + more);
    eventually("the log goes on", || {
        numbers(log).last().is_some_and(|now| *now >= last)
    });
}

/// All lines in order, and each once.
#[track_caller]
fn check_lines(numbers: &[usize]) {
    let wrong = (0..)
        .zip(numbers)
        .find(|(wanted, number)| wanted != *number);
    assert_eq!(wrong, None, "of {} lines", numbers.len());
}

#[track_caller]
fn check_works(cri: &mut Cri, container: &str, log: &Path) {
    eventually("commands run in it", || {
        cri.execute(container, &["true"]).is_ok()
    });
    assert_eq!(cri.shell(container, "echo well"), "well\n");
    let aside = log.with_extension("aside");
    fs::rename(log, &aside).unwrap();
    let container_id = container.to_owned();
    cri.reopen_container_log(cri::ReopenContainerLogRequest { container_id })
        .unwrap();
    goes_on(log, 3);
    let parts = [aside, log.to_owned()].map(|path| fs::read_to_string(path).unwrap());
    fs::write(log.with_extension("whole"), parts.concat()).unwrap();
}

/// The kernel tells it to others than the parent since 6.15.
fn kernel_tells() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().unwrap().unwrap();
    let release: (u32, u32) = (next(), next());
    release >= (6, 15)
}

#[track_caller]
fn check_code(status: &cri::ContainerStatus, code: i32) {
    let code = if kernel_tells() { code } else { 255 };
    assert_eq!(status.exit_code, code, "{status:?}");
}

#[test]
fn privileged_a_writer_that_is_no_init_outlives_its_shims() {
    trial(|node| {
        let mut cri = node.cri();
        let (id, container) = run_shared(node, &mut cri, &no_init("main", COUNTS));
        let log = node.path("logs/shared/main.log");
        goes_on(&log, 10);
        let open_files = || {
            fs::read_dir(format!("/proc/{}/fd", node.pid()))
                .unwrap()
                .count()
        };
        let before = open_files();
        for _ in 0..3 {
            owners::replace_shim(&container);
            goes_on(&log, 20);
        }
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
        check_works(&mut cri, &container, &log);
        check_lines(&numbers(&log.with_extension("whole")));
        eventually("the daemon holds no more than before", || {
            open_files() <= before
        });
        cri.stop(&container, 20);
        check_code(&cri.wait_exit(&container), 7);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_no_line_of_a_busy_writer_is_lost_or_doubled() {
    loses_nothing(false);
}

#[test]
fn privileged_no_line_of_a_busy_terminal_is_lost_or_doubled() {
    loses_nothing(true);
}

/// Kills shims of a container that writes as fast as it can.
fn loses_nothing(tty: bool) {
    // A terminal takes a line at a time.
    let (kills, between) = if tty { (6, 20_000) } else { (12, 100_000) };
    let line = "trap 'echo end $i; exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); done";
    trial(|node| {
        let mut cri = node.cri();
        let mut config = no_init("main", line);
        config.tty = tty;
        let (id, container) = run_shared(node, &mut cri, &config);
        let log = node.path("logs/shared/main.log");
        let length = || fs::metadata(&log).map_or(0, |log| log.len());
        for _ in 0..kills {
            let before = length();
            eventually("the log goes on", || length() > before + between);
            owners::replace_shim(&container);
        }
        let before = length();
        eventually("the log goes on", || length() > before);
        cri.stop(&container, 20);
        check_code(&cri.wait_exit(&container), 7);
        let text = fs::read_to_string(&log).unwrap();
        let (lines, end) = text.trim_end().rsplit_once('\n').unwrap();
        let numbers = numbers_in(&format!("{lines}\n"));
        check_lines(&numbers);
        // The signal may have come between a line and its count.
        let (_, end) = end.rsplit_once(" stdout F end ").unwrap();
        assert!(numbers.len() - end.parse::<usize>().unwrap() <= 1, "{end}");
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_a_daemon_that_returned_replaces_shims_too() {
    trial(|node| {
        let mut cri = node.cri();
        let (id, container) = run_shared(node, &mut cri, &no_init("main", COUNTS));
        let log = node.path("logs/shared/main.log");
        goes_on(&log, 5);
        node.kill();
        node.restart();
        owners::replace_shim(&container);
        goes_on(&log, 20);
        check_lines(&numbers(&log));
        node.kill();
        node.restart();
        cri = node.cri();
        check_works(&mut cri, &container, &log);
        check_lines(&numbers(&log.with_extension("whole")));
        cri.stop(&container, 20);
        check_code(&cri.wait_exit(&container), 7);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_the_last_words_to_a_shim_that_is_killed_are_logged() {
    in_pod("words", |node, cri, id, pod| {
        let line = "until [ -e /tmp/go ]; do sleep 0.01; done; echo last words; exit 5";
        let container = cri.run(id, pod, &configs::shell("main", line));
        cri.shell(&container, "true");
        let shim = owners::shim(&container).unwrap();
        let init = pid_of(cri, &container);
        kill_process(shim, Signal::STOP).unwrap();
        fs::write(format!("/proc/{init}/root/tmp/go"), "").unwrap();
        let ended = || {
            let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        eventually("it ends", ended);
        kill_process(shim, Signal::KILL).unwrap();
        check_code(&cri.wait_exit(&container), 5);
        let log = fs::read_to_string(node.path("logs/words/main.log")).unwrap();
        assert!(log.ends_with(" stdout F last words\n"), "{log:?}");
    });
}

fn pid_of(cri: &mut Cri, container: &str) -> i64 {
    let request = cri::ContainerStatusRequest {
        container_id: container.to_owned(),
        verbose: true,
    };
    let info = cri.container_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_i64().unwrap()
}

#[test]
fn privileged_a_terminal_and_an_open_input_stay_open() {
    in_pod("open", |node, cri, id, pod| {
        let mut tty = configs::shell("tty", COUNTS);
        tty.tty = true;
        let mut reads = configs::shell("reads", "read line; echo the input ended");
        reads.stdin = true;
        let [tty, reads] = [tty, reads].map(|config| cri.run(id, pod, &config));
        let log = node.path("logs/open/tty.log");
        goes_on(&log, 5);
        owners::replace_shim(&tty);
        owners::replace_shim(&reads);
        goes_on(&log, 20);
        let numbers = numbers(&log);
        check_lines(&numbers);
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&tty).state(), running);
        assert_eq!(cri.look(&reads).state(), running);
        cri.stop(&tty, 20);
        check_code(&cri.wait_exit(&tty), 7);
        cri.stop(&reads, 0);
        assert_eq!(cri.wait_exit(&reads).exit_code, 137);
    });
}

#[test]
fn privileged_without_shim_and_daemon_it_is_found_again() {
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("both");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        cri.shell(&container, "true");
        let shim = owners::shim(&container).unwrap();
        node.kill();
        kill_process(shim, Signal::KILL).unwrap();
        eventually("its shim is gone", || owners::shim(&container).is_none());
        node.restart();
        cri = node.cri();
        eventually("commands run in it", || {
            cri.execute(&container, &["true"]).is_ok()
        });
        cri.stop(&container, 20);
        check_code(&cri.wait_exit(&container), 0);
        cri.remove_pod(&id);
    });
}
