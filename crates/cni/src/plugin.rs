//! The plugin `crisp` as a program, for runtimes that only call programs. It needs no daemon.
//!
//! One process answers one call, as the CNI specification says: the call in the environment, the
//! configuration on stdin, the result or the error on stdout. The main function is in
//! `bin/crisp-cni.rs`.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::builtin::{Crisp, LinkRemoval, Owner, Request, Settings};
use crate::error::{Error, Result};
use crate::protocol::Version;

const DATA_ROOT: &str = "/var/lib/cni/crisp";
const CODE_INCOMPATIBLE_VERSION: u32 = 1;
const CODE_INVALID_ENVIRONMENT: u32 = 4;
const CODE_IO: u32 = 5;
const CODE_DECODING: u32 = 6;
const CODE_INVALID_CONFIG: u32 = 7;
const CODE_OTHER: u32 = 100;

/// The variables that a plugin is called with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
}

impl Environment {
    /// Reads this process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        let read = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            command: read("CNI_COMMAND"),
            container: read("CNI_CONTAINERID"),
            netns: read("CNI_NETNS"),
            interface: read("CNI_IFNAME"),
        }
    }

    fn owner(&self) -> Owner {
        Owner {
            container: self.container.clone(),
            interface: self.interface.clone(),
        }
    }

    fn request(&self, conf: &Value) -> Result<Request> {
        let netns = (!self.netns.is_empty()).then(|| PathBuf::from(&self.netns));
        Request::parse(self.owner(), netns, conf)
    }
}

/// The output of the program, and whether the call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// A result, an error or nothing, as JSON.
    pub stdout: String,
    /// Whether the call failed.
    pub failed: bool,
}

/// A failure with its code from the specification.
struct Failure(u32, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid { .. } | Error::Conf { .. } => CODE_INVALID_CONFIG,
            Error::Io { .. } => CODE_IO,
            _ => CODE_OTHER,
        };
        Self(code, error.to_string())
    }
}

/// Answers one call.
pub fn answer(environment: &Environment, input: impl Read) -> Answer {
    let mut version = Version::STATUS;
    match serve(environment, input, &mut version) {
        Ok(value) => Answer {
            stdout: value.map(|v| v.to_string()).unwrap_or_default(),
            failed: false,
        },
        Err(Failure(code, message)) => Answer {
            stdout: json!({"cniVersion": version.to_string(), "code": code, "msg": message})
                .to_string(),
            failed: true,
        },
    }
}

fn read_conf(input: impl Read) -> std::result::Result<Value, Failure> {
    let mut text = String::new();
    input
        .take(16 << 20)
        .read_to_string(&mut text)
        .map_err(|e| Failure(CODE_IO, format!("read the configuration from stdin: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Failure(CODE_DECODING, format!("configuration: {e}")))
}

fn serve(
    environment: &Environment,
    input: impl Read,
    version: &mut Version,
) -> std::result::Result<Option<Value>, Failure> {
    if environment.command == "VERSION" {
        let all: Vec<String> = Version::ALL.iter().map(ToString::to_string).collect();
        return Ok(Some(
            json!({"cniVersion": version.to_string(), "supportedVersions": all}),
        ));
    }
    let conf = read_conf(input)?;
    let text = conf.get("cniVersion").and_then(Value::as_str).unwrap_or("");
    let asked = if text.is_empty() {
        Version::OLDEST
    } else {
        Version::parse(text)?
    };
    if !asked.is_supported() {
        return Err(Failure(
            CODE_INCOMPATIBLE_VERSION,
            format!("cniVersion {asked} is not known"),
        ));
    }
    *version = asked;
    let settings = Settings::parse(&conf, Path::new(DATA_ROOT))?;
    let crisp = Crisp::open(settings, Arc::default())?;
    match environment.command.as_str() {
        "ADD" => return Ok(Some(crisp.add(&environment.request(&conf)?)?.render(asked))),
        "DEL" => crisp.del(&environment.request(&conf)?.owner, LinkRemoval::Now)?,
        "CHECK" => crisp.check(&environment.request(&conf)?)?,
        "GC" => crisp.collect(&valid_attachments(&conf)?)?,
        "STATUS" => {}
        other => {
            let message = format!("CNI_COMMAND {other:?}: ADD, DEL, CHECK, GC, STATUS or VERSION");
            return Err(Failure(CODE_INVALID_ENVIRONMENT, message));
        }
    }
    Ok(None)
}

/// The attachments that GC spares. A missing list is refused: read as an empty one, it would mean
/// that every attachment is stale.
fn valid_attachments(conf: &Value) -> Result<BTreeSet<Owner>> {
    let name = "cni.dev/valid-attachments";
    let listed = conf.get(name).or_else(|| conf.get("cni.dev/attachments"));
    let values = listed
        .and_then(Value::as_array)
        .ok_or_else(|| Error::invalid(name, "a list is expected"))?;
    let owner = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Owner {
            container: text("containerID")?,
            interface: text("ifname")?,
        })
    };
    values
        .iter()
        .map(|v| owner(v).ok_or_else(|| Error::invalid(name, format!("{v} names no attachment"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, input: &str, code: Option<u64>) {
        let environment = Environment {
            command: command.into(),
            ..Environment::default()
        };
        let answer = answer(&environment, input.as_bytes());
        let value: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(
            value["code"].as_u64(),
            code,
            "{command} {input}: {}",
            answer.stdout
        );
        assert_eq!(answer.failed, code.is_some());
    }

    #[test]
    fn version_and_bad_calls_are_answered() {
        check("VERSION", "", None);
        check("ADD", "", Some(6));
        check("ADD", r#"{"cniVersion": "9.0.0"}"#, Some(1));
        check(
            "ADD",
            r#"{"cniVersion": "1.0.0", "subnets": ["x"]}"#,
            Some(7),
        );
    }
}
