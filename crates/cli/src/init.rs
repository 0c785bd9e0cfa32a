//! The first process of a node. It prepares the node, starts its programs, starts again those that
//! end, and reaps what they leave. When it ends, the kernel ends all else in the node.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crisp_sys::mount::{Depth, Propagation};
use crisp_sys::process::WaitStatus;
use crisp_sys::signals::{self, SignalFd};
use crisp_sys::{cgroup, mount, process};
use serde::{Deserialize, Serialize};

use crate::disk::put;
use crate::failure::{Context as _, Failure, Result};

/// Where nodes have their files.
pub const NODE_DIR: &str = "/node";
/// Where nodes see Crisp's programs.
pub const CRISP_DIR: &str = "/opt/crisp";
/// Where nodes see Kubernetes' programs.
pub const KUBERNETES_DIR: &str = "/opt/kubernetes";
/// Where programs of a node are found, by the programs themselves.
pub const PATH: &str =
    "/opt/crisp:/opt/kubernetes:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// The file in a control plane's directory that tells that the cluster's first objects are made.
pub const OBJECTS_MADE: &str = "objects-made";
/// How the log of a node tells that a program has ended, after the program's name.
pub const ENDED: &str = "ended with";
/// After the name of a program that could not be started.
pub const NOT_STARTED: &str = ": start it";
/// The line by which a node's log, which has all its lives, tells of the beginning of one.
pub const BEGINS: &str = "the node begins";
/// Pause before a program that ended is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long programs may take to end when the node is asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How many bytes a log may have, and as many again those of before.
pub const LARGEST: u64 = 16 << 20;
/// How long the node may take to answer to itself.
const ANSWER: Duration = Duration::from_millis(100);
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;

/// A node's description, in the file that its first process reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Whether containers run in it: it then prepares mounts, cgroups and firewall.
    pub runs_pods: bool,
    /// Its programs, in the order in which they are started.
    pub programs: Vec<Program>,
}

/// A program of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name; its log is `/var/log/NAME.log`.
    pub name: String,
    /// Path and arguments.
    pub command: Vec<String>,
    /// The things that it has to find when it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
}

/// Things that a program has to find, so that it does not fail and pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A port of the node at which a program listens.
    pub port: u16,
}

impl After {
    fn is_there(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        self.file.as_deref().is_none_or(Path::exists)
            && TcpStream::connect_timeout(&address, ANSWER).is_ok()
    }
}

/// A program that runs, or waits to be started again.
#[derive(Debug)]
enum State {
    Runs(i32),
    Waits(Instant),
}

/// Does what a file says, until it is asked to end.
pub fn run(file: &Path) -> Result<ExitCode> {
    let text = fs::read(file).context(|| format!("{}: read it", file.display()))?;
    let init: Init =
        serde_json::from_slice(&text).context(|| format!("{}: read it", file.display()))?;
    if std::process::id() != 1 {
        let text = "crisp cluster init: it is the first process of a node, and of nothing else";
        return Err(Failure::new(text).remedy("`crisp cluster` makes nodes"));
    }
    crate::progress::say(format_args!("{BEGINS}"));
    // Blocked, they wait until they are asked for.
    let _blocked = SignalFd::block_all().context(|| "signals: block them".to_owned())?;
    if init.runs_pods {
        prepare()?;
    }
    // The API server too sends requests to pods: its proxy, and webhooks.
    tool("/usr/sbin/ip", &["-batch"], &own_file("routes"))?;
    let mut states: Vec<State> = init.programs.iter().map(|_| due()).collect();
    loop {
        start_due(&init.programs, &mut states);
        let signal = signals::wait(Some(Duration::from_millis(500)));
        let signal = signal.context(|| "signals: wait for one".to_owned())?;
        reap(&init.programs, &mut states)?;
        let logs = init.programs.iter().map(log_of);
        // The last one is this process's own, which its shim writes.
        for log in logs.chain([log("node")]) {
            if let Err(failure) = bound(&log, LARGEST) {
                crate::progress::say(format_args!("{failure}"));
            }
        }
        if matches!(signal, Some((SIGTERM | SIGINT, _))) {
            end(&states);
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn due() -> State {
    State::Waits(Instant::now())
}

/// Starts the programs whose time it is. A failure, for want of memory or of room for a log, is told and
/// the start tried again: the end of this process would be the end of the node.
fn start_due(programs: &[Program], states: &mut [State]) {
    for (program, state) in programs.iter().zip(states) {
        let is_due = matches!(state, State::Waits(until) if *until <= Instant::now());
        if is_due && program.after.as_ref().is_none_or(After::is_there) {
            *state = start(program).map_or_else(
                |failure| {
                    crate::progress::say(format_args!("{failure}; it is tried again"));
                    State::Waits(Instant::now() + PAUSE)
                },
                State::Runs,
            );
        }
    }
}

fn log_of(program: &Program) -> PathBuf {
    log(&program.name)
}

fn log(name: &str) -> PathBuf {
    Path::new("/var/log").join(format!("{name}.log"))
}

/// The file with what a log had before it was begun anew.
pub fn older(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".1");
    path.into()
}

/// Begins a log anew that has become too large, and keeps what was in it until the next time.
///
/// Its program goes on with the file that it has, at the end, wherever that is. A line that it writes
/// between the last look at the end and the cut is lost.
pub fn bound(log: &Path, largest: u64) -> Result<()> {
    let step = || format!("{}: begin it anew", log.display());
    let length = match fs::metadata(log) {
        Ok(data) => data.len(),
        Err(_) => return Ok(()),
    };
    if length <= largest {
        return Ok(());
    }
    let kept = fs::copy(log, older(log));
    let cut = File::options().write(true).open(log);
    // On a full disk the new lines are worth more than the old ones.
    cut.and_then(|file| file.set_len(0)).context(step)?;
    if let Err(error) = kept {
        // It is cut, and that was the need.
        crate::progress::say(format_args!(
            "{}: what was in it is lost: {error}",
            log.display()
        ));
    }
    Ok(())
}

fn start(program: &Program) -> Result<i32> {
    let step = || format!("{}{NOT_STARTED}", program.name);
    let log = log_of(program);
    let log = File::options().create(true).append(true).open(log);
    let log = log.context(step)?;
    let (path, arguments) = program
        .command
        .split_first()
        .ok_or_else(|| Failure::new(format!("{}: it has no command", program.name)))?;
    let mut command = process::command(path);
    command
        .args(arguments)
        .env("PATH", PATH)
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context(step)?)
        .stderr(log);
    process::reset_signals(&mut command);
    let child = command.spawn().context(step)?;
    i32::try_from(child.id()).context(step)
}

/// Takes the ends of all processes that ended, also of orphans.
fn reap(programs: &[Program], states: &mut [State]) -> Result<()> {
    loop {
        let ended = process::reap_any().context(|| "processes: reap one".to_owned())?;
        let Some((pid, status)) = ended else {
            return Ok(());
        };
        note_end(programs, states, pid, status);
    }
}

fn note_end(programs: &[Program], states: &mut [State], pid: i32, status: WaitStatus) {
    let mut all = programs.iter().zip(states);
    let whose = all.find(|(_, state)| matches!(state, State::Runs(own) if *own == pid));
    if let Some((program, state)) = whose {
        let name = &program.name;
        crate::progress::say(format_args!(
            "{name} {ENDED} {status:?} and is started again"
        ));
        *state = State::Waits(Instant::now() + PAUSE);
    }
}

/// Asks the programs to end, and gives them time; what they do not write then is lost.
fn end(states: &[State]) {
    let pids = states.iter().filter_map(|state| match state {
        State::Runs(pid) => Some(*pid),
        State::Waits(_) => None,
    });
    let mut running: HashSet<i32> = pids.collect();
    for pid in &running {
        // It may have ended already.
        signals::kill(*pid, SIGTERM).ok();
    }
    let deadline = Instant::now() + GRACE;
    while !running.is_empty() && Instant::now() < deadline {
        while let Ok(Some((pid, _))) = process::reap_any() {
            running.remove(&pid);
        }
        signals::wait(Some(Duration::from_millis(50))).ok();
    }
}

/// Makes a container a place in which containers can run.
fn prepare() -> Result<()> {
    let root = Path::new("/");
    mount::set_propagation(root, Propagation::Shared, Depth::Recursive)
        .context(|| "mounts of the node: share them with its pods".to_owned())?;
    // Of a former life of the node nothing is left there.
    mount::mount_classic("tmpfs", Path::new("/run"), "tmpfs", "mode=755")
        .context(|| "/run: mount it".to_owned())?;
    show_security_modules();
    make_way_for_controllers()?;
    tool("/usr/sbin/nft", &["-f"], &own_file("firewall.nft"))
}

/// AppArmor's profiles are loaded by way of securityfs, which kernels without security modules lack: a
/// node does without it, and its crispd tells what that means for pods.
fn show_security_modules() {
    let place = Path::new("/sys/kernel/security");
    if place.is_dir()
        && let Err(error) = mount::mount_classic("securityfs", place, "securityfs", "")
    {
        let place = place.display();
        crate::progress::say(format_args!("{place} cannot be mounted: {error}"));
    }
}

/// A file that was written for this node.
fn own_file(name: &str) -> PathBuf {
    Path::new(NODE_DIR).join(name)
}

/// On cgroup v2 a group with processes hands no controllers on (cgroups(7)): the node's processes move
/// to a group of their own, so that those of pods can be limited.
fn make_way_for_controllers() -> Result<()> {
    let layout = cgroup::Layout::detect().context(|| "cgroups: find them".to_owned())?;
    if !layout.is_v2() {
        return Ok(());
    }
    let root = PathBuf::from("/sys/fs/cgroup");
    let step = || "cgroups: hand controllers on".to_owned();
    let own = root.join("init");
    crisp_sys::file::make_public_dirs(&own).context(step)?;
    put(&own.join("cgroup.procs"), "0")?;
    let there = fs::read_to_string(root.join("cgroup.controllers")).context(step)?;
    for controller in there.split_whitespace() {
        put(
            &root.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        )?;
    }
    Ok(())
}

/// Runs a program of the machine on a file.
fn tool(path: &str, words: &[&str], file: &Path) -> Result<()> {
    let step = || format!("{path} {} {}", words.join(" "), file.display());
    let other = path.replace("/usr/sbin", "/usr/bin");
    let path = [path, &other]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .unwrap_or(path);
    let mut command: Command = process::command(path);
    command.args(words).arg(file).stdin(Stdio::null());
    process::reset_signals(&mut command);
    let status = command.status().context(step)?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("{}: it ended with {status}", step()))
            .remedy("its own words stand above")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_is_the_first_process_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("init.json");
        assert!(run(&file).unwrap_err().to_string().contains("read it"));
        let init = Init {
            runs_pods: false,
            programs: Vec::new(),
        };
        crate::disk::write(&file, &serde_json::to_vec(&init).unwrap()).unwrap();
        let refused = run(&file).unwrap_err().to_string();
        assert!(refused.contains("first process"), "{refused}");
    }

    #[test]
    fn a_log_is_bounded_and_its_program_goes_on_with_it() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let mut program = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        bound(&dir.path().join("no.log"), 5).unwrap();
        program.write_all(b"1234\n").unwrap();
        bound(&log, 5).unwrap();
        assert_eq!(text(&log), "1234\n");
        program.write_all(b"5\n").unwrap();
        bound(&log, 5).unwrap();
        program.write_all(b"6\n").unwrap();
        assert_eq!(
            (text(&older(&log)), text(&log)),
            ("1234\n5\n".into(), "6\n".into())
        );
    }

    #[test]
    fn a_program_that_ended_waits_before_it_is_started_again() {
        let programs = [Program {
            name: "x".into(),
            command: vec!["/bin/true".into()],
            after: None,
        }];
        let mut states = [State::Runs(7)];
        note_end(&programs, &mut states, 8, WaitStatus::Code(0));
        assert!(matches!(states[0], State::Runs(7)), "that was an orphan");
        note_end(&programs, &mut states, 7, WaitStatus::Signal(9));
        assert!(matches!(states[0], State::Waits(until) if until > Instant::now()));
        start_due(&programs, &mut states);
        assert!(matches!(states[0], State::Waits(_)));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_tried_again() {
        let programs = [Program {
            name: "x/no/such/directory".into(),
            command: vec!["/bin/true".into()],
            after: None,
        }];
        let mut states = [State::Waits(Instant::now())];
        start_due(&programs, &mut states);
        assert!(matches!(states[0], State::Waits(until) if until > Instant::now()));
    }

    #[test]
    fn a_program_waits_for_what_it_has_to_find() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let programs = [Program {
            name: "x/no/such/directory".into(),
            command: vec!["/bin/true".into()],
            after: Some(After {
                file: Some(file.clone()),
                port,
            }),
        }];
        let begun = Instant::now();
        let is_tried = || {
            let mut states = [State::Waits(begun)];
            start_due(&programs, &mut states);
            matches!(states[0], State::Waits(until) if until != begun)
        };
        assert!(!is_tried());
        File::create(&file).unwrap();
        assert!(is_tried());
        drop(listener);
        assert!(!is_tried());
    }
}
