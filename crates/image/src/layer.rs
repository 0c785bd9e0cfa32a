//! One layer on its way in: fetched, decompressed and unpacked as one stream.
//!
//! The async side receives and hashes the compressed bytes; a blocking thread decompresses and
//! unpacks them. Between the two lies a short queue, so a layer takes little memory whatever its
//! size, and a slow disk slows the download down.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use crisp_content::Hasher;
use crisp_model::{Digest, ImageRef};
use crisp_registry::Credentials;
use crisp_snapshotter::{Compression, LayerWriter, UnpackedLayer};
use futures::StreamExt as _;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Result};
use crate::manifest::Descriptor;
use crate::store::{Store, blocking};

/// Chunks between the network and the disk; a chunk is at most some hundred KiB.
const QUEUE: usize = 4;

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
    /// Set when a sibling failed: what is still on its way is then of no use.
    pub(crate) given_up: watch::Sender<bool>,
}

impl LayerSource {
    /// Makes sure that a layer is unpacked; tells the siblings when it cannot be.
    pub(crate) async fn ensure(&self, plan: &LayerPlan) -> Result<()> {
        let result = self.ensure_alone(plan).await;
        if result.is_err() {
            self.given_up.send_replace(true);
        }
        result
    }

    async fn ensure_alone(&self, plan: &LayerPlan) -> Result<()> {
        let store = &self.store;
        let lock = store.layer_locks.of(&plan.chain_id);
        let _only_one = lock.lock().await;
        if store.catalog().layer(&plan.chain_id).is_some() {
            return Ok(());
        }
        let _permit = store.permits.acquire().await;
        if *self.given_up.borrow() {
            return Err(Error::Interrupted("fetch a layer"));
        }
        let owned = Arc::clone(store);
        let chain_id = plan.chain_id.clone();
        let begin = move || Ok(owned.snapshotter.begin_layer(&chain_id)?);
        match blocking("begin a layer", begin).await? {
            Some(writer) => self.fetch(plan, writer).await,
            // Verified when it was committed, by a pull whose image was not.
            None => self.adopt(plan).await,
        }
    }

    async fn adopt(&self, plan: &LayerPlan) -> Result<()> {
        let owned = Arc::clone(&self.store);
        let chain_id = plan.chain_id.clone();
        blocking("measure a layer", move || {
            let usage = owned.snapshotter.layer_usage(&chain_id)?;
            owned.layer_unpacked(chain_id, usage.bytes, usage.inodes);
            Ok(())
        })
        .await
    }

    async fn fetch(&self, plan: &LayerPlan, writer: LayerWriter) -> Result<()> {
        let digest = &plan.blob.digest;
        let credentials = self.credentials.as_ref();
        let blob = self
            .store
            .registry
            .blob(&self.image, digest, 0, credentials)
            .await?;
        if let Some(size) = blob.size.filter(|size| *size != plan.blob.size) {
            return Err(self.wrong_size(plan, size));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let unpack = crisp_tasks::blocking(move || {
            let mut reader = ChunkReader::new(receiver);
            let unpacked = writer.unpack(Compression::Detect, &mut reader)?;
            // What follows the archive's end is part of the blob and of its digest.
            io::copy(&mut reader, &mut io::sink()).ok();
            Ok::<UnpackedLayer, Error>(unpacked)
        });
        let (fed, unpacked) = tokio::join!(self.feed(plan, blob, sender), unpack);
        let unpacked = unpacked.unwrap_or(Err(Error::Interrupted("unpack a layer")));
        // A download that broke also breaks the unpacking: the first cause is the one to tell.
        match fed? {
            Fed::Whole => {}
            Fed::Refused => {
                return Err(unpacked
                    .err()
                    .unwrap_or(Error::Interrupted("unpack a layer")));
            }
        }
        self.commit(plan, unpacked?).await
    }

    /// Hands the blob's bytes to the unpacking thread, and verifies them on the way.
    async fn feed(
        &self,
        plan: &LayerPlan,
        mut blob: crisp_registry::BlobStream,
        sender: mpsc::Sender<Chunk>,
    ) -> Result<Fed> {
        let expected = &plan.blob;
        let mut hasher = Hasher::new(expected.digest.algorithm());
        let mut received = 0;
        let mut given_up = self.given_up.subscribe();
        loop {
            let next = tokio::select! {
                next = blob.next() => next,
                _ = given_up.wait_for(|given_up| *given_up) => {
                    return Err(Error::Interrupted("fetch a layer"));
                }
            };
            let Some(chunk) = next.transpose()? else {
                break;
            };
            received += chunk.len() as u64;
            if received > expected.size {
                return Err(self.wrong_size(plan, received));
            }
            hasher.update(&chunk);
            if sender.send(Chunk::Bytes(chunk)).await.is_err() {
                return Ok(Fed::Refused);
            }
        }
        if received != expected.size {
            return Err(self.wrong_size(plan, received));
        }
        let actual = hasher.finish();
        if actual != expected.digest {
            return Err(self.invalid(plan, format!("its content has digest {actual}")));
        }
        match sender.send(Chunk::End).await {
            Ok(()) => Ok(Fed::Whole),
            Err(_) => Ok(Fed::Refused),
        }
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
        blocking("commit a layer", move || {
            let (bytes, inodes) = (unpacked.size, unpacked.inodes);
            unpacked.commit()?;
            owned.layer_unpacked(chain_id, bytes, inodes);
            Ok(())
        })
        .await
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

/// How a download ended that did not fail.
enum Fed {
    /// All bytes were right and were taken.
    Whole,
    /// The unpacking thread stopped taking them.
    Refused,
}

/// What travels to the unpacking thread.
enum Chunk {
    Bytes(Bytes),
    /// The blob is whole and verified. A queue that ends without it was cut.
    End,
}

/// The blocking end of the queue.
struct ChunkReader {
    queue: mpsc::Receiver<Chunk>,
    current: Bytes,
    is_whole: bool,
}

impl ChunkReader {
    fn new(queue: mpsc::Receiver<Chunk>) -> Self {
        Self {
            queue,
            current: Bytes::new(),
            is_whole: false,
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_whole {
            match self.queue.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.is_whole = true,
                None => return Err(io::Error::other("the download was cut")),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: Vec<Chunk>) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(16);
        for chunk in chunks {
            assert!(sender.try_send(chunk).is_ok());
        }
        drop(sender);
        let mut content = Vec::new();
        ChunkReader::new(receiver).read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn a_cut_download_is_no_end_of_file() {
        let bytes = |text: &'static str| Chunk::Bytes(Bytes::from_static(text.as_bytes()));
        let whole = vec![bytes("ab"), bytes(""), bytes("c"), Chunk::End];
        assert_eq!(read(whole).unwrap(), b"abc");
        assert_eq!(read(vec![Chunk::End]).unwrap(), b"");
        assert!(read(vec![bytes("ab")]).is_err());
        assert!(read(vec![]).is_err());
    }
}
