//! systemd's manager over D-Bus: the only file that knows zbus.
//!
//! One connection to the system bus, made at the first call and anew when it was lost: systemd's
//! private socket, which systemctl uses, is no stable interface, and zbus cannot speak to it. Every
//! call has a deadline, and a call that queues a job ends with the job: systemd sends JobRemoved to
//! the client that asked for the job, without a subscription to all signals.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::Cause;
use crisp_tasks::Worker;
use futures::StreamExt;
use tokio::sync::{Mutex, broadcast};
use zbus::{OwnedObjectPath, Variant, connection, proxy};

use crate::error::{Error, Part, Result};
use crate::property::Property;
use crate::scope::{Scope, Weights};

/// How long a call and its job may take, with all tries.
const WITHIN: Duration = Duration::from_secs(10);
/// Pauses, in milliseconds, before each further try when systemd or the bus was gone: either is for
/// a moment when it re-executes.
const PAUSES: [u64; 6] = [20, 50, 100, 300, 700, 1500];
/// How long systemd waits, in microseconds, between SIGTERM and SIGKILL when it stops a scope, as at
/// a shutdown: the grace period that Kubernetes gives by default.
const STOPS_WITHIN: u64 = 30_000_000;
/// Longer than their containers' scopes have: a shim exits after its container.
const SHIMS_STOP_WITHIN: u64 = STOPS_WITHIN + 5_000_000;
/// Ends of jobs that are buffered for those who wait; jobs of other clients are among them.
const ENDS: usize = 4096;
const INFINITY: u64 = u64::MAX;
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const INVALID: &str = "org.freedesktop.DBus.Error.InvalidArgs";
/// Errors of the bus itself when it cannot reach systemd.
const LOST: [&str; 6] = [
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.TimedOut",
    "org.freedesktop.DBus.Error.Spawn.ChildExited",
];

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
        properties: &[(&str, &Variant<'_>)],
        aux: &[(&str, &[(&str, &Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[(&str, &Variant<'_>)],
    ) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: &str, result: &str);
}

/// systemd, reached when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    client: Mutex<Option<Arc<Client>>>,
}

/// The end of a job: which, and how.
type End = (OwnedObjectPath, String);

type Properties = Vec<Property>;

/// As the bus takes them.
fn pairs(properties: &Properties) -> Vec<(&str, &Variant<'static>)> {
    let each = properties.iter();
    each.map(|property| (property.name.as_str(), &property.value))
        .collect()
}

/// A connection; closed when nobody uses it any more.
#[derive(Debug)]
struct Client {
    manager: ManagerProxy<'static>,
    ends: broadcast::WeakSender<End>,
    /// Ends with this connection.
    _listener: Worker<()>,
}

/// A request to systemd.
#[derive(Debug)]
enum Wish {
    Start,
    Stop,
    Make(Properties),
    Set(Properties),
}

/// Why a request was not met.
#[derive(Debug)]
enum Failure {
    /// systemd or the bus was not there, or went away: a later try may succeed.
    Lost(String),
    /// The request makes no sense to systemd.
    Invalid(String),
    /// systemd would not or could not meet it.
    Refused(String),
}

impl Systemd {
    /// Makes a delegated scope around a keeper.
    pub(crate) async fn start_scope(
        &self,
        scope: &Scope,
        keeper: i32,
        weights: &Weights,
    ) -> Result<()> {
        let description = format!("Container {}", scope.id());
        let mut properties = delegated(keeper, &description);
        properties.push(Property::of("TimeoutStopUSec", STOPS_WITHIN));
        properties.push(Property::of("Slice", scope.slice().to_owned()));
        properties.extend(numbers(weights));
        self.ask(scope.unit(), Wish::Make(properties)).await
    }

    /// Makes the scope of the shims around a keeper.
    pub(crate) async fn start_shims(&self, unit: &str, keeper: i32) -> Result<()> {
        let mut properties = delegated(keeper, "Shims of Crisp");
        properties.push(Property::of("TimeoutStopUSec", SHIMS_STOP_WITHIN));
        properties.push(Property::of("Slice", "system.slice"));
        self.ask(unit, Wish::Make(properties)).await
    }

    /// Makes the scope of a container without a daemon around a process; what the caller says of a
    /// property counts.
    pub(crate) async fn start_unit_around(
        &self,
        unit: &str,
        slice: &str,
        (process, given): (i32, Properties),
    ) -> Result<()> {
        let mut properties = delegated(process, &format!("Container {unit}"));
        properties.push(Property::of("Slice", slice.to_owned()));
        for accounting in ["CPU", "IO", "Memory", "Tasks"] {
            let name = format!("{accounting}Accounting");
            properties.push(Property::of(&name, true));
        }
        properties.retain(|usual| given.iter().all(|given| given.name != usual.name));
        properties.extend(given);
        self.ask(unit, Wish::Make(properties)).await
    }

    /// Sets any properties of a unit until it is gone; one that is gone is fine.
    pub(crate) async fn set_properties(&self, unit: &str, properties: Properties) -> Result<()> {
        self.ask(unit, Wish::Set(properties)).await
    }

    /// Starts a unit; one that runs is fine.
    pub(crate) async fn start(&self, unit: &str) -> Result<()> {
        self.ask(unit, Wish::Start).await
    }

    /// Stops a unit; one that is not there is fine.
    pub(crate) async fn stop(&self, unit: &str) -> Result<()> {
        self.ask(unit, Wish::Stop).await
    }

    /// Sets properties of a unit until it is gone; one that is gone is fine.
    pub(crate) async fn set(&self, unit: &str, weights: &Weights) -> Result<()> {
        self.ask(unit, Wish::Set(numbers(weights))).await
    }

    /// Asks until there is an answer, within the deadline.
    async fn ask(&self, unit: &str, wish: Wish) -> Result<()> {
        let tries = async {
            for pause in PAUSES {
                match self.attempt(unit, &wish).await {
                    Err(Failure::Lost(_)) => {
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                    outcome => return outcome,
                }
            }
            self.attempt(unit, &wish).await
        };
        let what = format!("{} {unit}", wish.verb());
        match tokio::time::timeout(WITHIN, tries).await {
            Ok(outcome) => outcome.map_err(|failure| failure.told(what)),
            Err(_) => {
                let text = format!("{what}: systemd did not do it within {WITHIN:?}");
                Err(Error::DeadlineExceeded(text))
            }
        }
    }

    async fn attempt(&self, unit: &str, wish: &Wish) -> std::result::Result<(), Failure> {
        let client = self.client().await?;
        match client.carry_out(unit, wish).await {
            Err(Failure::Lost(why)) => {
                let mut kept = self.client.lock().await;
                // Other calls keep waiting on the connection that they hold.
                kept.take_if(|kept| Arc::ptr_eq(kept, &client));
                Err(Failure::Lost(why))
            }
            outcome => outcome,
        }
    }

    async fn client(&self) -> std::result::Result<Arc<Client>, Failure> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| client.is_connected()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::connect().await?);
        Ok(Arc::clone(kept.insert(client)))
    }
}

impl Client {
    async fn connect() -> zbus::Result<Self> {
        let connection = connection::Builder::system().build().await?;
        let manager = ManagerProxy::new(&connection).await?;
        let mut removed = manager.receive_job_removed().await?;
        let (sender, _) = broadcast::channel(ENDS);
        let ends = sender.downgrade();
        // The stream ends with the connection; the sender is dropped then, which is how
        // `is_connected` notices.
        let listener = Worker::start(async move {
            while let Some(signal) = removed.next().await {
                if let Ok(end) = signal.args() {
                    // Fails when no call waits: fine.
                    drop(sender.send((end.job.clone(), end.result.to_owned())));
                }
            }
        });
        Ok(Self {
            manager,
            ends,
            _listener: listener,
        })
    }

    fn is_connected(&self) -> bool {
        self.ends.strong_count() > 0
    }

    async fn carry_out(&self, unit: &str, wish: &Wish) -> std::result::Result<(), Failure> {
        // Subscribed before the job is queued, or its end could be missed.
        let ends = self.ends.upgrade().ok_or_else(Failure::connection)?;
        let ends = ends.subscribe();
        let job = match wish {
            Wish::Start => self.manager.start_unit(unit, "replace").await,
            Wish::Stop => self.manager.stop_unit(unit, "replace").await,
            Wish::Make(properties) => {
                let properties = pairs(properties);
                let made = self
                    .manager
                    .start_transient_unit(unit, "fail", &properties, &[]);
                made.await
            }
            Wish::Set(properties) => {
                let properties = pairs(properties);
                let set = self.manager.set_unit_properties(unit, true, &properties);
                return set.await.or_else(|error| wish.unless_gone(error));
            }
        };
        match job {
            Ok(job) => finished(job, ends).await,
            Err(error) => wish.unless_gone(error),
        }
    }
}

impl Wish {
    fn verb(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Make(_) => "make",
            Self::Set(_) => "set properties of",
        }
    }

    /// A unit that is gone needs no stop and has no weight: both succeed.
    fn unless_gone(&self, error: zbus::Error) -> std::result::Result<(), Failure> {
        match (self, error) {
            (Self::Stop | Self::Set(_), zbus::Error::MethodError(name, ..))
                if name.as_str() == NO_SUCH_UNIT =>
            {
                Ok(())
            }
            (_, error) => Err(error.into()),
        }
    }
}

impl Failure {
    fn connection() -> Self {
        Self::Lost("the connection was lost".to_owned())
    }

    fn told(self, what: String) -> Error {
        match self {
            Self::Lost(why) => {
                let text = format!("{what}: systemd cannot be reached over D-Bus: {why}");
                Error::Unavailable(text)
            }
            Self::Invalid(why) => Error::Invalid {
                part: Part::Limits,
                why: format!("{what}: {why}"),
            },
            Self::Refused(why) => Error::Io {
                step: what,
                source: Cause::of(why),
            },
        }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        let zbus::Error::MethodError(name, text, _) = &error else {
            return Self::Lost(error.to_string());
        };
        let text = text.clone().unwrap_or_else(|| name.to_string());
        match name.as_str() {
            name if LOST.contains(&name) => Self::Lost(text),
            INVALID => Self::Invalid(text),
            _ => Self::Refused(text),
        }
    }
}

/// Waits for the end of a job.
async fn finished(
    job: OwnedObjectPath,
    mut ends: broadcast::Receiver<End>,
) -> std::result::Result<(), Failure> {
    loop {
        match ends.recv().await {
            Ok((ended, _)) if ended != job => {}
            Ok((_, result)) if result == "done" => return Ok(()),
            Ok((_, result)) => {
                let why = format!("systemd's job ended with {result:?}");
                return Err(Failure::Refused(why));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return Err(Failure::connection()),
        }
    }
}

/// Properties of every scope of ours.
fn delegated(pid: i32, description: &str) -> Properties {
    vec![
        Property::of("Description", description.to_owned()),
        Property::of("PIDs", vec![pid.unsigned_abs()]),
        // Also keeps systemd from ending the scope when the OOM killer strikes in it.
        Property::of("Delegate", true),
        // Slices are stopped at a shutdown, and scopes with them: that order is enough.
        Property::of("DefaultDependencies", false),
        Property::of("CollectMode", "inactive-or-failed"),
        // Lift systemd's default for scopes: the container's own limit counts.
        Property::of("TasksMax", INFINITY),
    ]
}

fn numbers(weights: &Weights) -> Properties {
    let each = weights.iter();
    each.map(|(name, value)| Property::number(name, *value))
        .collect()
}
