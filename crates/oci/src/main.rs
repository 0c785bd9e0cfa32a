//! `crisp-oci`: runs containers from OCI bundles, with runc's command line.
//!
//! It has one thread and no daemon: each command reads what the one before left below `--root`, and
//! asks the kernel for the rest. Only `record` writes there; only `delete` takes apart.

#![forbid(unsafe_code)]

mod arguments;
mod attend;
mod bundle;
mod delete;
mod document;
mod events;
mod exec;
mod failure;
mod figures;
mod invocation;
mod journal;
mod kill;
mod list;
mod make;
mod memory_events;
mod output;
mod pause;
mod plumbing;
mod program;
mod ps;
mod readiness;
mod record;
mod run;
mod scope;
mod spec;
mod status;
mod terminal;
mod update;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;
use failure::{Failure, Result};
use invocation::Invocation;
use journal::Journal;

fn main() -> ExitCode {
    // A parent that ignores SIGCHLD would have the kernel reap the children that we wait for.
    let waits = crisp_sys::signals::begin();
    // A container that could write to this file would run as root on the host one day.
    let sealed = crisp_sys::own_binary::run_read_only(c"crisp-oci");
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Standard output may be closed, which is no error here.
            drop(error.print());
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    // It may be a descriptor of the caller's, as /dev/fd/3; those are closed next.
    let process = arguments.command.process_file().map(program::read_file);
    let closed = plumbing::close_leaked(arguments.command.plumbing());
    let invocation = match Invocation::new(&arguments.global) {
        Ok(invocation) => invocation,
        Err(error) => {
            Journal::to_stderr().error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let enters = arguments.command.plumbing().is_some();
    if let Some(error) = sealed.err().filter(|_| enters) {
        let text = format!("this program's file is not protected from containers: {error}");
        invocation.journal.warning(&text);
    }
    if let Err(error) = waits {
        let text = format!("signals that the caller blocked stay so: {error}");
        invocation.journal.warning(&text);
    }
    invocation
        .journal
        .debug(&format!("{:?}", arguments.command));
    match closed.and_then(|()| perform(&invocation, &arguments.command, process)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let (told, code) = told(&arguments.command, &error);
            invocation.journal.error(&told);
            ExitCode::from(code)
        }
    }
}

fn perform(
    invocation: &Invocation,
    command: &Command,
    process: Option<Result<Vec<u8>>>,
) -> Result<u8> {
    match command {
        Command::Run(arguments) => return run::run(invocation, arguments),
        Command::Exec(arguments) => return exec::exec(invocation, arguments, process.transpose()?),
        Command::Create(arguments) => run::create(invocation, arguments),
        Command::Start(named) => run::start(invocation, &named.id),
        Command::State(named) => list::state(invocation, &named.id),
        Command::Kill(arguments) => kill::kill(invocation, arguments),
        Command::Delete(arguments) => delete::delete(invocation, arguments),
        Command::Ps(arguments) => ps::ps(invocation, arguments),
        Command::Pause(named) => pause::pause(invocation, &named.id),
        Command::Resume(named) => pause::resume(invocation, &named.id),
        Command::Update(arguments) => update::update(invocation, arguments),
        Command::Events(arguments) => events::events(invocation, arguments),
        Command::Features => output::print(&output::pretty(&crisp_runtime::features())?),
        Command::Spec(arguments) => spec::spec(arguments),
        Command::List(arguments) => list::list(invocation, arguments),
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
