//! Runs crictl as a user would, against one endpoint, and reads what it prints.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::tools;

/// A crictl that talks to one endpoint.
#[derive(Debug, Clone)]
pub struct Crictl {
    endpoint: String,
}

impl Crictl {
    /// For the socket at a path.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self {
            endpoint: format!("unix://{}", socket.display()),
        }
    }

    /// The command, not started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tools::tool("crictl"));
        command.args(["--config", "/dev/null", "--timeout", "30s"]);
        command.args([
            "--runtime-endpoint",
            &self.endpoint,
            "--image-endpoint",
            &self.endpoint,
        ]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Its output; a failure is a panic.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        tools::succeeded(&format!("crictl {}", arguments.join(" ")), &output)
    }

    /// Its output without the last newline.
    #[track_caller]
    #[must_use]
    pub fn line(&self, arguments: &[&str]) -> String {
        self.ok(arguments).trim_end().to_owned()
    }

    /// Its output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{text}"))
    }

    /// Its complaint; a success is a panic.
    #[track_caller]
    #[must_use]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let words = arguments.join(" ");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "crictl {words} succeeded: {text}");
        text + &String::from_utf8_lossy(&output.stderr)
    }
}
