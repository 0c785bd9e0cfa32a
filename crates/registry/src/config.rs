//! How registries are reached: what the daemon's configuration decides once.

use std::path::PathBuf;
use std::time::Duration;

/// Configuration of a [`Client`](crate::Client).
#[derive(Debug, Clone)]
pub struct Config {
    /// `certs.d`: a directory per registry host with a `hosts.toml`. It may be missing.
    pub hosts_dir: PathBuf,
    /// Docker's `config.json` with credentials for hosts; read at each call that needs it.
    pub docker_config: Option<PathBuf>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// How long to wait for whom.
    pub timeouts: Timeouts,
}

/// Bounds on waiting for a registry.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a connection, including its TLS handshake.
    pub connect: Duration,
    /// For the next byte: a download may last for hours, but must move.
    pub idle: Duration,
    /// For a download's bytes, however they fall.
    pub least: LeastRate,
    /// Tries of one request at the registry itself; mirrors get one.
    pub attempts: u32,
    /// First pause between tries, doubled at each; also the unit of jitter.
    pub backoff: Duration,
    /// Longest pause that a `Retry-After` can ask for.
    pub longest_pause: Duration,
}

/// Fewer bytes than this in a window end a connection. The figures follow from a slow link:
/// four layers at a time over 128 kbit/s still pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastRate {
    /// Bytes in a window.
    pub bytes: u64,
    /// Time spent waiting for bytes.
    pub window: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            least: LeastRate {
                bytes: 192 << 10,
                window: Duration::from_secs(60),
            },
            attempts: 5,
            backoff: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}
