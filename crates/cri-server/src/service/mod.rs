//! CRI's two services over the engine: each call is checked, asked, answered.
//!
//! `runtime` and `images` are the wire's traits; the work of the calls stands beside them by noun.
//! Nothing here keeps state: what pods and containers are is the engine's to know.

mod containers;
mod events;
mod images;
mod pods;
mod roadmap;
mod runtime;
mod stats;
mod status;

use std::sync::Arc;

use crisp_node::Engine;
use serde_json::Value;

/// What both services stand on. Clones share everything.
#[derive(Debug, Clone)]
pub struct Service {
    engine: Engine,
    about: Arc<About>,
}

/// What does not change while the daemon runs.
#[derive(Debug)]
pub struct About {
    /// The configuration as it was written, for verbose status.
    pub config: Value,
    /// What the kernel can do, for verbose status.
    pub kernel: Value,
    /// Mount point of the disk that holds images and writable layers.
    pub mountpoint: String,
}

impl Service {
    /// The services over a started engine.
    #[must_use]
    pub fn new(engine: Engine, about: About) -> Self {
        Self {
            engine,
            about: Arc::new(about),
        }
    }
}
