//! `crisp-oci`: runs containers from OCI bundles, with runc's command line.
//!
//! One thread, no daemon: each command reads what the one before left below `--root`, and asks the
//! kernel for the rest. Only `record` writes there; only `delete` takes apart.

#![forbid(unsafe_code)]

mod arguments;
mod attend;
mod bundle;
mod delete;
mod exec;
mod failure;
mod journal;
mod kill;
mod list;
mod make;
mod output;
mod pause;
mod plumbing;
mod program;
mod ps;
mod record;
mod run;
mod spec;
mod status;
mod terminal;
mod update;

use std::process::ExitCode;

use arguments::{Arguments, Command, Global};
use clap::Parser;
use failure::{Failure, Result};
use journal::Journal;
use record::Store;

/// What every command needs.
#[derive(Debug)]
struct Context {
    store: Store,
    journal: Journal,
    /// Whether the caller wants systemd to manage the cgroups.
    systemd: bool,
}

impl Context {
    fn new(global: &Global) -> Result<Self> {
        Ok(Self {
            store: Store::new(&global.root)?,
            journal: Journal::open(global)?,
            systemd: global.accepted.systemd_cgroup,
        })
    }
}

fn main() -> ExitCode {
    // A container that could write to this file would run as root on the host one day.
    let sealed = crisp_sys::own_binary::run_read_only(c"crisp-oci");
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody may be reading.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let closed = plumbing::close_leaked(arguments.command.plumbing());
    let context = match Context::new(&arguments.global) {
        Ok(context) => context,
        Err(error) => {
            Journal::to_stderr().error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let enters = arguments.command.plumbing().is_some();
    if let Some(error) = sealed.err().filter(|_| enters) {
        let text = format!("this program's file is not protected from containers: {error}");
        context.journal.warning(&text);
    }
    context.journal.debug(&format!("{:?}", arguments.command));
    match closed.and_then(|()| perform(&context, &arguments.command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let (told, code) = told(&arguments.command, &error);
            context.journal.error(&told);
            ExitCode::from(code)
        }
    }
}

fn perform(context: &Context, command: &Command) -> Result<u8> {
    match command {
        Command::Run(arguments) => return run::run(context, arguments),
        Command::Exec(arguments) => return exec::exec(context, arguments),
        Command::Create(arguments) => run::create(context, arguments),
        Command::Start(named) => run::start(context, &named.id),
        Command::State(named) => list::state(context, &named.id),
        Command::Kill(arguments) => kill::kill(context, arguments),
        Command::Delete(arguments) => delete::delete(context, arguments),
        Command::Ps(arguments) => ps::ps(context, arguments),
        Command::Pause(named) => pause::pause(context, &named.id),
        Command::Resume(named) => pause::resume(context, &named.id),
        Command::Update(arguments) => update::update(context, arguments),
        Command::Features => output::print(&output::pretty(&crisp_runtime::features())?),
        Command::Spec(arguments) => spec::spec(arguments),
        Command::List(arguments) => list::list(context, arguments),
    }
    .map(|()| 0)
}

/// The message and exit code of a failure, as runc has them. An `exec` that fails says 255, so that
/// a program that ended with 1 can be told from one that never began.
fn told(command: &Command, error: &Failure) -> (String, u8) {
    match command {
        Command::Create(_) => (format!("create failed: {error}"), 1),
        Command::Run(_) => (format!("run failed: {error}"), 1),
        Command::Exec(_) => (format!("exec failed: {error}"), 255),
        _ => (error.to_string(), 1),
    }
}
