//! The settings that an image has for its containers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The part of an OCI image config that containers are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `USER`: name or number, optionally with `:` and a group.
    pub user: String,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// First words of the command.
    pub entrypoint: Vec<String>,
    /// Words after the entrypoint.
    pub cmd: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// Paths whose content shall be a volume.
    pub volumes: Vec<String>,
    /// Signal that asks the container to stop.
    pub stop_signal: Option<String>,
    /// Labels. They are the image's words and never control anything.
    pub labels: BTreeMap<String, String>,
    /// Ports that the image says it listens on, as `80/tcp`.
    pub exposed_ports: Vec<String>,
}
