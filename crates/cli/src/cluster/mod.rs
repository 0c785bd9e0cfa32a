//! Commands about clusters.

mod conditions;
mod delete;
mod enter;
mod foreground;
mod found;
mod image;
mod load;
mod logs;
mod look;
mod plan;
mod power;
mod ready;
mod redirects;
mod up;

use crate::arguments::{ClusterCommand, Common};
use crate::failure::{Failure, Result};
use crate::home::Home;
use crate::interrupt;

pub use enter::Then;

/// Does what a command asks for.
pub async fn perform(common: &Common, command: ClusterCommand) -> Result<Then> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::new("crisp cluster: nodes are privileged containers")
                .remedy("run this as root"),
        );
    }
    tell_when_ended(common, &command)?;
    match command {
        ClusterCommand::Up(up) => up::up(common, &up).await?,
        ClusterCommand::List => look::list(common).await?,
        ClusterCommand::Load { image, renamed } => {
            load::load(common, &image, renamed.as_deref()).await?;
        }
        ClusterCommand::Kubeconfig => look::kubeconfig(common)?,
        ClusterCommand::Logs {
            node,
            program,
            follow,
        } => logs::logs(common, &node, program.as_deref(), follow)?,
        ClusterCommand::Exec { node, command } => {
            let process = look::process(common, &node).await?;
            return Ok(Then::Enter {
                node,
                process,
                command,
            });
        }
        ClusterCommand::Stop { node } => power::stop(common, &node).await?,
        ClusterCommand::Start { node } => power::start(common, &node).await?,
        ClusterCommand::Delete => {
            let again = Home::at(&common.dir)?.cluster(&common.name);
            let again = || format!("{} removes the rest after that", again.command("delete"));
            let deleted = delete::delete(common).await;
            deleted.map_err(|failure| failure.or_remedy(again()))?;
        }
        // Has been done before anything else.
        ClusterCommand::Init { .. } => {}
    }
    Ok(Then::Done)
}

/// Has a command that changes a cluster say how it goes on, where its user ends it.
fn tell_when_ended(common: &Common, command: &ClusterCommand) -> Result<()> {
    let dir = Home::at(&common.dir)?.cluster(&common.name);
    match command {
        ClusterCommand::Up(_) => interrupt::tell("up", move || match dir.path().exists() {
            true => up::goes_on(&dir),
            false => "nothing of the cluster was made".to_owned(),
        }),
        ClusterCommand::Stop { node } => {
            let again = dir.command(&format!("stop {node}"));
            interrupt::tell("stop", move || format!("{again} does the rest"))
        }
        ClusterCommand::Start { node } => {
            let (list, again) = (dir.command("list"), dir.command(&format!("start {node}")));
            let text = format!("{list} tells whether it runs already, {again} starts it where not");
            interrupt::tell("start", move || text)
        }
        ClusterCommand::Delete => interrupt::tell("delete", move || {
            format!("{} removes the rest", dir.command("delete"))
        }),
        // These change nothing, or put back what they have changed.
        _ => Ok(()),
    }
}
