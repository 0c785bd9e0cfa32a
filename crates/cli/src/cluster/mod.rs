//! Commands about clusters.

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

pub use enter::Then;

/// Does what a command asks for.
pub async fn perform(common: &Common, command: ClusterCommand) -> Result<Then> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::new("crisp cluster: nodes are privileged containers")
                .remedy("run this as root"),
        );
    }
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
        ClusterCommand::Delete => delete::delete(common).await?,
        // Has been done before anything else.
        ClusterCommand::Init { .. } => {}
    }
    Ok(Then::Done)
}
