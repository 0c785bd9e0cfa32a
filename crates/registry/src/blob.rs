//! Blob downloads: one stream over as many connections as it takes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use crisp_model::{Digest, ImageRef};
use futures::stream::{BoxStream, Stream, StreamExt as _, try_unfold};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;

use crate::client::{Attempt, Call, Client};
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::exchange::{Asked, range};
use crate::retry::{Again, Failure};

/// Bytes that a connection must bring before it counts as one that works.
const PROGRESS: u64 = 64 << 10;

/// The bytes of a blob as they arrive. Not yet verified.
pub struct BlobStream {
    /// Size of the whole blob, if the registry says so.
    pub size: Option<u64>,
    stream: BoxStream<'static, Result<Bytes>>,
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// An answer that brings a blob's bytes.
struct Opened {
    response: Response,
    host: String,
    /// Offset of its first byte: 0 when the host does not know ranges.
    start: u64,
    total: Option<u64>,
}

struct OpenBlob {
    path: String,
    offset: u64,
}

impl Attempt for OpenBlob {
    type Output = Opened;

    async fn run(&self, asked: &Asked<'_>) -> std::result::Result<Opened, Failure> {
        let response = asked.get(&self.path, &range(self.offset)).await?;
        let host = asked.endpoint.host();
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(Opened {
                start: 0,
                total: response.content_length(),
                response,
                host,
            });
        }
        let header = response.headers().get(CONTENT_RANGE);
        match header.and_then(|v| v.to_str().ok()).and_then(content_range) {
            Some((start, total)) if start == self.offset => Ok(Opened {
                response,
                host,
                start,
                total,
            }),
            _ => Err(Failure::last(asked.protocol("an answer for another range"))),
        }
    }
}

/// `bytes FIRST-LAST/TOTAL` as first byte and total.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    Some((first.parse().ok()?, total))
}

/// A download under way: everything that it takes to go on elsewhere.
struct Download {
    client: Client,
    image: ImageRef,
    digest: Digest,
    credentials: Option<Credentials>,
    current: Opened,
    /// Bytes handed out, counted from the start of the blob.
    position: u64,
    /// Bytes that `current` sends again and that were handed out before.
    skip: u64,
    total: Option<u64>,
    /// Connections that broke since the last one that brought something.
    broken: u32,
    /// Bytes of the current connection.
    brought: u64,
}

impl Client {
    /// The bytes of a blob from `offset` on, as they arrive; cut connections are resumed.
    ///
    /// The caller checks the digest, because it sees all bytes anyway.
    ///
    /// # Errors
    /// When no host has it. What happens later is the last item of the stream.
    pub async fn blob(
        &self,
        image: &ImageRef,
        digest: &Digest,
        offset: u64,
        credentials: Option<&Credentials>,
    ) -> Result<BlobStream> {
        let current = connect(self, image, digest, offset, credentials).await?;
        let download = Download {
            client: self.clone(),
            image: image.clone(),
            digest: digest.clone(),
            credentials: credentials.cloned(),
            position: offset,
            skip: offset - current.start,
            total: current.total,
            broken: 0,
            brought: 0,
            current,
        };
        Ok(BlobStream {
            size: download.total,
            stream: try_unfold(download, step).boxed(),
        })
    }
}

async fn connect(
    client: &Client,
    image: &ImageRef,
    digest: &Digest,
    offset: u64,
    credentials: Option<&Credentials>,
) -> Result<Opened> {
    let call = Call::by_digest(image, digest, credentials);
    let path = format!("{}/blobs/{digest}", image.repository());
    client.ask(&call, &OpenBlob { path, offset }).await
}

async fn step(mut download: Download) -> Result<Option<(Bytes, Download)>> {
    loop {
        match download.current.response.chunk().await {
            Ok(Some(chunk)) => {
                if let Some(chunk) = download.take(chunk)? {
                    return Ok(Some((chunk, download)));
                }
            }
            Ok(None)
                if download
                    .total
                    .is_none_or(|total| download.position >= total) =>
            {
                return Ok(None);
            }
            Ok(None) => download.resume("the connection ended early").await?,
            Err(error) if error.is_timeout() => {
                download.resume("no byte for the idle time").await?;
            }
            Err(_) => download.resume("the connection broke").await?,
        }
    }
}

impl Download {
    /// What of a chunk is new.
    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        let again = self.skip.min(chunk.len() as u64);
        self.skip -= again;
        chunk = chunk.split_off(usize::try_from(again).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            return Ok(None);
        }
        self.position += chunk.len() as u64;
        self.brought += chunk.len() as u64;
        if self.brought >= PROGRESS {
            self.broken = 0;
        }
        if self.total.is_some_and(|total| self.position > total) {
            return Err(self.protocol("more bytes than its size"));
        }
        Ok(Some(chunk))
    }

    /// Connects again and goes on where the bytes ended.
    async fn resume(&mut self, why: &str) -> Result<()> {
        self.broken += 1;
        let timeouts = &self.client.config().timeouts;
        let Some(pause) = timeouts.pause(Again::Later, self.broken, timeouts.attempts) else {
            return Err(Error::Unavailable {
                host: self.current.host.clone(),
                reference: self.reference(),
                why: format!("{why}, {} times in a row", self.broken),
            });
        };
        tracing::debug!(blob = %self.digest, at = self.position, why, "resuming a download");
        tokio::time::sleep(pause).await;
        let credentials = self.credentials.as_ref();
        let (image, digest) = (&self.image, &self.digest);
        self.current = connect(&self.client, image, digest, self.position, credentials).await?;
        if let (Some(before), Some(now)) = (self.total, self.current.total)
            && before != now
        {
            return Err(self.protocol("its size changed between connections"));
        }
        self.total = self.total.or(self.current.total);
        self.skip = self.position - self.current.start;
        self.brought = 0;
        Ok(())
    }

    fn reference(&self) -> String {
        self.image.with_digest(&self.digest).to_string()
    }

    fn protocol(&self, why: &str) -> Error {
        Error::Protocol {
            host: self.current.host.clone(),
            reference: self.reference(),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges_parse() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-0/*", Some((0, None))),
            ("bytes */10", None),
            ("5-9/10", None),
            ("bytes 5-9/x", None),
        ] {
            assert_eq!(content_range(text), expected, "{text}");
        }
    }
}
