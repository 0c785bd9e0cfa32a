//! The engine's calls for sessions.

use std::sync::Arc;

use crisp_shim_api::AttachedInput;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::pod::message::ContainerRequest;
use crate::view::ContainerView;

use super::{Ask, Session, Wanted};

impl Engine {
    /// Runs a command in a container for as long as the session is held.
    ///
    /// # Errors
    /// When the container does not run, or the command cannot be started.
    pub async fn exec_session(
        &self,
        id: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Session> {
        let ask = Box::new(Ask::Exec { command, wanted });
        self.request(id, |reply| ContainerRequest::Session { ask, reply })
            .await
    }

    /// Attaches to a container for as long as the session is held: it gets the output from now on.
    ///
    /// # Errors
    /// When the container does not run, or has no standard input and that is wanted.
    pub async fn attach(&self, id: &str, wanted: Wanted) -> Result<Session> {
        let fate = AttachedInput::default();
        let ask = Box::new(Ask::Attach { wanted, fate });
        self.request(id, |reply| ContainerRequest::Session { ask, reply })
            .await
    }

    /// The streams that somebody who attaches to a container now would get of those wanted:
    /// whether it has a terminal, the container alone says.
    ///
    /// # Errors
    /// As [`Engine::attach`].
    pub fn attachable(&self, id: &str, wanted: Wanted) -> Result<Wanted> {
        let view = self.running_container(id)?;
        Ok(wanted.of_container(&view.config))
    }

    /// A container that runs, so that a command can be run in it.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`; `FailedPrecondition` when it does not run.
    pub fn running_container(&self, id: &str) -> Result<Arc<ContainerView>> {
        let view = self.container(id)?;
        if view.pid().is_some() {
            return Ok(view);
        }
        let (name, id) = (&view.config.name, &view.id);
        let text = format!("container {name} ({id}) is not running");
        Err(Error::FailedPrecondition(text))
    }
}
