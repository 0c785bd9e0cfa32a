//! `list` and `state`.

use crate::arguments::{Format, ListArgs};
use crate::failure::{Failure, Result};
use crate::invocation::Invocation;
use crate::output::{json, pretty, print, table};
use crate::status::Container;

/// Prints the state of one container.
pub(crate) fn state(invocation: &Invocation, id: &str) -> Result<()> {
    let container = Container::find(&invocation.store, id)?;
    print(&pretty(&container.state())?)
}

/// Prints all containers. A container that cannot be read does not hide the others.
pub(crate) fn list(invocation: &Invocation, arguments: &ListArgs) -> Result<()> {
    let ids = invocation.store.ids()?;
    let mut found = Vec::new();
    for id in ids {
        match Container::find(&invocation.store, id.as_str()) {
            Ok(container) => found.push(container),
            // Deleted in between, or not there yet.
            Err(Failure::NotFound(_)) => {}
            Err(error) => invocation.journal.warning(&error.to_string()),
        }
    }
    if arguments.quiet {
        for container in &found {
            print(container.id.as_str())?;
        }
        return Ok(());
    }
    if arguments.format == Format::Json {
        let states: Vec<_> = found.iter().map(Container::state).collect();
        return print(&json(&states)?);
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(found.iter().map(row)).collect();
    print(&table(&rows))
}

fn row(container: &Container) -> [String; 6] {
    [
        container.id.as_str().to_owned(),
        container.pid().unwrap_or(0).to_string(),
        container.status.name().to_owned(),
        container.record.bundle.display().to_string(),
        container.record.created.clone(),
        "root".to_owned(),
    ]
}
