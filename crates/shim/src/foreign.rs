//! A container that another OCI runtime starts: what is asked of its program, each time with a
//! deadline.
//!
//! The program makes and starts processes, and nothing more is left to it. Its container's init
//! becomes a child of the shim, is in the cgroup that Crisp knows and writes to pipes of Crisp's, so
//! signals, limits, logs and the end go the same way as with Crisp's own runtime.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio as Standard};
use std::sync::Arc;
use std::time::Duration;

use crisp_runtime::Stdio;
use crisp_shim_api::{FOREIGN, Foreign, MAX_FOREIGN, RootfsSpec};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::fork::{CloneFlags, unshare};
use crisp_sys::mount::{self, Depth, Propagation};
use crisp_sys::pidfd::PidFd;
use crisp_sys::process;
use crisp_sys::socket::Receiver;
use crisp_sys::{file, rootfs};
use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;

use crate::bundle;
use crate::error::{Context, Error, Result};

/// How long the program may take to make a container. The daemon waits for a minute in all.
const MAKES_WITHIN: Duration = Duration::from_secs(40);
/// How long it may take to make a process in one, for which the daemon waits ten seconds.
const EXECS_WITHIN: Duration = Duration::from_secs(8);
/// How long it may take to let the container's program run.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to forget a container that is over. Then its directory is removed.
const FORGETS_WITHIN: Duration = Duration::from_secs(5);
/// How long the kernel may take to end it when it was killed; the daemon waits meanwhile.
const DIES_WITHIN: Duration = Duration::from_millis(500);
/// How long a terminal may take to come once the process is there.
const TERMINAL_WITHIN: Duration = Duration::from_secs(5);
/// No log of one call is longer; of a longer one no reason is told.
const MAX_LOG: u64 = 1024 * 1024;

/// The directory of the bundle in which it works.
const DIR: &str = "foreign";

/// The program of one container.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    foreign: Foreign,
    id: &'a str,
    dir: PathBuf,
}

/// A process that the program has made.
#[derive(Debug)]
pub(crate) struct Made {
    pub pid: i32,
    pub pidfd: PidFd,
    /// Master of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// Warnings: the parts of the spec that could not be met to the letter.
    pub warnings: Vec<String>,
}

/// Whether the program ends with this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It does.
    WithUs,
    /// It goes on.
    Alone,
}

impl<'a> Program<'a> {
    /// The program of a container; `None` for Crisp itself.
    pub(crate) fn of(bundle: &Path, id: &'a str) -> Result<Option<Self>> {
        let path = bundle.join(FOREIGN);
        let step = || format!("read {}", path.display());
        let bytes = match file::read_bounded(&path, MAX_FOREIGN) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.context(step)?,
        };
        let foreign = Foreign::decode(&bytes).map_err(io::Error::other);
        Ok(Some(Self {
            foreign: foreign.context(step)?,
            id,
            dir: bundle.join(DIR),
        }))
    }

    /// In a worker: makes the container, whose program does not run yet. This process gets a mount
    /// namespace of its own, and with it goes what is mounted for the container.
    pub(crate) fn create(&self, mut spec: Spec, root: &RootfsSpec, stdio: Stdio) -> Result<Made> {
        // A child whose parent has ended becomes ours, and the shim's after this worker's report.
        process::set_child_subreaper().context(|| "become a subreaper")?;
        unshare(CloneFlags::NEWNS).context(|| "make a mount namespace")?;
        let root = bundle::rootfs(root);
        let warnings = crisp_runtime::mount_plainly(&mut spec, &root, &self.foreign.root_at)?;
        let user = spec.process().as_ref().map(|process| process.user().uid());
        if let Some(owner) = user.and_then(|user| crisp_runtime::user_on_host(&spec, user)) {
            stdio.give_to(owner);
        }
        let bundle = self.dir.clone();
        let step = || format!("write the spec in {}", bundle.display());
        file::make_private_dirs(&bundle).context(step)?;
        let text = serde_json::to_vec(&spec).map_err(io::Error::from);
        let path = bundle.join("config.json");
        file::write_atomic(&path, &text.context(step)?, 0o600).context(step)?;
        let words = ["create".as_ref(), "--bundle".as_ref(), bundle.as_os_str()];
        let made = self.make(&words, stdio, MAKES_WITHIN)?;
        Ok(Made { warnings, ..made })
    }

    /// In a worker: lets the container's program run.
    pub(crate) fn start(&self) -> Result<()> {
        let words = ["start".as_ref(), self.id.as_ref()];
        let nothing = [Standard::null(), Standard::null(), Standard::null()];
        self.run(&words, nothing, (STARTS_WITHIN, Ends::WithUs))
    }

    /// In a worker: runs a process in the container, in a `cgroup` below it, which is made in the version
    /// 2 tree.
    pub(crate) fn exec(
        &self,
        process: &Process,
        stdio: Stdio,
        (container, cgroup): (&Cgroup, &Cgroup),
    ) -> Result<Made> {
        process::set_child_subreaper().context(|| "become a subreaper")?;
        let own = Own::make(container, cgroup)?;
        let made = self.exec_in(process, stdio, own.name.as_deref());
        if made.is_err() {
            own.remove(container, cgroup);
        }
        made
    }

    fn exec_in(&self, process: &Process, stdio: Stdio, own: Option<&str>) -> Result<Made> {
        let path = self.dir.join(format!("process-{}", std::process::id()));
        let step = || format!("write {}", path.display());
        let text = serde_json::to_vec(process).map_err(io::Error::from);
        file::write_atomic(&path, &text.context(step)?, 0o600).context(step)?;
        let mut words: Vec<&OsStr> = vec!["exec".as_ref(), "--detach".as_ref()];
        words.extend(["--process".as_ref(), path.as_os_str()]);
        if let Some(own) = own {
            words.extend::<[&OsStr; 2]>(["--cgroup".as_ref(), own.as_ref()]);
        }
        let made = self.make(&words, stdio, EXECS_WITHIN);
        drop(std::fs::remove_file(&path));
        made
    }

    /// Has the program forget the container, which is over. Its directory goes even when the program
    /// has gone or fails.
    pub(crate) fn delete(&self) -> Result<()> {
        let state = self.foreign.root.join(self.id);
        if !state.exists() {
            return Ok(());
        }
        let words = ["delete".as_ref(), "--force".as_ref(), self.id.as_ref()];
        let nothing = [Standard::null(), Standard::null(), Standard::null()];
        // The directory is all that is left, and goes now.
        drop(self.run(&words, nothing, (FORGETS_WITHIN, Ends::Alone)));
        let removed = file::remove_tree_if_there(&state);
        removed.context(|| format!("remove {}", state.display()))
    }

    /// Runs the program for a process that it makes.
    fn make(&self, words: &[&OsStr], stdio: Stdio, within: Duration) -> Result<Made> {
        let pid_file = self.dir.join(format!("pid-{}", std::process::id()));
        let mut words = words.to_vec();
        words.extend(["--pid-file".as_ref(), pid_file.as_os_str()]);
        let is_terminal = matches!(stdio, Stdio::Terminal);
        let terminal = is_terminal
            .then(|| Console::listen(&self.dir))
            .transpose()?;
        if let Some(terminal) = &terminal {
            words.extend(["--console-socket".as_ref(), terminal.path.as_os_str()]);
        }
        words.push(self.id.as_ref());
        let made = self.run(&words, standard(stdio), (within, Ends::WithUs));
        let told = made.and_then(|()| read_pid(&pid_file));
        drop(std::fs::remove_file(&pid_file));
        let pid = told?;
        let pidfd = PidFd::open(pid).context(|| format!("open process {pid}"))?;
        let console = terminal.map(Console::receive).transpose()?;
        Ok(Made {
            pid,
            pidfd,
            console,
            warnings: Vec::new(),
        })
    }

    fn run(
        &self,
        words: &[&OsStr],
        [stdin, stdout, stderr]: [Standard; 3],
        (within, ends): (Duration, Ends),
    ) -> Result<()> {
        let name = self.foreign.program.display();
        let verb = words.first().copied().unwrap_or_default().display();
        let step = || format!("{name} {verb}");
        let log = self.dir.join(format!("log-{}", std::process::id()));
        drop(file::remove_if_there(&log));
        let mut command = process::command(&self.foreign.program);
        process::reset_signals(&mut command);
        command.arg("--root").arg(&self.foreign.root);
        command.arg("--log").arg(&log);
        command.args(["--log-format", "json"]).args(words);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        if ends == Ends::WithUs {
            process::end_with_parent(&mut command);
        }
        let child = command.spawn().context(step)?;
        // Its streams are the container's: they are not held here any longer.
        drop(command);
        let outcome = ended(child, within).context(step);
        let said = last_error(&log);
        drop(file::remove_if_there(&log));
        match (outcome?, said) {
            (Ok(()), _) => Ok(()),
            (Err(status), None) => Err(failed(step(), status)),
            (Err(_), Some(said)) => Err(failed(step(), said)),
        }
    }
}

/// A terminal that the program is to hand out.
struct Console {
    /// Shorter than a socket's path may be, however long the bundle's is.
    path: PathBuf,
    real: PathBuf,
    receiver: Receiver,
    /// By which the path leads there.
    _dir: OwnedFd,
}

impl Console {
    fn listen(dir: &Path) -> Result<Self> {
        let name = format!("terminal-{}", std::process::id());
        let real = dir.join(&name);
        let step = || format!("listen at {}", real.display());
        drop(file::remove_if_there(&real));
        let receiver = Receiver::bind(&real).context(step)?;
        let opened = rootfs::open_root(dir).context(step)?;
        // The program is another process.
        let here = rootfs::proc_path(&opened);
        let below = here.strip_prefix("/proc/self").unwrap_or(&here);
        let there = PathBuf::from(format!("/proc/{}", std::process::id()));
        Ok(Self {
            path: there.join(below).join(name),
            real,
            receiver,
            _dir: opened,
        })
    }

    fn receive(self) -> Result<OwnedFd> {
        let received = self.receiver.receive(TERMINAL_WITHIN);
        drop(file::remove_if_there(&self.real));
        received.context(|| "receive the terminal from the runtime")
    }
}

/// The streams as the program is to have them, which hands them on.
fn standard(stdio: Stdio) -> [Standard; 3] {
    match stdio {
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => [
            stdin.map_or_else(Standard::null, Standard::from),
            stdout.into(),
            stderr.into(),
        ],
        Stdio::Empty {
            stdin,
            stdout,
            stderr,
        } => [stdin.into(), stdout.into(), stderr.into()],
        Stdio::Inherit | Stdio::Terminal | Stdio::RelayedTerminal => {
            [Standard::null(), Standard::null(), Standard::null()]
        }
    }
}

/// The cgroup of an exec, made in the version 2 tree.
///
/// Beside version 1 hierarchies no program can be told of one cgroup in that tree alone. There this
/// worker enters, so that the process is born in it, and shows it in the place of the container's to
/// programs that move the process.
#[derive(Debug, Default)]
struct Own {
    /// Its name below the container's, where the program is told to enter it.
    name: Option<String>,
    /// The cgroup that this worker has left for it.
    before: Option<Cgroup>,
}

impl Own {
    fn make(container: &Cgroup, cgroup: &Cgroup) -> Result<Self> {
        let (Some(of_all), Some(dir)) = (container.unified_dir(), cgroup.unified_dir()) else {
            return Ok(Self::default());
        };
        let step = |what: &str| format!("{what} the cgroup {}", dir.display());
        std::fs::create_dir(&dir).context(|| step("make"))?;
        let layout = cgroup.layout();
        if let (Some(tree), false) = (layout.unified(), layout.is_v2()) {
            let before = in_unified(layout).context(|| "find the own cgroup")?;
            cgroup.enter_unified().context(|| step("enter"))?;
            let shown = unshare(CloneFlags::NEWNS).and_then(|()| {
                mount::set_propagation(tree, Propagation::Private, Depth::Single)?;
                let own = mount::open_tree(&dir, Depth::Single)?;
                mount::attach(own.as_fd(), rootfs::open_root(&of_all)?.as_fd())
            });
            shown.context(|| step("show the program"))?;
            return Ok(Self {
                name: None,
                before: Some(before),
            });
        }
        let name = dir.file_name().unwrap_or_default();
        Ok(Self {
            name: Some(name.to_string_lossy().into_owned()),
            before: None,
        })
    }

    /// Ends whatever a program that failed has left there. A cgroup that stays goes with the
    /// container's.
    fn remove(self, container: &Cgroup, cgroup: &Cgroup) {
        if let (Some(before), Some(shown)) = (self.before, container.unified_dir()) {
            drop(mount::unmount(&shown));
            drop(before.enter_unified());
        }
        drop(crisp_runtime::destroy(cgroup));
    }
}

/// The cgroup of this process in the version 2 tree.
fn in_unified(layout: &Arc<Layout>) -> io::Result<Cgroup> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or(ErrorKind::NotFound)?;
    Ok(Cgroup::new(Arc::clone(layout), path))
}

fn read_pid(path: &Path) -> Result<i32> {
    let step = || format!("read {}", path.display());
    let text = std::fs::read_to_string(path).context(step)?;
    let pid = text.trim().parse::<i32>().map_err(io::Error::other);
    pid.context(step)
}

fn failed(step: String, why: String) -> Error {
    Error::Io {
        step,
        source: io::Error::other(why),
    }
}

/// Waits for the end, and kills a program that takes too long; says how it failed, if it did. A program
/// that the kernel does not end is left to the parent of this process.
fn ended(mut child: Child, within: Duration) -> io::Result<std::result::Result<(), String>> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let waited = PidFd::open(pid).and_then(|pidfd| {
        let in_time = pidfd.ends_within(within)?;
        if !in_time {
            drop(child.kill());
            pidfd.ends_within(DIES_WITHIN)?;
        }
        Ok(in_time)
    });
    let in_time = waited.inspect_err(|_| drop(child.kill()))?;
    let late = format!("it took longer than {within:?} and was killed");
    Ok(match (in_time, child.try_wait()?) {
        (true, Some(status)) if status.success() => Ok(()),
        (true, Some(status)) => Err(status.to_string()),
        (false, Some(_)) => Err(late),
        (_, None) => Err(format!(
            "{late}, but process {pid} does not end: it waits in the kernel, most often for a file \
             system that does not answer"
        )),
    })
}

/// A line of the log of an OCI runtime.
#[derive(Debug, Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// The last error in a log.
fn last_error(log: &Path) -> Option<String> {
    let bytes = file::read_bounded(log, MAX_LOG).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().rev();
    lines.find_map(|line| {
        let line: Line = serde_json::from_str(line).ok()?;
        matches!(line.level.as_str(), "error" | "fatal").then_some(line.msg)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;

    fn sleeper() -> Child {
        let mut command = process::command("sleep");
        command.arg("60").spawn().unwrap()
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let told = ended(sleeper(), Duration::from_millis(50)).unwrap();
        let told = told.unwrap_err();
        assert!(told.ends_with("50ms and was killed"), "{told}");
    }

    /// A process that stands still in a version 1 freezer does not notice that it was killed, as one
    /// that waits for a file system does not. In the version 2 tree it ends.
    #[test]
    fn privileged_a_program_that_cannot_be_killed_is_left() {
        let layout = Arc::new(Layout::detect().unwrap());
        let path = format!("crisp-test-unkillable-{}", std::process::id());
        let cgroup = Cgroup::new(Arc::clone(&layout), &path);
        cgroup.create().unwrap();
        let child = sleeper();
        let pid = i32::try_from(child.id()).unwrap();
        cgroup.attach(pid).unwrap();
        crisp_runtime::pause(&cgroup).unwrap();
        let began = Instant::now();
        let told = ended(child, Duration::from_millis(50));
        let took = began.elapsed();
        crisp_runtime::resume(&cgroup).unwrap();
        let told = told.unwrap().unwrap_err();
        if !layout.is_v2() {
            assert!(
                told.contains(&format!("process {pid} does not end")),
                "{told}"
            );
            waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap();
        }
        crisp_runtime::destroy(&cgroup).unwrap();
        assert!(told.contains("took longer than 50ms"), "{told}");
        assert!(took < DIES_WITHIN + Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn the_last_error_of_a_log_is_the_one_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_error(&log), None);
        let text = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\nno JSON\n\
                    {\"level\":\"error\",\"msg\":\"last\"}\n{\"level\":\"info\",\"msg\":\"bye\"}\n";
        file::write_atomic(&log, text.as_bytes(), 0o600).unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("last"));
    }
}
