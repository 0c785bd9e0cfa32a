//! The pipeline of a pull: reference -> index -> manifest -> config -> layers -> names.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crisp_model::{Digest, ImageRef};
use crisp_registry::{Credentials, Resolved};
use futures::future::join_all;
use tokio::sync::watch;

use crate::catalog::named;
use crate::error::{Error, Result};
use crate::flight::{Abandoned, FetchKey};
use crate::image_config::{self, MAX_CONFIG, Parsed};
use crate::layer::{LayerPlan, LayerSource};
use crate::manifest::{self, Choice, Descriptor, Manifest};
use crate::platform::{Platform, Runnable};
use crate::record::{Edit, Image, ImageRecord};
use crate::store::{Claim, Store, blocking};

/// Indexes in indexes: more would be a loop or a joke.
const MAX_DEPTH: usize = 4;

/// How long a question may take that only saves a download.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);

/// Pulls an image and gives it the names that the reference stands for.
pub(crate) async fn pull(
    store: Arc<Store>,
    image: ImageRef,
    credentials: Option<Credentials>,
    abandoned: Abandoned,
) -> Result<Digest> {
    let begun = Instant::now();
    let unchanged = unchanged(&store, &image, credentials.as_ref());
    if let Some(id) = abandoned.or(unchanged).await? {
        return Ok(id);
    }
    let resolve = async {
        let resolved = store.registry.resolve(&image, credentials.as_ref()).await;
        Ok(resolved?)
    };
    let root = abandoned.or(resolve).await?;
    let names = names(&image, &root.digest);
    let key = FetchKey {
        root: root.digest.clone(),
        host: image.host().to_owned(),
        credentials: credentials.clone(),
    };
    let mut failed = None;
    // An image may be removed between its fetch and the naming: then it is fetched again.
    for _ in 0..3 {
        let mut is_own = false;
        let fetch = |abandoned| {
            is_own = true;
            let fetch = Fetch::new(&store, &image, credentials.clone());
            fetch.run(root.clone(), abandoned)
        };
        let fetched = store.fetches.join(key.clone(), fetch);
        let id = match abandoned.or(fetched).await {
            Ok(id) => id,
            Err(error) if is_own || abandoned.is_told() => return Err(error),
            Err(error) => {
                // It was for another name, which may not be given what this one is.
                tracing::debug!(%image, %error, "the fetch that was joined failed, trying alone");
                failed = Some(error);
                continue;
            }
        };
        let (owned, target, names) = (Arc::clone(&store), id.clone(), names.clone());
        let naming = move || name(&owned, &target, names);
        if blocking("name an image", naming).await? {
            tracing::info!(image = %image, id = %id, elapsed = ?begun.elapsed(), "image pulled");
            return Ok(id);
        }
    }
    Err(failed.unwrap_or_else(|| Error::NotFound(image.to_string())))
}

/// The image of a tag that is here and that the registry has not moved since. Registries that limit
/// pulls do not count this question.
async fn unchanged(
    store: &Store,
    image: &ImageRef,
    credentials: Option<&Credentials>,
) -> Result<Option<Digest>> {
    let known = store.catalog().target(&image.to_string());
    let (Some(id), None) = (known, image.digest()) else {
        return Ok(None);
    };
    // Some registries and proxies refuse this question or let it hang: all answer the next, whose
    // failure is the one to tell.
    let asking = store.registry.digest_of(image, credentials);
    let told = match tokio::time::timeout(LONGEST_QUESTION, asking).await {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => {
            tracing::debug!(%image, %error, "asking for the document instead");
            None
        }
        Err(_) => None,
    };
    let same = |root: Digest| {
        let name = image.with_digest(&root).to_string();
        store.catalog().is_named(&name, &id)
    };
    Ok(told.is_some_and(same).then_some(id))
}

/// The names under which an image is found later. A tag beside a digest is only a remark.
fn names(image: &ImageRef, root: &Digest) -> Vec<String> {
    let mut names = vec![named(image), image.with_digest(root).to_string()];
    names.dedup();
    names
}

/// Names an image that is there; false when it is there no more.
fn name(store: &Store, id: &Digest, names: Vec<String>) -> Result<bool> {
    let mut there = false;
    store.commit(|catalog| {
        there = catalog.image(id).is_some();
        let new = names
            .into_iter()
            .filter(|name| there && !catalog.is_named(name, id));
        new.map(|name| Edit::PutName(name, id.clone())).collect()
    })?;
    Ok(there)
}

/// One image on its way in.
struct Fetch {
    store: Arc<Store>,
    image: ImageRef,
    credentials: Option<Credentials>,
    runnable: Runnable,
}

/// A document and its digest.
type Document = (Digest, Bytes);

/// The same with the document's media type between them.
type Typed = (Digest, String, Bytes);

impl Fetch {
    fn new(store: &Arc<Store>, image: &ImageRef, credentials: Option<Credentials>) -> Self {
        Self {
            store: Arc::clone(store),
            image: image.clone(),
            credentials,
            runnable: Runnable::here(),
        }
    }

    /// Fetches what is missing, and commits the image with its first names.
    async fn run(self, root: Resolved, abandoned: Abandoned) -> Result<Digest> {
        if let Some(id) = self.known(&root.digest) {
            return Ok(id);
        }
        let result = self.fetch(root, &abandoned).await;
        if result.is_err() {
            let store = Arc::clone(&self.store);
            let swept = blocking("sweep after a failed pull", move || store.sweep()).await;
            if let Err(error) = swept {
                tracing::warn!(%error, "cannot remove the remains of a failed pull");
            }
        }
        result
    }

    /// The image of this document if it is here already.
    fn known(&self, document: &Digest) -> Option<Digest> {
        self.store.catalog().by_document(document)
    }

    async fn fetch(&self, root: Resolved, abandoned: &Abandoned) -> Result<Digest> {
        let root_digest = root.digest.clone();
        let (manifest, mut documents) = abandoned.or(self.descend(root)).await?;
        let manifest_digest = documents.last().map(|(digest, _)| digest.clone());
        let manifest_digest = manifest_digest.unwrap_or_else(|| root_digest.clone());
        let id = manifest.config.digest.clone();
        let config = abandoned.or(self.config(&manifest.config)).await?;
        let parsed = self.check(&manifest, &config)?;
        documents.push((id.clone(), config));
        let plans = plan(&manifest, &parsed);

        let claim = self.claim(&documents, &plans).await;
        self.keep(documents.clone()).await?;
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        let record = ImageRecord {
            manifest: manifest_digest,
            documents: documents.into_iter().map(|(digest, _)| digest).collect(),
            layers: plans.iter().map(|plan| plan.chain_id.clone()).collect(),
            size: sizes.fold(manifest.config.size, u64::saturating_add),
            annotations: manifest.annotations,
        };
        let image = Arc::new(Image { record, parsed });
        let names = names(&self.image, &root_digest);
        // A layer may be found damaged only when all are settled.
        for _ in 0..=plans.len() {
            self.layers(&plans, abandoned).await?;
            let (store, target) = (Arc::clone(&self.store), id.clone());
            let (image, names) = (Arc::clone(&image), names.clone());
            let commit = move || commit(&store, &target, image, names);
            if blocking("commit an image", commit).await? {
                self.store.promote_later();
                drop(claim);
                return Ok(id);
            }
        }
        // They are claimed, so this is a bug; an image without its layers must not be named.
        Err(Error::NotFound(id.to_string()))
    }

    /// Follows indexes down to the manifest for this machine.
    async fn descend(&self, root: Resolved) -> Result<(Manifest, Vec<Document>)> {
        let mut documents = Vec::new();
        let (mut digest, mut media_type, mut body) = (root.digest, root.media_type, root.body);
        for _ in 0..MAX_DEPTH {
            documents.push((digest.clone(), body.clone()));
            if !manifest::is_index(&media_type) {
                let parsed = manifest::parse(&body);
                let parsed = parsed.map_err(|why| self.invalid(format!("manifest {digest}"), why));
                return Ok((parsed?, documents));
            }
            let choice = manifest::choose(&body, &self.runnable);
            (digest, media_type, body) =
                match choice.map_err(|why| self.invalid(format!("index {digest}"), why))? {
                    Choice::Best(entry) => self.document(&entry).await?,
                    Choice::Unnamed(entries) => self.fitting(&entries).await?,
                    Choice::Nothing(offered) => return Err(self.no_platform(offered)),
                };
        }
        Err(self.invalid("index".to_owned(), format!("more than {MAX_DEPTH} deep")))
    }

    /// The first of these whose config is for this machine, or says nothing about machines.
    async fn fitting(&self, entries: &[Descriptor]) -> Result<Typed> {
        let mut offered = Vec::new();
        for entry in entries {
            let found = self.document(entry).await?;
            let (digest, media_type, body) = &found;
            if manifest::is_index(media_type) {
                return Ok(found);
            }
            let manifest = manifest::parse(body);
            let manifest = manifest.map_err(|why| self.invalid(format!("manifest {digest}"), why));
            // One among several may be no image at all.
            let manifest = match manifest {
                Err(error) if entries.len() == 1 => return Err(error),
                Err(_) => continue,
                Ok(manifest) => manifest,
            };
            let config = self.config(&manifest.config).await?;
            let platform = self.parse_config(&manifest, &config)?.platform;
            if self.suits(&platform) {
                return Ok(found);
            }
            offered.push(platform.to_string());
        }
        Err(self.no_platform(offered))
    }

    /// Whether a config is for this machine. Some builders leave the platform out, which other
    /// runtimes let pass.
    fn suits(&self, platform: &Platform) -> bool {
        let is_told = !platform.os.is_empty() && !platform.architecture.is_empty();
        !is_told || self.runnable.rank(platform).is_some()
    }

    /// A manifest or index that an index points to.
    async fn document(&self, entry: &Descriptor) -> Result<Typed> {
        let credentials = self.credentials.as_ref();
        let (media_type, body) = self
            .store
            .registry
            .manifest(&self.image, &entry.digest, credentials)
            .await?;
        self.check_size(entry, &body)?;
        if manifest::is_index(&media_type) != manifest::is_index(&entry.media_type) {
            let why = format!("announced as {}, but it is {media_type}", entry.media_type);
            return Err(self.invalid(format!("document {}", entry.digest), why));
        }
        Ok((entry.digest.clone(), media_type, body))
    }

    async fn config(&self, entry: &Descriptor) -> Result<Bytes> {
        let credentials = self.credentials.as_ref();
        let registry = &self.store.registry;
        let found = registry
            .small_blob(&self.image, &entry.digest, MAX_CONFIG, credentials)
            .await?;
        self.check_size(entry, &found)?;
        Ok(found)
    }

    fn check_size(&self, entry: &Descriptor, body: &Bytes) -> Result<()> {
        let (expected, actual) = (entry.size, body.len() as u64);
        if expected == actual {
            return Ok(());
        }
        let why = format!("{actual} bytes instead of {expected}");
        Err(self.invalid(format!("document {}", entry.digest), why))
    }

    fn parse_config(&self, manifest: &Manifest, config: &Bytes) -> Result<Parsed> {
        let invalid = |why| self.invalid(format!("config {}", manifest.config.digest), why);
        image_config::parse(config).map_err(invalid)
    }

    /// Parses the config, and checks that it is for these layers.
    fn check(&self, manifest: &Manifest, config: &Bytes) -> Result<Parsed> {
        let digest = &manifest.config.digest;
        let invalid = |why| self.invalid(format!("config {digest}"), why);
        let parsed = self.parse_config(manifest, config)?;
        let (layers, diff_ids) = (manifest.layers.len(), parsed.diff_ids.len());
        if layers != diff_ids {
            return Err(invalid(format!("{diff_ids} diff_ids for {layers} layers")));
        }
        if !self.suits(&parsed.platform) {
            // The index decides, or who asked for this manifest. A wrong label stops no programs,
            // and programs for other machines may have an interpreter here.
            tracing::warn!(
                image = %self.image, says = %parsed.platform, here = self.runnable.name(),
                "the image's config names another platform: if its programs do not start, pull \
                 the image for this one"
            );
        }
        Ok(parsed)
    }

    async fn claim(&self, documents: &[Document], plans: &[LayerPlan]) -> Claim {
        let documents = documents.iter().map(|(digest, _)| digest.clone());
        let layers = plans.iter().map(|plan| plan.chain_id.clone());
        self.store.claim(documents.chain(layers).collect()).await
    }

    async fn keep(&self, documents: Vec<Document>) -> Result<()> {
        let store = Arc::clone(&self.store);
        let work = move || {
            for (digest, body) in &documents {
                store.content.put(digest, body)?;
            }
            store.measure();
            Ok(())
        };
        blocking("keep manifests", work).await
    }

    /// Fetches all layers that are missing. All have ended when this returns, so that nothing is
    /// still being written when the remains of a failure are swept.
    async fn layers(&self, plans: &[LayerPlan], abandoned: &Abandoned) -> Result<()> {
        let source = LayerSource {
            store: Arc::clone(&self.store),
            image: self.image.clone(),
            credentials: self.credentials.clone(),
            turns: self.store.downloads.of_pull(self.image.host()),
            given_up: watch::Sender::new(false),
        };
        let mut all = pin!(join_all(plans.iter().map(|plan| source.ensure(plan))));
        let results = tokio::select! {
            results = &mut all => results,
            () = abandoned.told() => {
                source.given_up.send_replace(true);
                all.await;
                return Err(abandoned.error());
            }
        };
        let failures = results.into_iter().filter_map(Result::err);
        // Downloads that gave up because of another are not the cause.
        let cause = failures.min_by_key(|error| matches!(error, Error::Interrupted(_)));
        cause.map_or(Ok(()), Err)
    }

    fn no_platform(&self, offered: Vec<String>) -> Error {
        Error::NoPlatform {
            image: self.image.to_string(),
            wanted: self.runnable.name(),
            offered,
        }
    }

    fn invalid(&self, what: String, why: String) -> Error {
        Error::Invalid {
            image: self.image.to_string(),
            what,
            why,
        }
    }
}

fn plan(manifest: &Manifest, parsed: &Parsed) -> Vec<LayerPlan> {
    let chain_ids = image_config::chain_ids(&parsed.diff_ids);
    let parts = manifest.layers.iter().zip(&parsed.diff_ids).zip(chain_ids);
    let plans = parts.map(|((blob, diff_id), chain_id)| LayerPlan {
        blob: blob.clone(),
        diff_id: diff_id.clone(),
        chain_id,
    });
    plans.collect()
}

/// Settles the layers of the image, then writes it, them and its names at once; false when a layer
/// is not there, or no more.
fn commit(store: &Store, id: &Digest, image: Arc<Image>, names: Vec<String>) -> Result<bool> {
    if !store.settle(&image.record.layers)? {
        return Ok(false);
    }
    store.commit(|catalog| {
        let mut image = image;
        // The same config may be reached by several manifests: the blobs of all are kept.
        if let Some(known) = catalog.image(id) {
            let mut both = Image::clone(&image);
            let earlier: BTreeSet<Digest> = known.record.documents.clone();
            both.record.documents.extend(earlier);
            image = Arc::new(both);
        }
        let layers = image.record.layers.iter();
        let layers =
            layers.filter_map(|layer| Some((layer.clone(), catalog.layer(layer)?.clone())));
        let mut edits: Vec<Edit> = layers
            .map(|(id, layer)| Edit::PutLayer(id, layer))
            .collect();
        edits.push(Edit::PutImage(id.clone(), image));
        edits.extend(
            names
                .into_iter()
                .map(|name| Edit::PutName(name, id.clone())),
        );
        edits
    })?;
    Ok(true)
}
