//! One layer on its way in: fetched, decompressed and unpacked as one stream.
//!
//! The async side receives and hashes the compressed bytes; a thread decompresses and unpacks them.
//! Between the two lies a short queue, so a layer takes little memory whatever its size, and a slow
//! disk slows the download down. A host that sends wrong bytes is passed over for the next.

use std::sync::Arc;

use crisp_content::Hasher;
use crisp_model::{Digest, ImageRef};
use crisp_registry::{BlobStream, Credentials, Wanted};
use crisp_snapshotter::{LayerWriter, UnpackedLayer};
use tokio::sync::{mpsc, watch};

use crate::downloads::PullTurns;
use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::store::{Store, blocking};
use crate::unpack::{self, Chunk, Terms};

/// A layer that an image needs.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlan {
    /// The blob.
    pub(crate) blob: Descriptor,
    /// Digest of its content when decompressed.
    pub(crate) diff_id: Digest,
    /// Identity of the layer with all below it.
    pub(crate) chain_id: Digest,
}

/// For whom layers are fetched.
#[derive(Debug)]
pub(crate) struct LayerSource {
    pub(crate) store: Arc<Store>,
    pub(crate) image: ImageRef,
    pub(crate) credentials: Option<Credentials>,
    /// Turns to download.
    pub(crate) turns: PullTurns,
    /// Set when a sibling failed or all callers left: what is still on its way is then of no use.
    pub(crate) given_up: watch::Sender<bool>,
}

/// A layer that could not be fetched.
struct Failed {
    error: Error,
    /// The hosts to skip to ask another; only when this one is to blame and there is another.
    elsewhere: Option<usize>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        let (error, elsewhere) = (error.into(), None);
        Self { error, elsewhere }
    }
}

impl LayerSource {
    /// Makes sure that a layer is unpacked; tells the siblings when it cannot be.
    pub(crate) async fn ensure(&self, plan: &LayerPlan) -> Result<()> {
        let result = self.ensure_alone(plan).await;
        // A layer that fails after a sibling fails because of it, whatever it says.
        if result.is_err() && self.given_up.send_replace(true) {
            return Err(Error::Interrupted("fetch a layer"));
        }
        result
    }

    /// Fetches a layer unless it comes from another host meanwhile: what is half unpacked then goes.
    async fn ensure_alone(&self, plan: &LayerPlan) -> Result<()> {
        tokio::select! {
            biased;
            () = self.store.arrival(&plan.chain_id) => Ok(()),
            done = self.download(plan) => done,
        }
    }

    async fn download(&self, plan: &LayerPlan) -> Result<()> {
        let store = &self.store;
        let key = (plan.chain_id.clone(), self.image.host().to_owned());
        let lock = store.layer_locks.of(key);
        let _only_one = self.while_wanted(lock.lock()).await?;
        let _turn = self.while_wanted(self.turns.turn()).await?;
        let mut skip = 0;
        loop {
            let owned = Arc::clone(store);
            let chain_id = plan.chain_id.clone();
            let begin = move || Ok(owned.snapshotter.begin_layer(&chain_id)?);
            let writer = blocking("begin a layer", begin).await?;
            match self.fetch(plan, writer, skip).await {
                Ok(unpacked) => return self.commit(plan, unpacked).await,
                Err(Failed {
                    error,
                    elsewhere: Some(next),
                }) => {
                    tracing::warn!(%error, "mirror sent a wrong layer, asking the next");
                    skip = next;
                }
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// Waits for something, unless the layer is of no use meanwhile.
    async fn while_wanted<T>(&self, step: impl Future<Output = T>) -> Result<T> {
        let mut given_up = self.given_up.subscribe();
        tokio::select! {
            biased;
            _ = given_up.wait_for(|given_up| *given_up) => {
                Err(Error::Interrupted("fetch a layer"))
            }
            done = step => Ok(done),
        }
    }

    async fn fetch(
        &self,
        plan: &LayerPlan,
        writer: LayerWriter,
        skip: usize,
    ) -> std::result::Result<UnpackedLayer, Failed> {
        let wanted = Wanted {
            size: Some(plan.blob.size),
            skip,
            ..Wanted::whole(&plan.blob.digest)
        };
        let credentials = self.credentials.as_ref();
        let asking = self.store.registry.blob(&self.image, wanted, credentials);
        let mut blob = self.while_wanted(asking).await??;
        if let Some(size) = blob.size.filter(|size| *size != plan.blob.size) {
            return Err(self.blame(&blob, self.wrong_size(plan, size)));
        }
        let terms = Terms {
            turns: Arc::clone(&self.store.unpacking),
            given_up: self.given_up.subscribe(),
        };
        let (sender, unpacked) = unpack::start(writer, terms)?;
        let feed = async {
            let feed = self.feed(plan, &mut blob, sender);
            self.while_wanted(feed).await?
        };
        let (fed, unpacked) = tokio::join!(feed, unpacked);
        // A download that broke also breaks the unpacking: the first cause is the one to tell.
        match fed? {
            Fed::Whole => Ok(unpacked?),
            Fed::Wrong(error) => Err(self.blame(&blob, error)),
            Fed::Refused => {
                let error = unpacked
                    .err()
                    .unwrap_or(Error::Interrupted("unpack a layer"));
                Err(error.into())
            }
        }
    }

    /// The failure of a host that sent something else than what its digest promises.
    fn blame(&self, blob: &BlobStream, error: Error) -> Failed {
        let elsewhere = blob.next_host();
        Failed { error, elsewhere }
    }

    /// Hands the blob's bytes to the unpacking thread, and verifies them on the way.
    async fn feed(
        &self,
        plan: &LayerPlan,
        blob: &mut BlobStream,
        sender: mpsc::Sender<Chunk>,
    ) -> Result<Fed> {
        let expected = &plan.blob;
        let mut hasher = Hasher::new(expected.digest.algorithm());
        let mut received = 0;
        let mut is_taken = true;
        while let Some(chunk) = blob.next().await.transpose()? {
            received += chunk.len() as u64;
            self.store.tally.received_bytes.add(chunk.len() as u64);
            if received > expected.size {
                return Ok(Fed::Wrong(self.wrong_size(plan, received)));
            }
            hasher.update(&chunk);
            is_taken = is_taken && sender.send(Chunk::Bytes(chunk)).await.is_ok();
            // Where another host can be asked, the rest tells which of the two is wrong: these
            // bytes, or the layer that they are.
            if !is_taken && blob.next_host().is_none() {
                return Ok(Fed::Refused);
            }
        }
        if received != expected.size {
            return Ok(Fed::Wrong(self.wrong_size(plan, received)));
        }
        let actual = hasher.finish();
        if actual != expected.digest {
            let why = format!("its content has digest {actual}");
            return Ok(Fed::Wrong(self.invalid(plan, why)));
        }
        Ok(match sender.send(Chunk::End).await {
            Ok(()) => Fed::Whole,
            Err(_) => Fed::Refused,
        })
    }

    async fn commit(&self, plan: &LayerPlan, unpacked: UnpackedLayer) -> Result<()> {
        if unpacked.diff_id != plan.diff_id {
            let actual = &unpacked.diff_id;
            let why = format!(
                "unpacked it has digest {actual}, the config says {}",
                plan.diff_id
            );
            return Err(self.invalid(plan, why));
        }
        let owned = Arc::clone(&self.store);
        let chain_id = plan.chain_id.clone();
        let commit = move || owned.take_in(&chain_id, unpacked);
        blocking("commit a layer", commit).await
    }

    fn wrong_size(&self, plan: &LayerPlan, actual: u64) -> Error {
        let expected = plan.blob.size;
        self.invalid(plan, format!("{actual} bytes instead of {expected}"))
    }

    fn invalid(&self, plan: &LayerPlan, why: String) -> Error {
        Error::Invalid {
            image: self.image.to_string(),
            what: format!("layer {}", plan.blob.digest),
            why,
        }
    }
}

/// How a download ended whose connection did not fail.
enum Fed {
    /// All bytes were right and were taken.
    Whole,
    /// The unpacking thread stopped taking them.
    Refused,
    /// They are not what was asked for.
    Wrong(Error),
}
