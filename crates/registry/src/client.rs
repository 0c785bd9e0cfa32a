//! The calls of this crate: endpoints in order, each tried as often as makes sense.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use crisp_model::digest::Algorithm;
use crisp_model::{Digest, ImageRef};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest as _, Sha256, Sha512};

use crate::MAX_MANIFEST;
use crate::authorize::Grants;
use crate::config::Config;
use crate::credentials::{Credentials, Keyring, Secret};
use crate::docker_config;
use crate::document::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::error::{Context, Error, Result};
use crate::exchange::{Asked, Place, read_body};
use crate::hosts::{self, Capability, Endpoint};
use crate::retry::Failure;
use crate::tls::Clients;

/// A client of all registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    clients: Clients,
    grants: Grants,
}

/// The document that a reference stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of `body`.
    pub digest: Digest,
    /// Checked media type: an OCI or Docker image manifest or index.
    pub media_type: String,
    /// The document.
    pub body: Bytes,
    /// Its length.
    pub size: u64,
}

/// A question, before it is known whom to ask.
pub(crate) struct Call<'a> {
    pub(crate) image: &'a ImageRef,
    pub(crate) capability: Capability,
    pub(crate) credentials: Option<&'a Credentials>,
    /// Its name in errors.
    pub(crate) reference: String,
    /// Endpoints to pass over, because what they sent turned out wrong.
    pub(crate) skip: usize,
}

/// One try at one endpoint.
pub(crate) trait Attempt: Sync {
    /// The value of a success.
    type Output: Send;
    /// How often it is worth asking the registry itself.
    fn tries(&self, usual: u32) -> u32 {
        usual
    }
    /// Asks.
    fn run(
        &self,
        asked: &Asked<'_>,
    ) -> impl Future<Output = std::result::Result<Self::Output, Failure>> + Send;
}

/// An endpoint with all that a request to it takes.
struct Ready {
    endpoint: Endpoint,
    http: reqwest::Client,
    secret: Secret,
}

impl Client {
    /// A client with this configuration. Nothing is contacted or read before the first call.
    ///
    /// # Errors
    /// When the configuration cannot work: its user agent is no header value.
    pub fn new(config: Config) -> Result<Self> {
        if HeaderValue::from_str(&config.user_agent).is_err() {
            let why = "it is not a header value";
            return Err(why).context(|| ("use", format!("user agent {:?}", config.user_agent)));
        }
        Ok(Self(Arc::new(Inner {
            clients: Clients::new(config.clone()),
            grants: Grants::default(),
            config,
        })))
    }

    /// The manifest or index that a reference stands for; its digest decides if it has one.
    ///
    /// # Errors
    /// When no host has it, or what they have cannot be used.
    pub async fn resolve(
        &self,
        image: &ImageRef,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved> {
        let (name, capability) = match (image.digest(), image.tag()) {
            (Some(digest), _) => (digest.as_str(), Capability::Pull),
            (None, tag) => (tag.unwrap_or("latest"), Capability::Resolve),
        };
        let call = Call {
            image,
            capability,
            credentials,
            reference: image.to_string(),
            skip: 0,
        };
        let path = format!("{}/manifests/{name}", image.repository());
        self.document(&call, path, image.digest()).await
    }

    /// The digest that a tag stands for, if the registry says so without sending the document:
    /// some count each document that they send.
    ///
    /// # Errors
    /// When no host has it.
    pub async fn digest_of(
        &self,
        image: &ImageRef,
        credentials: Option<&Credentials>,
    ) -> Result<Option<Digest>> {
        let call = Call {
            image,
            capability: Capability::Resolve,
            credentials,
            reference: image.to_string(),
            skip: 0,
        };
        let tag = image.tag().unwrap_or("latest");
        let path = format!("{}/manifests/{tag}", image.repository());
        self.ask(&call, &FetchDigest { path }).await
    }

    /// A manifest or index by its digest.
    ///
    /// # Errors
    /// When no host has it, or what they have cannot be used.
    pub async fn manifest(
        &self,
        image: &ImageRef,
        digest: &Digest,
        credentials: Option<&Credentials>,
    ) -> Result<(String, Bytes)> {
        let call = Call::by_digest(image, digest, credentials);
        let path = format!("{}/manifests/{digest}", image.repository());
        let found = self.document(&call, path, Some(digest)).await?;
        Ok((found.media_type, found.body))
    }

    /// A whole verified blob of at most `limit` bytes: an image's config.
    ///
    /// # Errors
    /// When no host has it, or what they have is larger or something else.
    pub async fn small_blob(
        &self,
        image: &ImageRef,
        digest: &Digest,
        limit: u64,
        credentials: Option<&Credentials>,
    ) -> Result<Bytes> {
        let call = Call::by_digest(image, digest, credentials);
        let fetch = FetchWhole {
            path: format!("{}/blobs/{digest}", image.repository()),
            headers: HeaderMap::new(),
            limit,
            expected: Some(digest),
        };
        Ok(self.ask(&call, &fetch).await?.body)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    async fn document(
        &self,
        call: &Call<'_>,
        path: String,
        expected: Option<&Digest>,
    ) -> Result<Resolved> {
        let fetch = FetchDocument(FetchWhole {
            path,
            headers: accept_documents(),
            limit: MAX_MANIFEST,
            expected,
        });
        self.ask(call, &fetch).await
    }

    /// Asks the endpoints in order until one has an answer.
    pub(crate) async fn ask<A: Attempt>(&self, call: &Call<'_>, attempt: &A) -> Result<A::Output> {
        let endpoints = self.endpoints(call).await?;
        let mut earlier = Vec::new();
        for (at, ready) in endpoints.iter().enumerate().skip(call.skip) {
            let is_last = at + 1 == endpoints.len();
            let attempts = if is_last {
                attempt.tries(self.config().timeouts.attempts)
            } else {
                1
            };
            let asked = Asked {
                http: &ready.http,
                grants: &self.0.grants,
                endpoint: &ready.endpoint,
                repository: call.image.repository(),
                secret: &ready.secret,
                reference: &call.reference,
                least: self.config().timeouts.least,
                place: Place { at, is_last },
                keyring: Keyring {
                    credentials: call.credentials,
                    docker_config: self.config().docker_config.as_deref(),
                },
            };
            match self.insist(&asked, attempt, attempts).await {
                Ok(found) => return Ok(found),
                Err(error) if is_last => return Err(error.after(&earlier)),
                Err(error) => {
                    tracing::warn!(%error, "mirror failed, asking the next");
                    earlier.push(error);
                }
            }
        }
        Err(Error::NotFound {
            host: call.image.host().to_owned(),
            reference: call.reference.clone(),
            why: "no further host can be asked".to_owned(),
        })
    }

    async fn insist<A: Attempt>(
        &self,
        asked: &Asked<'_>,
        attempt: &A,
        bound: u32,
    ) -> Result<A::Output> {
        let mut tries = 0;
        loop {
            let failure = match attempt.run(asked).await {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            tries += 1;
            let Some(pause) = self.config().timeouts.pause(failure.again, tries, bound) else {
                return Err(failure.error);
            };
            tracing::debug!(error = %failure.error, ?pause, "asking again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn endpoints(&self, call: &Call<'_>) -> Result<Vec<Ready>> {
        let client = self.clone();
        let host = call.image.host().to_owned();
        let capability = call.capability;
        let credentials = call.credentials.cloned();
        let reading = crisp_tasks::blocking(move || {
            let config = client.config();
            hosts::endpoints(&config.hosts_dir, &host, capability)?
                .into_iter()
                .map(|endpoint| client.ready(endpoint, credentials.as_ref()))
                .collect()
        });
        let read = reading.await;
        read.context(|| ("read", self.config().hosts_dir.display()))?
    }

    fn ready(&self, endpoint: Endpoint, credentials: Option<&Credentials>) -> Result<Ready> {
        let http = self.0.clients.get(&endpoint)?;
        let host = endpoint.host();
        let mut secret = credentials
            .filter(|credentials| credentials.is_for(&host))
            .map_or(Secret::Anonymous, Credentials::secret);
        if secret == Secret::Anonymous
            && let Some(path) = &self.config().docker_config
            && let Some(credentials) = docker_config::credentials(path, &host)?
        {
            secret = credentials.secret();
        }
        Ok(Ready {
            endpoint,
            http,
            secret,
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl<'a> Call<'a> {
    pub(crate) fn by_digest(
        image: &'a ImageRef,
        digest: &Digest,
        credentials: Option<&'a Credentials>,
    ) -> Self {
        Self {
            image,
            capability: Capability::Pull,
            credentials,
            reference: image.with_digest(digest).to_string(),
            skip: 0,
        }
    }
}

/// Reads a whole answer and checks it.
struct FetchWhole<'a> {
    path: String,
    headers: HeaderMap,
    limit: u64,
    expected: Option<&'a Digest>,
}

struct Whole {
    content_type: Option<String>,
    body: Bytes,
    digest: Digest,
}

impl Attempt for FetchWhole<'_> {
    type Output = Whole;

    async fn run(&self, asked: &Asked<'_>) -> std::result::Result<Whole, Failure> {
        let response = asked.get(&self.path, &self.headers).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let body = read_body(asked, response, self.limit).await?;
        let algorithm = self.expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = digest_of(algorithm, &body);
        match self.expected {
            Some(expected) if *expected != digest => Err(Failure::last(Error::DigestMismatch {
                host: asked.endpoint.host(),
                reference: asked.reference.to_owned(),
                expected: expected.clone(),
                actual: digest,
            })),
            _ => Ok(Whole {
                content_type,
                body: body.into(),
                digest,
            }),
        }
    }
}

/// Reads a manifest or index and checks which it is.
struct FetchDocument<'a>(FetchWhole<'a>);

impl Attempt for FetchDocument<'_> {
    type Output = Resolved;

    async fn run(&self, asked: &Asked<'_>) -> std::result::Result<Resolved, Failure> {
        let whole = self.0.run(asked).await?;
        let media_type = document::media_type(whole.content_type.as_deref(), &whole.body)
            .map_err(|why| Failure::last(asked.protocol(why)))?;
        Ok(Resolved {
            digest: whole.digest,
            media_type,
            size: whole.body.len() as u64,
            body: whole.body,
        })
    }
}

/// Asks what a tag's document would be.
struct FetchDigest {
    path: String,
}

impl Attempt for FetchDigest {
    type Output = Option<Digest>;

    fn tries(&self, _: u32) -> u32 {
        1
    }

    async fn run(&self, asked: &Asked<'_>) -> std::result::Result<Self::Output, Failure> {
        let headers = accept_documents();
        let response = asked.request(Method::HEAD, &self.path, &headers).await?;
        let told = response.headers().get("docker-content-digest");
        let told = told.and_then(|value| value.to_str().ok());
        Ok(told.and_then(|text| Digest::parse(text).ok()))
    }
}

/// The documents that we understand.
fn accept_documents() -> HeaderMap {
    let kinds = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
    let value = HeaderValue::from_str(&kinds);
    value.map(|value| (ACCEPT, value)).into_iter().collect()
}

fn digest_of(algorithm: Algorithm, content: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::sha256(Sha256::digest(content).into()),
        Algorithm::Sha512 => Digest::sha512(Sha512::digest(content).into()),
    }
}
