//! systemd's manager over D-Bus: the only place that knows either.
//!
//! One connection to the system bus, made at the first call and anew when it was lost: systemd's
//! own socket, which systemctl uses, is no stable interface and speaks no D-Bus that zbus takes.
//! Every call has a deadline, and a call that queues a job ends with the job: systemd tells the end
//! of a job to whoever asked for it, without a subscription to all that it does.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Mutex, broadcast};
use zbus::{OwnedObjectPath, Variant, connection, proxy};

use super::scope::Scope;
use crate::error::{Error, Result};

/// How long a call and its job may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to join a scope that comes or goes.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// Jobs of everybody whose ends are kept for those who wait.
const ENDS: usize = 4096;
/// The first version whose scopes have an `OOMPolicy`, and end with their first OOM kill without.
const OOM_POLICY_SINCE: u32 = 253;
const INFINITY: u64 = u64::MAX;
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, Variant<'_>)],
    ) -> zbus::Result<()>;
    // Read once: nothing is gained from a cache, which would fetch everything.
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: &str, result: &str);
}

/// systemd, reached when it is needed.
#[derive(Debug, Default)]
pub(super) struct Systemd {
    client: Mutex<Option<Client>>,
}

/// The end of a job: which, and how.
type End = (OwnedObjectPath, String);

#[derive(Debug, Clone)]
struct Client {
    manager: ManagerProxy<'static>,
    version: u32,
    ends: broadcast::WeakSender<End>,
}

impl Systemd {
    /// Makes a delegated scope around a keeper.
    pub(super) async fn start_scope(
        &self,
        scope: &Scope,
        keeper: i32,
        weights: &[(&'static str, u64)],
    ) -> Result<()> {
        let what = format!("make {}", scope.unit());
        in_time(&what, async {
            let client = self.client().await?;
            let pids = pids(keeper);
            let mut properties = vec![
                (
                    "Description",
                    Variant::from(format!("Container {}", scope.id())),
                ),
                ("Slice", Variant::from(scope.slice())),
            ];
            properties.extend(delegated(pids));
            properties.extend(numbers(weights));
            if client.version >= OOM_POLICY_SINCE {
                properties.push(("OOMPolicy", Variant::from("continue")));
            }
            client.start_transient(scope.unit(), &properties).await
        })
        .await
    }

    /// Makes the scope of the shims around one of them.
    pub(super) async fn start_shims(&self, unit: &str, shim: i32) -> Result<()> {
        in_time(&format!("make {unit}"), async {
            let client = self.client().await?;
            let mut properties = vec![
                ("Description", Variant::from("Shims of Crisp")),
                ("Slice", Variant::from("system.slice")),
            ];
            properties.extend(delegated(pids(shim)));
            if client.version >= OOM_POLICY_SINCE {
                properties.push(("OOMPolicy", Variant::from("continue")));
            }
            client.start_transient(unit, &properties).await
        })
        .await
    }

    /// Starts a unit; one that runs is fine.
    pub(super) async fn start(&self, unit: &str) -> Result<()> {
        in_time(&format!("start {unit}"), async {
            let client = self.client().await?;
            let ends = client.listen()?;
            let job = client.manager.start_unit(unit, "replace").await;
            finished(job.map_err(told)?, ends).await
        })
        .await
    }

    /// Stops a unit; one that is not there is fine.
    pub(super) async fn stop(&self, unit: &str) -> Result<()> {
        in_time(&format!("stop {unit}"), async {
            let client = self.client().await?;
            let ends = client.listen()?;
            match client.manager.stop_unit(unit, "replace").await {
                Ok(job) => finished(job, ends).await,
                Err(error) => unless_gone(error),
            }
        })
        .await
    }

    /// Sets properties of a unit until it is gone; one that is gone is fine.
    pub(super) async fn set(&self, unit: &str, properties: &[(&'static str, u64)]) -> Result<()> {
        in_time(&format!("set the weights of {unit}"), async {
            let client = self.client().await?;
            let properties = numbers(properties);
            let set = client.manager.set_unit_properties(unit, true, &properties);
            set.await.or_else(unless_gone)
        })
        .await
    }

    async fn client(&self) -> std::result::Result<Client, String> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| client.is_connected()) {
            return Ok(client.clone());
        }
        let client = Client::connect()
            .await
            .map_err(|error| format!("systemd cannot be reached over D-Bus: {error}"))?;
        Ok(kept.insert(client).clone())
    }
}

impl Client {
    async fn connect() -> zbus::Result<Self> {
        let connection = connection::Builder::system().build().await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut removed = manager.receive_job_removed().await?;
        let version = manager.version().await?;
        let (sender, _) = broadcast::channel(ENDS);
        let ends = sender.downgrade();
        // Ends with the connection, and with it the sender: that is how the loss is known.
        tokio::spawn(async move {
            while let Some(signal) = removed.next().await {
                if let Ok(end) = signal.args() {
                    // Nobody may be waiting.
                    drop(sender.send((end.job.clone(), end.result.to_owned())));
                }
            }
        });
        Ok(Self {
            manager,
            version: leading_number(&version),
            ends,
        })
    }

    fn is_connected(&self) -> bool {
        self.ends.strong_count() > 0
    }

    /// Ends of jobs from now on: to be called before the job is asked for.
    fn listen(&self) -> std::result::Result<broadcast::Receiver<End>, String> {
        let sender = self.ends.upgrade();
        let lost = || "the connection to systemd was lost".to_owned();
        Ok(sender.ok_or_else(lost)?.subscribe())
    }

    async fn start_transient(
        &self,
        unit: &str,
        properties: &[(&str, Variant<'_>)],
    ) -> std::result::Result<(), String> {
        let ends = self.listen()?;
        let started = self
            .manager
            .start_transient_unit(unit, "fail", properties, &[]);
        finished(started.await.map_err(told)?, ends).await
    }
}

/// Runs a call within the deadline.
async fn in_time(
    what: &str,
    call: impl Future<Output = std::result::Result<(), String>>,
) -> Result<()> {
    match tokio::time::timeout(WITHIN, call).await {
        Ok(outcome) => outcome.map_err(|why| Error::Unavailable(format!("{what}: {why}"))),
        Err(_) => {
            let text = format!("{what}: systemd did not do it within {WITHIN:?}");
            Err(Error::DeadlineExceeded(text))
        }
    }
}

/// Waits for the end of a job.
async fn finished(
    job: OwnedObjectPath,
    mut ends: broadcast::Receiver<End>,
) -> std::result::Result<(), String> {
    loop {
        match ends.recv().await {
            Ok((ended, _)) if ended != job => {}
            Ok((_, result)) if result == "done" => return Ok(()),
            Ok((_, result)) => return Err(format!("systemd's job ended with {result:?}")),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => {
                return Err("the connection to systemd was lost".to_owned());
            }
        }
    }
}

/// Properties of every scope of ours.
fn delegated(pids: Variant<'static>) -> Vec<(&'static str, Variant<'static>)> {
    vec![
        ("PIDs", pids),
        ("Delegate", Variant::from(true)),
        // Containers are stopped by whoever runs pods, not by the order of a shutdown.
        ("DefaultDependencies", Variant::from(false)),
        ("CollectMode", Variant::from("inactive-or-failed")),
        // systemd has a default for scopes; the limit is the container's own.
        ("TasksMax", Variant::from(INFINITY)),
    ]
}

fn numbers(properties: &[(&'static str, u64)]) -> Vec<(&'static str, Variant<'static>)> {
    let each = properties.iter();
    each.map(|(name, value)| (*name, Variant::from(*value)))
        .collect()
}

fn pids(pid: i32) -> Variant<'static> {
    Variant::from(vec![pid.unsigned_abs()])
}

fn told(error: zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, Some(text), _) => format!("{text} ({name})"),
        other => other.to_string(),
    }
}

fn unless_gone(error: zbus::Error) -> std::result::Result<(), String> {
    match error {
        zbus::Error::MethodError(name, ..) if name.as_str() == NO_SUCH_UNIT => Ok(()),
        other => Err(told(other)),
    }
}

/// `252.38-1~deb12u1` is 252.
fn leading_number(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit());
    let number = &version[..digits.unwrap_or(version.len())];
    number.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_number_that_it_begins_with() {
        for (text, version) in [("252.38-1~deb12u1", 252), ("258", 258), ("v1", 0), ("", 0)] {
            assert_eq!(leading_number(text), version, "{text}");
        }
    }
}
