//! The daemon's life: start, serve, stop. It ends within a second of SIGTERM, and no pod with it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_cni::Network;
use crisp_cri_server::{About, Service};
use crisp_image::Images;
use crisp_node::host::{Presence, Report};
use crisp_node::{CgroupDriver, Engine, Timeouts};
use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use {crisp_cni as cni, crisp_image as image, crisp_registry as registry};

use crate::config::{Config, Source};
use crate::exit::{Exit, Fatal};
use crate::socket::Socket;

/// Calls that run when the daemon is to stop have this long to end.
const GRACE: Duration = Duration::from_millis(400);
/// Then the engine has this long to put its records to rest; what it misses, recovery finds.
const RETIREMENT: Duration = Duration::from_millis(300);
/// Then threads that are stuck in the kernel are left behind.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// Idle threads for blocking work end after this time.
const IDLE_THREAD: Duration = Duration::from_secs(5);

/// Where packages put the helpers.
const HELPERS: &str = "/usr/libexec/crisp";

/// Where other tools look for network namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start, with the exit code and the reason.
pub fn run(config: Config, files: &[PathBuf]) -> Result<(), Fatal> {
    crisp_telemetry::start(&config.log_filter, config.log_format.into());
    let runtime = runtime(&config)?;
    let outcome = runtime.block_on(live(config, files));
    runtime.shutdown_timeout(STRAGGLERS);
    match &outcome {
        Ok(()) => tracing::info!("crispd ends; pods go on"),
        Err(fatal) => tracing::error!(reason = fatal.reason, "crispd cannot go on"),
    }
    outcome
}

fn runtime(config: &Config) -> Result<Runtime, Fatal> {
    Builder::new_multi_thread()
        .worker_threads(config.workers)
        .max_blocking_threads(config.blocking_threads)
        .thread_keep_alive(IDLE_THREAD)
        .thread_name("crispd")
        .enable_all()
        .build()
        .map_err(|error| Fatal::new(Exit::System, format!("cannot start threads: {error}")))
}

async fn live(config: Config, files: &[PathBuf]) -> Result<(), Fatal> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        started = start(config, files) => {
            let (socket, engine, service) = started?;
            serve(socket, service, stop).await?;
            if tokio::time::timeout(RETIREMENT, engine.shutdown()).await.is_err() {
                tracing::warn!("records were not put to rest in time; the next start looks closer");
            }
            Ok(())
        }
        name = stop.wait() => {
            tracing::info!(signal = name, "told to stop before the start was over");
            Ok(())
        }
    }
}

/// Everything up to the first call.
async fn start(config: Config, files: &[PathBuf]) -> Result<(Socket, Engine, Service), Fatal> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        root = %config.root.display(),
        state = %config.state.display(),
        socket = %config.socket.display(),
        ?files,
        "crispd starts"
    );
    let kernel = Report::probe();
    kernel.log();
    if let Presence::Missing(reason) = kernel.privilege {
        return Err(Fatal::new(Exit::Permission, reason));
    }
    if config.cgroups.driver == CgroupDriver::Systemd {
        let unfit = |reason| Fatal::new(Exit::Config, format!("cgroup.driver: {reason}"));
        kernel.suits_systemd().map_err(unfit)?;
    }
    make_private(&config.root)?;
    make_private(&config.state)?;
    // Whoever connects from now on waits until all records are read.
    let socket = Socket::take(&config.socket)?;
    let engine = engine(&config).await?;
    let about = About {
        config: serde_json::to_value(&config.written).unwrap_or_default(),
        kernel: kernel.to_json(),
        mountpoint: engine
            .images()
            .fs_info()
            .mountpoint
            .to_string_lossy()
            .into_owned(),
    };
    let service = Service::new(engine.clone(), about);
    Ok((socket, engine, service))
}

/// The engine and what it stands on.
async fn engine(config: &Config) -> Result<Engine, Fatal> {
    let state = |what: &'static str| {
        move |error: &dyn std::fmt::Display| {
            Fatal::new(Exit::State, format!("cannot open the {what}: {error}"))
        }
    };
    let images = image_config(config);
    let network = network_config(config);
    // Both read the disk, and the network asks the kernel.
    let opened = crisp_tasks::blocking(move || {
        let images = Images::open(images).map_err(|e| state("images")(&e))?;
        let network = Network::open(network).map_err(|e| state("network")(&e))?;
        Ok::<_, Fatal>((images, network))
    });
    let opened = opened
        .await
        .map_err(|fault| Fatal::new(Exit::Software, fault))?;
    let (images, network) = opened?;
    let config = crisp_node::Config {
        root: config.root.clone(),
        state: config.state.clone(),
        netns_dir: NETNS_DIR.into(),
        shim_path: helper("crisp-shim", config.shim.as_deref())?,
        holder_path: helper("crisp-holder", config.holder.as_deref())?,
        seccomp_dir: config.seccomp_dir.clone(),
        cgroups: config.cgroups.clone(),
        handlers: config.handlers.clone(),
        timeouts: Timeouts::default(),
        images,
        network,
    };
    Engine::start(config)
        .await
        .map_err(|e| state("records")(&e))
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
        pinned: config.images.pinned.clone(),
    }
}

fn network_config(config: &Config) -> cni::Config {
    cni::Config {
        mode: match config.network.source.clone() {
            Source::Builtin { bridge, subnets } => cni::Mode::Builtin { bridge, subnets },
            Source::Conf(dir) => cni::Mode::Conf { dir },
        },
        bin_dirs: config.network.bin_dirs.clone(),
        cache_dir: config.root.join("cni"),
        timeout: config.network.timeout,
    }
}

/// A directory that only root enters.
fn make_private(path: &Path) -> Result<(), Fatal> {
    use std::os::unix::fs::PermissionsExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    let private =
        made.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)));
    private.map_err(|error| {
        Fatal::new(
            Exit::CannotCreate,
            format!("cannot make {}: {error}", path.display()),
        )
    })
}

/// A helper program: where it was written, beside this one, or where packages put it.
fn helper(name: &str, written: Option<&Path>) -> Result<PathBuf, Fatal> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|p| Some(p.parent()?.join(name)));
    let candidates: Vec<PathBuf> = match written {
        Some(path) => vec![path.to_owned()],
        None => beside
            .into_iter()
            .chain([Path::new(HELPERS).join(name)])
            .collect(),
    };
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<_> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let key = name.trim_start_matches("crisp-");
    let reason = format!(
        "{name} is not at {}: install it or set daemon.{key}",
        tried.join(" or ")
    );
    Err(Fatal::new(Exit::Missing, reason))
}

/// Serves calls until told to stop; then calls that run may end, for a moment.
async fn serve(socket: Socket, service: Service, mut stop: Stop) -> Result<(), Fatal> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Fatal::new(Exit::System, format!("cannot {what}: {error}"))
    };
    let listener = socket.listener().and_then(UnixListener::from_std);
    let listener = listener.map_err(|e| fail("listen", &e))?;
    let (quit, told) = oneshot::channel::<()>();
    let server = crisp_cri_server::serve(listener, service, async {
        // A dropped sender means the same.
        drop(told.await);
    });
    let mut server = std::pin::pin!(server);
    notify(&[NotifyState::Ready]);
    tracing::info!("ready");
    tokio::select! {
        ended = &mut server => return ended.map_err(|e| fail("serve", &e)),
        name = stop.wait() => tracing::info!(signal = name, "told to stop"),
    }
    notify(&[NotifyState::Stopping]);
    drop(socket);
    drop(quit);
    // Streams of events never end by themselves.
    if let Ok(Err(error)) = tokio::time::timeout(GRACE, server).await {
        return Err(fail("serve", &error));
    }
    Ok(())
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
        let on = |kind| {
            signal(kind).map_err(|e| Fatal::new(Exit::System, format!("cannot take signals: {e}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them, and answers its name. SIGHUP does not stop a daemon.
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
