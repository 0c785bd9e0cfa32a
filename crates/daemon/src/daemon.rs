//! The daemon's life: start, serve, stop. It ends within a second of SIGTERM, or two where clients of
//! sessions are slow to take their last words, and no pod with it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crisp_cgroups::CgroupDriver;
use crisp_cni::Network;
use crisp_cri_server::{About, Service};
use crisp_image::Images;
use crisp_model::Owner;
use crisp_node::host::{Host, Presence};
use crisp_node::{Engine, Timeouts};
use crisp_streaming::Server as Streaming;
use crisp_sys::{limits, memory, schedule};
use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;
use {crisp_cni as cni, crisp_image as image, crisp_registry as registry};

use crate::apparmor;
use crate::config::{Config, Source};
use crate::exit::{Context as _, Exit, Fatal};
use crate::helper;
use crate::metrics;
use crate::oci;
use crate::private::make_private;
use crate::second::{self, Stay};
use crate::socket::Socket;
use crate::streaming;

/// Calls that run when the daemon is to stop have this long to end.
const GRACE: Duration = Duration::from_millis(400);
/// Sessions of the streaming server have this long to tell their clients: a client that hears nothing
/// takes a command that was killed for a success.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The engine has what is left of this time to flush its records, and some time in any case; recovery
/// reads those that it misses.
const RETIREMENT: Duration = Duration::from_millis(700);
const FLUSH: Duration = Duration::from_millis(300);
/// Then spans that wait for a collector have this long to reach it.
const LAST_SPANS: Duration = Duration::from_millis(100);
/// Then threads that are stuck in the kernel are left behind.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// Less is too short for the service manager's watchdog: a round is made every five seconds, and
/// may take ten.
const WATCHDOG_AT_LEAST: Duration = Duration::from_secs(20);

/// A kubelet and its tools have a dozen connections.
const MOST_CLIENTS: usize = 1024;

/// Idle threads for blocking work end after this time.
const IDLE_THREAD: Duration = Duration::from_secs(5);

/// The file system's magic number (statfs(2)).
const OVERLAYFS: u64 = 0x794c_7630;

/// Where other tools look for network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start, with the exit code and the reason.
pub fn run(config: Config, files: &[PathBuf]) -> Result<(), Fatal> {
    let runtime = runtime(&config)?;
    let telemetry = {
        // The connection to a collector belongs to the runtime.
        let _inside = runtime.enter();
        crisp_telemetry::start(&crisp_telemetry::Options {
            filter: &config.log_filter,
            format: config.log_format.into(),
            otlp_endpoint: config.otlp_endpoint.as_deref(),
            version: env!("CARGO_PKG_VERSION"),
        })
    };
    let outcome = runtime.block_on(live(config, files));
    telemetry.end(LAST_SPANS);
    runtime.shutdown_timeout(STRAGGLERS);
    match &outcome {
        Ok(()) => tracing::info!("crispd ends; pods go on"),
        Err(fatal) => tracing::error!(reason = fatal.reason, "crispd cannot go on"),
    }
    outcome
}

fn runtime(config: &Config) -> Result<Runtime, Fatal> {
    // No more threads than workers are busy for long.
    memory::share_arenas(config.workers);
    Builder::new_multi_thread()
        .worker_threads(config.workers)
        .max_blocking_threads(config.blocking_threads)
        .thread_keep_alive(IDLE_THREAD)
        .thread_name("crispd")
        .on_thread_park(ask_for_short_slices)
        .enable_all()
        .build()
        .context(Exit::System, || "start threads")
}

/// Asks for an async worker's thread, at the first time that it rests. Threads of blocking steps do
/// not park, and have slices of the usual length, unless one has taken over for a worker.
fn ask_for_short_slices() {
    thread_local!(static ASKED: Cell<bool> = const { Cell::new(false) });
    if !ASKED.replace(true) {
        // A kernel that refuses lets callers wait a little longer.
        drop(schedule::take_short_slices());
    }
}

async fn live(config: Config, files: &[PathBuf]) -> Result<(), Fatal> {
    let mut stop = Stop::listen()?;
    let dirs = [config.root.clone(), config.state.clone()];
    tokio::select! {
        started = start(config, files) => {
            let Started { socket, streaming, engine, service, metrics: _metrics } = started?;
            let doors = ((socket, Stay::at(dirs)), streaming);
            let told = serve(doors, service, (&engine, stop)).await?;
            let until = (told + RETIREMENT).max(Instant::now() + FLUSH);
            if tokio::time::timeout_at(until, engine.shutdown()).await.is_err() {
                tracing::warn!("the stop took too long: records may not be on disk, and the next start checks them");
            }
            Ok(())
        }
        name = stop.wait() => {
            tracing::info!(signal = name, "told to stop before the start was over");
            Ok(())
        }
    }
}

/// The parts of a daemon that is ready to serve calls.
struct Started {
    socket: Socket,
    /// The only owner: dropped, it ends all sessions.
    streaming: Arc<Streaming>,
    engine: Engine,
    service: Service,
    metrics: Option<crisp_telemetry::metrics::Server>,
}

/// The start, up to the point where calls can be served.
async fn start(config: Config, files: &[PathBuf]) -> Result<Started, Fatal> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        root = %config.root.display(),
        state = %config.state.display(),
        socket = %config.socket.display(),
        ?files,
        "crispd starts"
    );
    let mut host = Host::look();
    host.log();
    if let Presence::Missing(reason) = host.privilege() {
        return Err(Fatal::new(Exit::Permission, reason));
    }
    if config.cgroups.driver == CgroupDriver::Systemd {
        let unfit = |reason| Fatal::new(Exit::Config, format!("cgroup.driver: {reason}"));
        host.suits_systemd().map_err(unfit)?;
    }
    if let (Source::Builtin { .. }, Presence::Missing(reason)) =
        (&config.network.source, host.network_privilege())
    {
        return Err(Fatal::new(Exit::Permission, reason));
    }
    second::refuse(&config.root)?;
    second::refuse(&config.state)?;
    make_private(&config.root)?;
    make_private(&config.state)?;
    tell_of_overlay(&config.root);
    if let Some(path) = &config.images.docker_config {
        tell_of_credentials(path);
    }
    // Clients that connect from now on wait until all records are read.
    let socket = Socket::take(&config.socket)?;
    let streaming = Arc::new(streaming::start(config.streaming.clone()).await?);
    let metrics = metrics::begin(config.metrics).await?;
    apparmor::set_up(&mut host).await;
    let kernel = host.to_json();
    let engine = engine(&config, host).await?;
    let about = About {
        config: config.shown(),
        kernel,
        mountpoint: engine
            .images()
            .fs_info()
            .mountpoint
            .to_string_lossy()
            .into_owned(),
    };
    let streams = Arc::downgrade(&streaming);
    let (operations, metrics) = metrics.serve(&engine, streams.clone());
    let service = Service::new(engine.clone(), streams, about, operations);
    Ok(Started {
        metrics,
        socket,
        streaming,
        engine,
        service,
    })
}

/// Opens images and network, and starts the engine on them.
async fn engine(config: &Config, host: Host) -> Result<Engine, Fatal> {
    let shim = helper::find("crisp-shim", config.shim.as_deref());
    let holder = helper::find("crisp-holder", config.holder.as_deref());
    let (shim_path, holder_path) = tokio::try_join!(shim, holder)?;
    let handlers = oci::handlers(&config.handlers).await;
    let images = image_config(config);
    let network = network_config(config);
    // Both read the disk, so they are opened off the serving threads.
    let opened = crisp_tasks::blocking(move || {
        let images = Images::open(images).context(Exit::State, || "open the images")?;
        let network = Network::open(network).context(Exit::State, || "open the network")?;
        Ok::<_, Fatal>((images, network))
    });
    let opened = opened
        .await
        .context(Exit::Software, || "open images and network")?;
    let (images, network) = opened?;
    // Below the store of layers: what its file system can do is asked.
    let user_namespaces = helper::can_map(&holder_path, &config.root).await;
    if let Err(why) = &user_namespaces {
        tracing::info!(%why, "pods cannot have user namespaces");
    }
    let config = crisp_node::Config {
        host,
        root: config.root.clone(),
        state: config.state.clone(),
        netns_dir: NETNS_DIR.into(),
        shim_path,
        holder_path,
        user_namespaces,
        seccomp_dir: config.seccomp_dir.clone(),
        cdi_dirs: config.cdi_dirs.clone(),
        cgroups: config.cgroups.clone(),
        handlers,
        timeouts: Timeouts::default(),
        images,
        network,
    };
    Engine::start(config, Owner::Cri)
        .await
        .context(Exit::State, || "open the records")
}

fn image_config(config: &Config) -> image::Config {
    image::Config {
        root: config.root.clone(),
        registry: registry::Config {
            hosts_dir: config.images.hosts_dir.clone(),
            docker_config: config.images.docker_config.clone(),
            user_agent: concat!("crisp/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: registry::Timeouts::default(),
        },
        max_parallel_layers: config.images.parallel_layers,
        grace: image::GRACE,
        keep_free_percent: config.images.keep_free_percent,
        pinned: config.images.pinned.clone(),
    }
}

fn network_config(config: &Config) -> cni::Config {
    cni::Config {
        mode: match config.network.source.clone() {
            Source::Builtin {
                bridge,
                subnets,
                wait_for_pod_cidr,
                allow_annotations,
                allow_foreign_sources,
                masquerade_except,
                mtu,
            } => cni::Mode::Builtin(cni::Builtin {
                bridge,
                subnets,
                pod_cidr: if wait_for_pod_cidr {
                    cni::Need::Required
                } else {
                    cni::Need::Optional
                },
                allow_annotations,
                sources: if allow_foreign_sources {
                    cni::Sources::Any
                } else {
                    cni::Sources::Own
                },
                masquerade_except,
                mtu,
            }),
            Source::Conf(dir) => cni::Mode::Conf { dir },
        },
        bin_dirs: config.network.bin_dirs.clone(),
        cache_dir: config.root.join("cni"),
        timeout: config.network.timeout,
    }
}

/// Overlayfs takes no directory of another overlayfs as its upper one, so that each container would
/// fail at its start with a bare EINVAL.
fn tell_of_overlay(root: &Path) {
    let kind = std::fs::File::open(root).and_then(crisp_sys::mount::file_system_magic);
    if matches!(kind, Ok(OVERLAYFS)) {
        tracing::warn!(
            root = %root.display(),
            "the root directory lies on overlayfs, where no container can start: set daemon.root to \
             a directory on another file system, such as a volume"
        );
    }
}

/// A file of credentials that cannot be used is named at the start, and not first at a pull; it may
/// come later, so that the daemon starts.
fn tell_of_credentials(path: &Path) {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| {
        serde_json::from_slice::<serde_json::Value>(&text).map_err(|error| error.to_string())
    });
    if let Err(error) = parsed {
        tracing::warn!(path = %path.display(), error, "images.docker_config cannot be used: pulls have no credentials of it");
    }
}

/// The clients that may be connected at a time: a quarter of the open files, but never so few that
/// the kubelet and an operator find no place.
fn clients_at_most(open_files: u64) -> usize {
    usize::try_from(open_files / 4).map_or(MOST_CLIENTS, |quarter| quarter.clamp(8, MOST_CLIENTS))
}

/// Serves calls until a signal; then running calls have [`GRACE`] to end. Says when the signal came.
async fn serve(
    ((socket, stay), streaming): ((Socket, Stay), Arc<Streaming>),
    service: Service,
    (engine, mut stop): (&Engine, Stop),
) -> Result<Instant, Fatal> {
    let listener = socket.listener().and_then(UnixListener::from_std);
    let listener = listener.context(Exit::System, || "listen")?;
    let (quit, told) = oneshot::channel::<()>();
    let seats = clients_at_most(limits::most_open_files());
    let server = crisp_cri_server::serve((listener, seats), service, async {
        // A dropped sender means stop as well.
        drop(told.await);
    });
    let mut server = std::pin::pin!(server);
    notify(&[NotifyState::Ready]);
    tracing::info!("ready");
    tokio::select! {
        ended = &mut server => {
            return ended.context(Exit::System, || "serve").map(|()| Instant::now());
        }
        name = stop.wait() => tracing::info!(signal = name, "told to stop"),
        never = feed_watchdog(engine) => match never {},
    }
    let told = Instant::now();
    notify(&[NotifyState::Stopping]);
    drop((socket, stay));
    drop(quit);
    // Sessions end before the engine does, which ends what they ran. A stream of events never ends
    // by itself, so the wait has a limit.
    let calls = tokio::time::timeout_at(told + GRACE, server);
    let ((), ended) = tokio::join!(streaming.stop(LAST_WORDS), calls);
    drop(streaming);
    if let Ok(ended) = ended {
        ended.context(Exit::System, || "serve")?;
    }
    Ok(told)
}

/// Tells the service manager's watchdog of every round through the daemon's threads that comes
/// back: the same rounds that make the runtime ready.
async fn feed_watchdog(engine: &Engine) -> std::convert::Infallible {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    if within < WATCHDOG_AT_LEAST {
        tracing::warn!(
            ?within,
            "WatchdogSec is too short: a busy node takes up to {WATCHDOG_AT_LEAST:?} for a sign of life"
        );
    }
    loop {
        engine.next_round().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// The signals that stop the daemon.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Fatal> {
        let on = |kind| signal(kind).context(Exit::System, || "take signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop and returns its name. SIGHUP does not stop a daemon.
    async fn wait(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP is ignored: restart crispd to read the configuration anew");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_most_of_the_open_files() {
        let seats = [16, 256, 1024, 1 << 20, u64::MAX].map(clients_at_most);
        assert_eq!(seats, [8, 64, 256, 1024, 1024]);
    }
}
