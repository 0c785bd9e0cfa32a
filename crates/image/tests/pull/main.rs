//! Pulls from a registry in this process, which can lie, and from Debian's, which does not.
#![allow(clippy::unwrap_used, reason = "a test's panic is its answer")]
#![allow(
    clippy::disallowed_methods,
    reason = "test fixtures need no atomic write"
)]

mod debian;
mod faults;
mod full_disk;
mod harm;
mod maker;
mod names;
mod oddities;
mod places;
mod restart;
#[path = "../../../registry/tests/protocol/served.rs"]
mod served;
#[path = "../../../registry/tests/protocol/server.rs"]
#[allow(dead_code, reason = "the registry's own tests look closer at requests")]
mod server;
mod shared;
mod strangers;
mod unsettled;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crisp_image::{Config, Images};
use crisp_model::ContainerId;
use crisp_registry::Timeouts;

use crate::maker::Image;
use crate::server::{Answer, Seen, Server};

/// The answers of a registry, by target path.
pub(crate) type Shelf = Arc<Mutex<BTreeMap<String, Answer>>>;

/// A registry in this process.
pub(crate) struct Registry {
    pub(crate) server: Server,
    pub(crate) shelf: Shelf,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, answer| answer).await
    }

    /// A registry whose answers are changed on their way.
    pub(crate) async fn start_with(
        change: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shelf = Shelf::default();
        let served = Arc::clone(&shelf);
        let answer = move |seen: &Seen| {
            let found = served.lock().unwrap().get(&seen.target).cloned();
            change(seen, found.unwrap_or_else(|| Answer::new(404)))
        };
        let server = Server::start(answer).await;
        Self { server, shelf }
    }

    /// Serves an image as `REPOSITORY:TAG`, and answers that name.
    pub(crate) fn push(&self, image: &Image, name: &str) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let mut shelf = self.shelf.lock().unwrap();
        for (digest, kind, body) in &image.documents {
            let answer = Answer::new(200)
                .header("content-type", *kind)
                .body(body.clone());
            shelf.insert(
                format!("/v2/{repository}/manifests/{digest}"),
                answer.clone(),
            );
            if *digest == image.root {
                shelf.insert(format!("/v2/{repository}/manifests/{tag}"), answer);
            }
        }
        for (digest, body) in &image.blobs {
            let answer = Answer::new(200).body(body.clone());
            shelf.insert(format!("/v2/{repository}/blobs/{digest}"), answer);
        }
        format!("{}/{name}", self.server.address)
    }

    /// Serves a repository also to those who ask for it as another registry's.
    pub(crate) fn with_ns(&self, repository: &str, host: &str) {
        let mut shelf = self.shelf.lock().unwrap();
        let named = |target: &String| target.contains(&format!("/{repository}/"));
        let found: Vec<_> = shelf
            .iter()
            .filter(|(target, _)| named(target))
            .map(|(target, answer)| (format!("{target}?ns={host}"), answer.clone()))
            .collect();
        shelf.extend(found);
    }

    /// Serves something else at a path that contains this.
    pub(crate) fn spoil(&self, part: &str, change: impl Fn(Answer) -> Answer) {
        let mut shelf = self.shelf.lock().unwrap();
        let targets = shelf.iter_mut().filter(|(target, _)| target.contains(part));
        let mut count = 0;
        for (_, answer) in targets {
            *answer = change(answer.clone());
            count += 1;
        }
        assert!(count > 0, "nothing is served at {part}");
    }
}

/// The crate under test with its own root.
pub(crate) fn open(root: &Path) -> Images {
    Images::open(config(root)).unwrap()
}

pub(crate) fn config(root: &Path) -> Config {
    Config {
        root: root.to_owned(),
        registry: crisp_registry::Config {
            hosts_dir: root.join("certs.d"),
            docker_config: None,
            user_agent: "crisp-test/1".to_owned(),
            timeouts: Timeouts {
                attempts: 2,
                backoff: Duration::from_millis(2),
                ..Timeouts::default()
            },
        },
        max_parallel_layers: 3,
        grace: crisp_image::GRACE,
        keep_free_percent: 0,
        pinned: Vec::new(),
    }
}

pub(crate) fn container(n: u8) -> ContainerId {
    ContainerId::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

/// Names below a directory, for "nothing is left".
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Blobs, layers and half-written content under a root.
pub(crate) fn remains(root: &Path) -> [Vec<String>; 4] {
    [
        "content/blobs/sha256",
        "content/ingest",
        "snapshots/layers",
        "snapshots/ingest",
    ]
    .map(|dir| names(&root.join(dir)))
}

/// Names are gone now; trees of layers go in the background: they may be large.
pub(crate) async fn empties(root: &Path) {
    let named = &remains(root)[..3];
    assert!(named.iter().all(Vec::is_empty), "{named:?}");
    for _ in 0..500 {
        if remains(root)[3].is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{:?}", remains(root));
}

/// Closes a store. Its background work, such as a sync, ends before this returns.
pub(crate) fn close(images: Images, root: &Path) {
    drop(images);
    let lock = root.join("images.lock");
    while crisp_sys::file::lock_exclusive(&lock).unwrap().is_none() {
        std::thread::yield_now();
    }
}
