//! Blob downloads: one stream over as many connections as it takes.

use std::fmt;

use bytes::Bytes;
use crisp_model::{Digest, ImageRef};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;

use crate::client::{Attempt, Call, Client};
use crate::credentials::Credentials;
use crate::error::{Error, Result};
use crate::exchange::{Asked, Place, range};
use crate::pace::{Pace, TooSlow};
use crate::retry::{Again, Failure};

/// Bytes that a connection must bring before it counts as one that works.
const PROGRESS: u64 = 64 << 10;

/// Which bytes to fetch, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The blob.
    pub digest: &'a Digest,
    /// Its size if it is known: a mirror that announces another is passed over.
    pub size: Option<u64>,
    /// The first byte.
    pub offset: u64,
    /// How many of the hosts to pass over; see [`BlobStream::next_host`].
    pub skip: usize,
}

impl<'a> Wanted<'a> {
    /// All of a blob, from the first host that has it.
    #[must_use]
    pub fn whole(digest: &'a Digest) -> Self {
        Self {
            digest,
            size: None,
            offset: 0,
            skip: 0,
        }
    }
}

/// The bytes of a blob as they arrive. Not yet verified.
pub struct BlobStream {
    /// Size of the whole blob, if the registry says so.
    pub size: Option<u64>,
    download: Download,
}

impl BlobStream {
    /// The next bytes; `None` at the end. To be called no more after an error, nor after a call
    /// that was not waited for.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.download.next().await.transpose()
    }

    /// The host that sends now.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.download.current.host
    }

    /// The number of hosts to skip when the bytes turn out wrong; `None` when no host is left. A
    /// host whose bytes only followed another's is not yet the one to blame.
    #[must_use]
    pub fn next_host(&self) -> Option<usize> {
        let place = self.download.current.place;
        if place.at > self.download.first {
            return Some(place.at);
        }
        place.next()
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("size", &self.size)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// An answer that brings a blob's bytes.
struct Opened {
    response: Response,
    host: String,
    place: Place,
    /// Offset of its first byte: 0 when the host does not know ranges.
    start: u64,
    total: Option<u64>,
}

struct OpenBlob {
    path: String,
    offset: u64,
    size: Option<u64>,
}

impl Attempt for OpenBlob {
    type Output = Opened;

    async fn run(&self, asked: &Asked<'_>) -> std::result::Result<Opened, Failure> {
        let response = asked.get(&self.path, &range(self.offset)).await?;
        let (start, total) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let header = response.headers().get(CONTENT_RANGE);
            match header.and_then(|v| v.to_str().ok()).and_then(content_range) {
                Some((start, total)) if start == self.offset => (start, total),
                _ => return Err(Failure::last(asked.protocol("an answer for another range"))),
            }
        } else {
            (0, response.content_length())
        };
        if let (Some(size), Some(total)) = (self.size, total)
            && size != total
            && !asked.place.is_last
        {
            let why = format!("{total} bytes instead of {size}");
            return Err(Failure::last(asked.protocol(why)));
        }
        Ok(Opened {
            host: asked.endpoint.host(),
            place: asked.place,
            response,
            start,
            total,
        })
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
    /// Place of the host that sent the first bytes.
    first: usize,
    /// Bytes handed out, counted from the start of the blob.
    position: u64,
    /// Bytes that `current` sends again and that were handed out before.
    skip: u64,
    total: Option<u64>,
    /// Connections that broke since the last one that brought something.
    broken: u32,
    /// Connections that were too slow since the last one that was not.
    slow: u32,
    /// Bytes of the current connection.
    brought: u64,
    /// Pace of the current connection.
    pace: Pace,
}

impl Client {
    /// The bytes of a blob as they arrive; cut connections are resumed, also at the next host.
    ///
    /// The caller checks the digest, because it sees all bytes anyway.
    ///
    /// # Errors
    /// When no host has it. A later failure is the last item of the stream.
    pub async fn blob(
        &self,
        image: &ImageRef,
        wanted: Wanted<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<BlobStream> {
        let current = connect(self, image, wanted, credentials).await?;
        let download = Download {
            client: self.clone(),
            image: image.clone(),
            digest: wanted.digest.clone(),
            credentials: credentials.cloned(),
            first: current.place.at,
            position: wanted.offset,
            skip: wanted.offset - current.start,
            total: current.total,
            broken: 0,
            slow: 0,
            brought: 0,
            pace: Pace::new(self.config().timeouts.least),
            current,
        };
        Ok(BlobStream {
            size: download.total,
            download,
        })
    }
}

async fn connect(
    client: &Client,
    image: &ImageRef,
    wanted: Wanted<'_>,
    credentials: Option<&Credentials>,
) -> Result<Opened> {
    let mut call = Call::by_digest(image, wanted.digest, credentials);
    call.skip = wanted.skip;
    let open = OpenBlob {
        path: format!("{}/blobs/{}", image.repository(), wanted.digest),
        offset: wanted.offset,
        size: wanted.size,
    };
    client.ask(&call, &open).await
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let next = self.pace.wait(self.current.response.chunk()).await;
            let next = match next {
                Ok(next) => next,
                Err(slow) => {
                    self.hurry(slow).await?;
                    continue;
                }
            };
            match next {
                Ok(Some(chunk)) => {
                    if let Some(chunk) = self.take(chunk)? {
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) if self.total.is_none_or(|total| self.position >= total) => {
                    return Ok(None);
                }
                Ok(None) => self.resume("the connection ended early").await?,
                Err(error) if error.is_timeout() => {
                    self.resume("no byte for the idle time").await?;
                }
                Err(_) => self.resume("the connection broke").await?,
            }
        }
    }

    /// The part of a chunk that is new.
    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        if self.pace.was_good() {
            self.slow = 0;
        }
        let again = self.skip.min(chunk.len() as u64);
        self.skip -= again;
        chunk = chunk.split_off(usize::try_from(again).unwrap_or(chunk.len()));
        if chunk.is_empty() {
            return Ok(None);
        }
        self.position += chunk.len() as u64;
        self.brought += chunk.len() as u64;
        self.pace.took(chunk.len());
        if self.brought >= PROGRESS {
            self.broken = 0;
        }
        if self.total.is_some_and(|total| self.position > total) {
            return Err(self.protocol("more bytes than its size"));
        }
        Ok(Some(chunk))
    }

    /// Leaves a connection that is too slow. A second one in a row shows that it is not the path.
    async fn hurry(&mut self, slow: TooSlow) -> Result<()> {
        self.slow += 1;
        if self.slow < 2 {
            return self.resume("the connection is too slow").await;
        }
        let error = Error::TooSlow {
            host: self.current.host.clone(),
            reference: self.reference(),
            why: slow.to_string(),
        };
        self.move_on(error).await
    }

    /// Connects again and goes on where the bytes ended.
    async fn resume(&mut self, why: &str) -> Result<()> {
        self.broken += 1;
        let timeouts = &self.client.config().timeouts;
        let Some(pause) = timeouts.pause(Again::Later, self.broken, timeouts.attempts) else {
            let error = Error::Unavailable {
                host: self.current.host.clone(),
                reference: self.reference(),
                why: format!("{why}, {} times in a row", self.broken),
            };
            return self.move_on(error).await;
        };
        tracing::debug!(blob = %self.digest, at = self.position, why, "resuming a download");
        tokio::time::sleep(pause).await;
        self.reconnect(self.current.place.at).await
    }

    /// Goes on at the next host; `error` is what is told when there is none.
    async fn move_on(&mut self, error: Error) -> Result<()> {
        let Some(next) = self.current.place.next() else {
            return Err(error);
        };
        tracing::warn!(%error, "mirror failed in a download, asking the next");
        (self.broken, self.slow) = (0, 0);
        let moved = self.reconnect(next).await;
        moved.map_err(|last| last.after(std::slice::from_ref(&error)))
    }

    async fn reconnect(&mut self, skip: usize) -> Result<()> {
        let wanted = Wanted {
            digest: &self.digest,
            size: self.total,
            offset: self.position,
            skip,
        };
        let credentials = self.credentials.as_ref();
        self.current = connect(&self.client, &self.image, wanted, credentials).await?;
        if let (Some(before), Some(now)) = (self.total, self.current.total)
            && before != now
        {
            return Err(self.protocol("its size changed between connections"));
        }
        self.total = self.total.or(self.current.total);
        self.skip = self.position - self.current.start;
        self.brought = 0;
        self.pace = Pace::new(self.client.config().timeouts.least);
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
