//! The client against a registry that behaves, misbehaves, and breaks off.
#![allow(clippy::unwrap_used, reason = "a test's panic is its answer")]
#![allow(
    clippy::disallowed_methods,
    reason = "test fixtures need no atomic write"
)]

mod auth;
mod blobs;
mod documents;
mod guests;
mod mirrors;
mod served;
mod server;
mod tls;
mod words;

use std::path::Path;
use std::time::Duration;

use crisp_model::{Digest, ImageRef};
use crisp_registry::{Client, Config, LeastRate, Timeouts};
use sha2::{Digest as _, Sha256};

pub(crate) const MANIFEST: &[u8] = br#"{"config":{},"layers":[]}"#;
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A client with short pauses and these files.
pub(crate) fn client_with(dir: &Path, docker_config: Option<&str>) -> Client {
    let docker = docker_config.map(|text| {
        let path = dir.join("config.json");
        std::fs::write(&path, text).unwrap();
        path
    });
    Client::new(Config {
        hosts_dir: dir.join("certs.d"),
        docker_config: docker,
        user_agent: "crisp-test/1".to_owned(),
        timeouts: Timeouts {
            idle: Duration::from_millis(500),
            attempts: 4,
            backoff: Duration::from_millis(2),
            longest_pause: Duration::from_secs(2),
            least: LeastRate {
                bytes: 1000,
                window: Duration::from_millis(200),
            },
            ..Timeouts::default()
        },
    })
    .unwrap()
}

/// A client without any configuration.
pub(crate) fn client() -> Client {
    client_with(Path::new("/proc/nonexistent"), None)
}

/// `HOST/a/b:t`.
pub(crate) fn image(host: &str) -> ImageRef {
    ImageRef::parse(&format!("{host}/a/b:t")).unwrap()
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(content).into())
}

/// Writes a `hosts.toml` for a host.
pub(crate) fn hosts(dir: &Path, host: &str, text: &str) {
    let own = dir.join("certs.d").join(host);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("hosts.toml"), text).unwrap();
}
