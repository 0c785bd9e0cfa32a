//! The API server is asked by kubectl, which every cluster has: its answers and errors are those that
//! people know.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Context as _, Failure, Result};

/// How long one question may take; kubectl ends itself then.
const TIMEOUT: &str = "--request-timeout=20s";
/// Between two looks at what has to come.
const STEP: Duration = Duration::from_millis(250);

/// How long it is looked for without a word.
const SILENT: Duration = Duration::from_secs(5);

/// kubectl of one cluster, as its administrator.
#[derive(Debug)]
pub struct Kubectl {
    /// The program.
    pub program: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Whom errors name.
    pub whose: String,
}

impl Kubectl {
    /// Runs it with these words and this input, and tells what it says.
    pub fn run(&self, words: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let step = || format!("{}: kubectl {}", self.whose, words.join(" "));
        let mut command = crisp_sys::process::command(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg(TIMEOUT)
            .args(words)
            // Else it keeps what it learns of the API in the caller's home.
            .env("KUBECACHEDIR", self.kubeconfig.with_file_name("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context(step)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It says itself what is wrong when it does not read.
            stdin.write_all(input).ok();
        }
        let output = child.wait_with_output().context(step)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => {
                let told = String::from_utf8_lossy(&output.stderr);
                Err(told.trim().to_owned()).context(step)
            }
        }
    }

    /// Makes objects as they are described.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let words = ["apply", "--validate=false", "-f", "-"];
        self.run(&words, list.to_string().as_bytes()).map(drop)
    }

    /// An answer in JSON.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let words = [&["get", "-o", "json"], words].concat();
        let text = self.run(&words, b"")?;
        serde_json::from_slice(&text).context(|| {
            format!(
                "{}: read the answer to kubectl {}",
                self.whose,
                words.join(" ")
            )
        })
    }

    /// Asks again and again until something is so.
    ///
    /// The last refusal is the failure's cause when it does not become so in time.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            let looked = look(self);
            match looked {
                Ok(Some(found)) => return Ok(found),
                // It does not become a program by waiting.
                Err(failure) if is_no_program(&failure) => return Err(failure),
                _ => {}
            }
            if begun.elapsed() > SILENT && !is_told {
                crate::progress::say(format_args!("crisp: {}: waiting until {what}", self.whose));
                is_told = true;
            }
            if begun.elapsed() > within {
                let text = format!("{}: {what}: not in {} s", self.whose, within.as_secs());
                return Err(match looked {
                    Err(failure) => Failure::because(text, failure),
                    Ok(_) => Failure::new(text),
                });
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// Whether kubectl could not be run at all.
fn is_no_program(failure: &Failure) -> bool {
    let error = failure.cause::<io::Error>();
    error.is_some_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::PermissionDenied
        )
    })
}

/// When the kubelet of each node last told whether it is Ready, as an answer to `get nodes` says it.
pub fn heartbeats(nodes: &Value) -> BTreeMap<String, String> {
    let beat = |condition: &Value| {
        let text = condition["lastHeartbeatTime"].as_str();
        text.unwrap_or_default().to_owned()
    };
    let all = conditions(nodes).map(|(name, condition)| (name.to_owned(), beat(condition)));
    all.collect()
}

/// The nodes of an answer to `get nodes` that are Ready, by the word of a kubelet that runs: one that
/// has only the heartbeat of its former life has not told yet what it is now.
pub fn ready(nodes: &Value, former: &BTreeMap<String, String>) -> Vec<String> {
    let told = |name: &str, condition: &Value| {
        former
            .get(name)
            .is_none_or(|beat| condition["lastHeartbeatTime"] != beat.as_str())
    };
    conditions(nodes)
        .filter(|(name, condition)| condition["status"] == "True" && told(name, condition))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The condition Ready of each node that has one.
fn conditions(nodes: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = nodes["items"].as_array().into_iter().flatten();
    all.filter_map(|node| {
        let mut conditions = node["status"]["conditions"].as_array()?.iter();
        let ready = conditions.find(|condition| condition["type"] == "Ready")?;
        Some((node["metadata"]["name"].as_str()?, ready))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, conditions: &Value) -> Value {
        json!({"metadata": {"name": name}, "status": {"conditions": conditions}})
    }

    #[test]
    fn nodes_are_ready_when_they_say_so() {
        let nodes = json!({"items": [
            node("a", &json!([{"type": "Ready", "status": "True"}])),
            node("b", &json!([{"type": "Ready", "status": "Unknown"}])),
            node("c", &json!([{"type": "DiskPressure", "status": "True"}])),
            node("d", &json!(null)),
        ]});
        let unknown = BTreeMap::new();
        assert_eq!(ready(&nodes, &unknown), ["a"]);
        assert!(ready(&json!({}), &unknown).is_empty());
    }

    #[test]
    fn a_node_that_was_started_is_ready_when_its_new_kubelet_says_so() {
        let at = |status: &str, time: &str| {
            let ready = json!([{"type": "Ready", "status": status, "lastHeartbeatTime": time}]);
            json!({"items": [node("a", &ready)]})
        };
        let former = heartbeats(&at("True", "2026-01-01T00:00:00Z"));
        assert!(ready(&at("True", "2026-01-01T00:00:00Z"), &former).is_empty());
        assert!(ready(&at("False", "2026-01-01T00:00:05Z"), &former).is_empty());
        assert_eq!(ready(&at("True", "2026-01-01T00:00:05Z"), &former), ["a"]);
    }

    #[tokio::test]
    async fn a_kubectl_that_cannot_be_run_is_not_waited_for() {
        let kubectl = Kubectl {
            program: "/nonexistent/kubectl".into(),
            kubeconfig: "/k".into(),
            whose: "cluster x".into(),
        };
        let ask = |kubectl: &Kubectl| kubectl.run(&["version"], b"").map(Some);
        let asked = kubectl.until("it answers", Duration::from_secs(300), ask);
        let error = asked.await.unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_refusal_of_kubectl_is_the_cause() {
        let kubectl = Kubectl {
            program: "/bin/false".into(),
            kubeconfig: "/k".into(),
            whose: "cluster x".into(),
        };
        let error = kubectl.run(&["get", "x"], b"").unwrap_err().to_string();
        assert!(error.starts_with("cluster x: kubectl get x"), "{error}");
    }
}
