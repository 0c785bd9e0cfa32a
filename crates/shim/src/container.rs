//! The container that a shim owns: launch, exec, update and end.
//!
//! Launch, exec and update run in a [`crate::worker`], a forked copy of the shim, and may block. The
//! rest of the shim calls the runtime only through this file, which chooses between Crisp's own and
//! another's program ([`crate::foreign`]).

use std::fs::File;
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crisp_runtime::{CreateRequest, Gate, Keyring, Stdio};
use crisp_shim_api::exit::BeginRecord;
use crisp_shim_api::{
    ExecRequest, ExecStreams, ExecWords, FailureKind, Launch, MAX_WORDS, RootfsSpec, Stdin,
};
use crisp_sys::cgroup::Cgroup;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::{self, ProcessId};
use crisp_sys::{file, lent_node, pipe};
use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::io::Errno;

use crate::again::Again;
use crate::bundle;
use crate::error::{Context, Error, Result};
use crate::foreign::{Made, Program};
use crate::foresight::Foresight;
use crate::ready::Ready;
use crate::worker::{Report, Reported, Streams};

/// The container's first process.
#[derive(Debug)]
pub(crate) struct Init {
    pub id: ProcessId,
    pub pidfd: PidFd,
    pub parent: Parent,
}

/// The process that reaps init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// This shim, whose worker started it.
    Us,
    /// The process that the kernel gave it to when the shim that started it was killed.
    Another,
}

/// The container that a shim owns.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: RootfsSpec,
    pub stdin: Stdin,
    pub cgroup: Cgroup,
    /// Its exit slot.
    pub exit_file: PathBuf,
    /// `oom_score_adj` that this process was born with: the container is not to have ours.
    pub oom_score_adj: i32,
    /// Made once: it is the costly part of an exec's streams.
    pub empty_input: Option<Arc<OwnedFd>>,
    /// The part of the spec that an exec needs ([`Again`]), once the container was started.
    pub again: Option<String>,
}

/// A process that runs.
struct Running {
    pid: i32,
    warnings: Vec<String>,
    streams: Streams,
    /// Its pidfd first.
    fds: Vec<OwnedFd>,
    again: Option<String>,
}

impl Container {
    /// The container of a launch.
    pub(crate) fn new(launch: Launch, ready: Ready) -> Self {
        Self {
            id: launch.container_id.as_str().to_owned(),
            bundle: launch.bundle,
            rootfs: launch.rootfs,
            stdin: launch.stdin,
            cgroup: Cgroup::new(ready.layout, launch.cgroup_path.as_str()),
            exit_file: launch.exit_file,
            oom_score_adj: ready.oom_score_adj,
            empty_input: ready.empty_input,
            again: None,
        }
    }

    /// Creates it, but for what was done already, and starts it once it may.
    pub(crate) fn launch(
        &self,
        foresight: Foresight,
        wait: impl FnOnce() -> Result<()>,
    ) -> Reported {
        report(FailureKind::Start, self.try_launch(foresight, wait))
    }

    /// Runs a process in it.
    pub(crate) fn exec(&self, init: &Init, request: &ExecRequest, fds: Vec<OwnedFd>) -> Reported {
        report(FailureKind::Exec, self.try_exec(init, request, fds))
    }

    /// Changes its limits.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Reported {
        let report = match crisp_runtime::update(&self.cgroup, resources) {
            Ok(_) => Report::Done,
            // It ended meanwhile, and its files with it.
            Err(_) if !self.cgroup.exists() => Report::Failed {
                kind: FailureKind::NotRunning,
                message: crisp_runtime::Error::NotRunning.to_string(),
                errno: None,
            },
            Err(error) => Report::Failed {
                kind: FailureKind::Io,
                message: error.to_string(),
                // A limit that makes no sense is refused before the kernel is asked.
                errno: match error.is_refusal() {
                    true => Some(Errno::INVAL.raw_os_error()),
                    false => error.errno(),
                },
            },
        };
        (report, Vec::new())
    }

    /// Kills what is left of it, and removes its cgroup.
    pub(crate) fn destroy(&self) -> Result<()> {
        crisp_runtime::destroy(&self.cgroup)?;
        match self.program()? {
            Some(program) => program.delete(),
            None => Ok(()),
        }
    }

    /// The program that starts it, if Crisp itself does not.
    fn program(&self) -> Result<Option<Program<'_>>> {
        Program::of(&self.bundle, &self.id)
    }

    /// The cgroup of one process that was exec'd.
    pub(crate) fn exec_cgroup(&self, exec_id: &str) -> Cgroup {
        crisp_runtime::exec_cgroup(&self.cgroup, exec_id)
    }

    fn try_launch(
        &self,
        mut foresight: Foresight,
        wait: impl FnOnce() -> Result<()>,
    ) -> Result<Running> {
        self.step_out_of_ours()?;
        if let Some(program) = self.program()? {
            let launched = self.launch_by(&program, wait);
            return launched.inspect_err(|_| {
                // As below.
                drop(self.destroy());
            });
        }
        let bytes = bundle::read_spec(&self.bundle)?;
        let spec = match foresight.spec(&bytes) {
            Some(spec) => spec,
            None => bundle::parse(&self.bundle, &bytes)?,
        };
        // It is not freed: the worker ends with its report, which should not wait for that.
        let spec = ManuallyDrop::new(spec);
        let plumbing = self.plumbing(&spec)?;
        let mut created = crisp_runtime::create(CreateRequest {
            root_by: crisp_runtime::RootBy::Pivot,
            tenant: None,
            id: &self.id,
            bundle: &self.bundle,
            spec: &spec,
            raw_environment: bundle::raw_environment(&self.bundle)?,
            rootfs: bundle::rootfs(&self.rootfs),
            ahead: foresight.steps,
            cgroup: &self.cgroup,
            stdio: plumbing.theirs,
            gate: Gate::Socket,
            keyring: Keyring::New,
            preserved_fds: 0,
        })?;
        let filter = created.filter.take();
        let write_down = |own| Again::write_down(own, filter.as_ref());
        let start = || {
            wait()?;
            self.note_begin(created.pid);
            let started = created.start_while(|| spec.process().as_ref().and_then(write_down));
            started.map_err(Error::from)
        };
        let again = start().inspect_err(|_| {
            // The failure of the start is the one to report. A cgroup that cannot be removed now
            // is found again by its name.
            drop(self.destroy());
        })?;
        let mut fds = vec![created.pidfd.into()];
        fds.extend(plumbing.ours);
        fds.extend(created.console);
        Ok(Running {
            pid: created.pid,
            warnings: created.warnings,
            streams: plumbing.streams,
            fds,
            again,
        })
    }

    /// As [`Self::try_launch`], by another's program. Not each knows the version 2 tree beside version 1
    /// hierarchies, so that init is put into its cgroup once more.
    fn launch_by(
        &self,
        program: &Program<'_>,
        wait: impl FnOnce() -> Result<()>,
    ) -> Result<Running> {
        let bytes = bundle::read_spec(&self.bundle)?;
        let spec = bundle::parse(&self.bundle, &bytes)?;
        let again = spec.process().as_ref();
        let again = again.and_then(|own| Again::write_down(own, None));
        let plumbing = self.plumbing(&spec)?;
        let step = |what: &str| format!("{what} the cgroup {}", self.cgroup.path());
        self.cgroup.create().context(|| step("make"))?;
        let made = program.create(spec, &self.rootfs, plumbing.theirs)?;
        self.cgroup.attach(made.pid).context(|| step("enter"))?;
        wait()?;
        self.note_begin(made.pid);
        program.start()?;
        let mut running = made.running(plumbing.streams, again);
        running.fds.splice(1..1, plumbing.ours);
        Ok(running)
    }

    fn plumbing(&self, spec: &Spec) -> Result<Plumbing> {
        let terminal = spec.process().as_ref().and_then(Process::terminal);
        match terminal {
            Some(true) => Ok(Plumbing::terminal()),
            _ => Plumbing::pipes(self.stdin, self.empty()),
        }
    }

    /// Before its program runs: when both this shim and the daemon are killed now, the next daemon
    /// must not take the container for one that was never started. Without a slot it may.
    fn note_begin(&self, init: i32) {
        let Ok(ProcessId { pid, start_time }) = ProcessId::of(init) else {
            return;
        };
        let slot = BeginRecord { pid, start_time }.to_slot();
        drop(file::fill_slot(&self.exit_file, &slot));
    }

    fn try_exec(&self, init: &Init, request: &ExecRequest, fds: Vec<OwnedFd>) -> Result<Running> {
        self.step_out_of_ours()?;
        let program = self.program()?;
        let again = match self.again.as_deref().and_then(Again::read) {
            Some(again) => again,
            None => {
                let bytes = bundle::read_spec(&self.bundle)?;
                let spec = bundle::parse(&self.bundle, &bytes)?;
                Again::of(&spec, &self.id, &self.bundle)?
            }
        };
        let (request, fds) = with_words(request, fds)?;
        let process = exec_process(again.process, &request);
        let mut fds = fds.into_iter();
        let (stdio, streams) = match (fds.next(), fds.next(), fds.next()) {
            (stdin, Some(stdout), Some(stderr)) => {
                // The daemon's null device is the host's.
                let is_null = |fd: &OwnedFd| lent_node::is_null(fd).unwrap_or(false);
                let empty = stdin.as_ref().is_none_or(is_null).then(|| self.empty());
                let stdio = stdio(stdin, empty.flatten(), [stdout, stderr]);
                (stdio, Streams::Elsewhere)
            }
            _ => (Stdio::Terminal, Streams::Terminal),
        };
        if let Some(program) = program {
            let cgroup = self.exec_cgroup(&request.exec_id);
            let user = process.user().uid();
            if let Some(owner) = crisp_runtime::user_of_process(init.id.pid, user) {
                stdio.give_to(owner);
            }
            let made = program.exec(&process, stdio, (&self.cgroup, &cgroup))?;
            return Ok(made.running(streams, None));
        }
        let execed = crisp_runtime::exec(crisp_runtime::ExecRequest {
            container_pid: init.id.pid,
            container: &init.pidfd,
            filter: again.filter,
            process: &process,
            // The daemon's specs name none.
            linux: None,
            raw_environment: bundle::raw_environment(&self.bundle)?,
            cgroup: &self.cgroup,
            exec_id: Some(&request.exec_id),
            stdio,
            keyring: Keyring::New,
            preserved_fds: 0,
        })?;
        let mut fds = vec![execed.pidfd.into()];
        fds.extend(execed.console);
        Ok(Running {
            pid: execed.pid,
            warnings: execed.warnings,
            streams,
            fds,
            again: None,
        })
    }

    fn empty(&self) -> Option<OwnedFd> {
        self.empty_input.as_ref()?.try_clone().ok()
    }

    /// A worker has the shim's protection from the OOM killer; what it starts must not inherit it.
    fn step_out_of_ours(&self) -> Result<()> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        process::set_oom_score_adj(own, self.oom_score_adj).context(|| "reset oom_score_adj")?;
        Ok(())
    }
}

impl Made {
    fn running(self, streams: Streams, again: Option<String>) -> Running {
        let mut fds = vec![self.pidfd.into()];
        fds.extend(self.console);
        Running {
            pid: self.pid,
            warnings: self.warnings,
            streams,
            fds,
            again,
        }
    }
}

/// The request with its words, which may have come in a file.
fn with_words(request: &ExecRequest, mut fds: Vec<OwnedFd>) -> Result<(ExecRequest, Vec<OwnedFd>)> {
    let mut request = request.clone();
    if request.words == ExecWords::InFile {
        let step = || "read the command of an exec";
        let missing = || std::io::Error::from(ErrorKind::NotFound);
        let file = fds.pop().ok_or_else(missing).context(step)?;
        let text = file::read_all_bounded(File::from(file), MAX_WORDS).context(step)?;
        let taken = request.take_words(&text).map_err(std::io::Error::other);
        taken.context(step)?;
    }
    Ok((request, fds))
}

/// The container's own process with another command.
fn exec_process(own: Process, request: &ExecRequest) -> Process {
    if let Some(process) = &request.process {
        let mut process = process.as_ref().clone();
        if process.oom_score_adj().is_none() {
            process.set_oom_score_adj(own.oom_score_adj());
        }
        return process;
    }
    let mut process = own;
    process.set_args(Some(request.args.clone()));
    process.set_terminal(Some(request.streams == ExecStreams::Terminal));
    process.set_console_size(None);
    process
}

/// Streams with this input, or instead of it an empty one that is at hand.
fn stdio(stdin: Option<OwnedFd>, empty: Option<OwnedFd>, output: [OwnedFd; 2]) -> Stdio {
    let [stdout, stderr] = output;
    match empty {
        Some(stdin) => Stdio::Empty {
            stdin,
            stdout,
            stderr,
        },
        None => Stdio::Fds {
            stdin,
            stdout,
            stderr,
        },
    }
}

/// Both sides of the container's standard streams.
struct Plumbing {
    theirs: Stdio,
    ours: Vec<OwnedFd>,
    streams: Streams,
}

impl Plumbing {
    fn terminal() -> Self {
        Self {
            theirs: Stdio::Terminal,
            ours: Vec::new(),
            streams: Streams::Terminal,
        }
    }

    fn pipes(stdin: Stdin, empty: Option<OwnedFd>) -> Result<Self> {
        let pipe = || pipe::pipe().context(|| "make a pipe");
        let (stdout_read, stdout) = pipe()?;
        let (stderr_read, stderr) = pipe()?;
        let mut ours = vec![stdout_read, stderr_read];
        let (stdin, empty, streams) = match stdin {
            Stdin::Null => (None, empty, Streams::Output),
            Stdin::Open => {
                let (stdin, write) = pipe()?;
                ours.push(write);
                (Some(stdin), None, Streams::InputAndOutput)
            }
        };
        let theirs = stdio(stdin, empty, [stdout, stderr]);
        Ok(Self {
            theirs,
            ours,
            streams,
        })
    }
}

fn report(kind: FailureKind, outcome: Result<Running>) -> Reported {
    let identified = outcome.and_then(|running| {
        let id = ProcessId::of(running.pid).context(|| "identify the process")?;
        Ok((running, id))
    });
    match identified {
        Ok((running, id)) => {
            let report = Report::Started {
                pid: id.pid,
                start_time: id.start_time,
                warnings: running.warnings,
                streams: running.streams,
                again: running.again,
            };
            (report, running.fds)
        }
        Err(error) => failed(kind, &error),
    }
}

fn failed(kind: FailureKind, error: &Error) -> Reported {
    let kind = match error {
        Error::Runtime(crisp_runtime::Error::NotRunning) => FailureKind::NotRunning,
        _ => kind,
    };
    let report = Report::Failed {
        kind,
        message: error.to_string(),
        errno: error.errno(),
    };
    (report, Vec::new())
}
