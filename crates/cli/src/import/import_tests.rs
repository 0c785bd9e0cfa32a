//! Imports from a store that bbolt itself wrote, whose blobs are made here, to a fake crispd.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::fake_crispd::FakeCrispd;
use super::*;
use crate::disk::{make_dir, write};
use crate::images::{Content, architecture};

const FILE: &[u8] = include_bytes!("../../../bolt/tests/containerd.db");
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const WEB: &str = "docker.io/library/web:1";
const TOOL: &str = "registry.example:5000/team/tool:2";
const ANOTHER: &str = "sha256:another";

/// A store, a crispd and its settings of registries, below one directory.
struct Place {
    dir: tempfile::TempDir,
    crispd: FakeCrispd,
}

impl Place {
    fn new() -> Self {
        Self::of_runtime("crisp")
    }

    fn of_runtime(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = |path: &str| dir.path().join(path);
        let bolt = below("root/io.containerd.metadata.v1.bolt");
        make_dir(&bolt).unwrap();
        write(&bolt.join("meta.db"), FILE).unwrap();
        let certs = below("certs.d");
        make_dir(&certs.join("docker.io")).unwrap();
        write(
            &certs.join("docker.io/hosts.toml"),
            b"server = \"owners\"\n",
        )
        .unwrap();
        let crispd = FakeCrispd::start(&below("crisp.sock"), name, &certs);
        let place = Self { dir, crispd };
        place.fill();
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The file of a blob, whose digest is that of a text: nothing here looks at what it holds.
    fn blob(&self, text: &str) -> (String, PathBuf) {
        let digest = Content::of(text.as_bytes().to_vec()).digest().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.path("root/io.containerd.content.v1.content/blobs/sha256");
        let path = blobs.join(hex);
        (digest, path)
    }

    fn put(&self, text: &str, content: &str) -> Value {
        let (digest, path) = self.blob(text);
        make_dir(path.parent().unwrap()).unwrap();
        write(&path, content.as_bytes()).unwrap();
        json!({"mediaType": MANIFEST, "digest": digest, "size": content.len()})
    }

    /// The images of the file, both of one layer: an index `web` and a manifest `tool`.
    fn fill(&self) {
        let manifest = |name: &str| {
            let config = self.put(&format!("config of {name}"), "{}");
            let layer = self.put(&format!("layer of {name}"), "layer");
            json!({"config": config, "layers": [layer]}).to_string()
        };
        self.put("tool", &manifest("tool"));
        let mut entry = self.put("manifest of web", &manifest("web"));
        entry["platform"] = json!({"os": "linux", "architecture": architecture()});
        self.put("web", &json!({"manifests": [entry]}).to_string());
    }

    async fn import(&self, move_tags: bool) -> Result<bool> {
        let arguments = Import {
            from: self.path("root"),
            namespace: "k8s.io".to_owned(),
            socket: format!("unix://{}", self.crispd.socket.display()),
            registry_config: self.path("certs.d"),
            move_tags,
        };
        // Codes cannot be compared, and are told by their words.
        let is_success = |code| format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS);
        let outcome = import(&arguments).await.map(is_success);
        let certs = self.path("certs.d");
        let text = fs::read_to_string(certs.join("docker.io/hosts.toml")).unwrap();
        assert_eq!(text, "server = \"owners\"\n");
        assert!(!certs.join("registry.example:5000/hosts.toml").is_file());
        outcome
    }

    fn leads(&self, name: &str) -> Option<String> {
        self.crispd.with(|state| state.names.get(name).cloned())
    }

    /// The names that it was asked to pull since the last time, without those of probes.
    fn pulls(&self) -> Vec<String> {
        let pulls = self.crispd.with(|state| std::mem::take(&mut state.pulls));
        let mut pulls: Vec<String> = pulls
            .into_iter()
            .filter(|name| !name.contains("probe"))
            .collect();
        pulls.sort();
        pulls
    }
}

#[tokio::test]
async fn all_images_come_and_a_repeated_import_pulls_none() {
    let place = Place::new();
    let (web, _) = place.blob("web");
    let (tool, _) = place.blob("tool");
    assert!(place.import(false).await.unwrap());
    let by_digest = format!("docker.io/library/web@{web}");
    assert_eq!(place.pulls(), [WEB, &by_digest, TOOL]);
    for (name, digest) in [(WEB, &web), (&by_digest, &web), (TOOL, &tool)] {
        assert_eq!(place.leads(name).as_ref(), Some(digest), "{name}");
    }
    assert!(place.import(false).await.unwrap());
    assert_eq!(place.pulls(), [""; 0]);
}

/// A node may have gone on with crispd since: an import once more would start pods from old images.
#[tokio::test]
async fn tags_of_crispd_stay_unless_they_are_to_move() {
    let place = Place::new();
    place.crispd.with(|state| {
        state.names.insert(WEB.to_owned(), ANOTHER.to_owned());
    });
    assert!(place.import(false).await.unwrap());
    assert_eq!(place.leads(WEB).as_deref(), Some(ANOTHER));
    assert!(place.leads(TOOL).is_some());
    assert!(place.import(true).await.unwrap());
    assert_eq!(place.leads(WEB), Some(place.blob("web").0));
}

#[tokio::test]
async fn an_image_that_fails_keeps_no_other_and_fails_the_import() {
    let place = Place::new();
    place
        .crispd
        .with(|state| state.refuses.insert(TOOL.to_owned()));
    assert!(!place.import(false).await.unwrap());
    assert!(place.leads(WEB).is_some() && place.leads(TOOL).is_none());
    let tries = place.pulls().iter().filter(|name| *name == TOOL).count();
    assert_eq!(tries, 1, "its code says that another try is of no use");
}

/// Where containerd keeps no layers, crispd has images that the store has not.
#[tokio::test]
async fn an_image_that_crispd_has_is_not_missed_where_the_store_lost_it() {
    let place = Place::new();
    fs::remove_file(place.blob("layer of web").1).unwrap();
    assert!(!place.import(false).await.unwrap());
    let (web, _) = place.blob("web");
    for name in [WEB.to_owned(), format!("docker.io/library/web@{web}")] {
        place
            .crispd
            .with(|state| state.names.insert(name, web.clone()));
    }
    assert!(place.import(false).await.unwrap());
}

#[tokio::test]
async fn a_host_whose_settings_cannot_give_way_keeps_its_images_alone() {
    let place = Place::new();
    make_dir(&place.path("certs.d/registry.example:5000/hosts.toml")).unwrap();
    assert!(!place.import(false).await.unwrap());
    assert!(place.leads(WEB).is_some() && place.leads(TOOL).is_none());
}

#[tokio::test]
async fn another_runtime_is_asked_for_nothing() {
    let place = Place::of_runtime("cri-o");
    let told = place.import(false).await.unwrap_err().to_string();
    assert!(
        told.contains("cri-o answers there, and no crispd"),
        "{told}"
    );
    assert_eq!(place.pulls(), [""; 0]);
}

#[tokio::test]
async fn a_crispd_that_asks_another_registry_is_told_with_its_own_words() {
    let place = Place::new();
    let elsewhere = place.path("elsewhere");
    let arguments = Import {
        from: place.path("root"),
        namespace: "k8s.io".to_owned(),
        socket: place.crispd.socket.display().to_string(),
        registry_config: elsewhere.clone(),
        move_tags: false,
    };
    let told = import(&arguments).await.unwrap_err().to_string();
    for part in [
        "it does not ask this program",
        "no way to a registry",
        "--registry-config",
    ] {
        assert!(told.contains(part), "{part} of {told}");
    }
    assert!(!elsewhere.exists() && place.pulls().is_empty());
}
