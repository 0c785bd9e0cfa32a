//! `ps`: the processes of a container, by their host pids.

use std::collections::BTreeSet;

use crisp_sys::process::command;

use crate::arguments::{Format, PsArgs};
use crate::failure::{Context, Failure, Result};
use crate::invocation::Invocation;
use crate::output::{json, print};
use crate::status::Container;

/// Prints the processes of a container.
pub(crate) fn ps(invocation: &Invocation, arguments: &PsArgs) -> Result<()> {
    let container = Container::find(&invocation.store, &arguments.id)?;
    let pids = if container.cgroup.exists() {
        container.cgroup.procs().context(|| "list the processes")?
    } else {
        // Of a container that has stopped.
        Vec::new()
    };
    if arguments.format == Format::Json {
        return print(&json(&pids)?);
    }
    let mut options = arguments.options.clone();
    if options.is_empty() {
        options.push("-ef".to_owned());
    }
    let listed = command("ps").args(options).output().context(|| "run ps")?;
    if !listed.status.success() {
        let said = String::from_utf8_lossy(&listed.stderr);
        return Err(Failure::Refused(format!("ps: {}", said.trim())));
    }
    let pids = pids.into_iter().collect();
    print(&lines_of(&String::from_utf8_lossy(&listed.stdout), &pids)?)
}

/// The head, and the lines of these pids.
fn lines_of(listed: &str, pids: &BTreeSet<i32>) -> Result<String> {
    let mut lines = listed.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Failure::refused("ps printed no column PID"))?;
    let ours = lines.filter(|line| {
        let field = line.split_whitespace().nth(column);
        let pid = field.and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    });
    let shown: Vec<&str> = std::iter::once(head).chain(ours).collect();
    Ok(shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_pid() {
        let listed = "UID PID PPID CMD\nroot 7 1 init 8\nroot 8 7 a 7\nroot 9 8 b";
        let pids = BTreeSet::from([7, 9]);
        let shown = lines_of(listed, &pids).unwrap();
        assert_eq!(shown, "UID PID PPID CMD\nroot 7 1 init 8\nroot 9 8 b");
        assert!(lines_of("CMD\nx", &pids).is_err());
    }
}
