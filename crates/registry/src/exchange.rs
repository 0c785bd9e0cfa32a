//! An *exchange* is one HTTP request with its redirects: how it is sent, and what statuses and
//! failures mean. It carries an `Authorization` that it is given, and asks for none.

use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;
use std::time::SystemTime;
use url::Url;

use crate::authorize::Grants;
use crate::config::LeastRate;
use crate::credentials::{Credentials, Keyring, Secret};
use crate::error::Error;
use crate::hosts::{Endpoint, authority};
use crate::pace::{Pace, TooSlow};
use crate::retry::{Again, Failure, is_passing, retry_after};
use crate::words;

const MAX_REDIRECTS: u32 = 10;
/// As much of an error document as is worth reading.
const MAX_REASON: usize = 16 << 10;

/// A question to an endpoint, with what errors about it must name.
pub(crate) struct Asked<'a> {
    pub(crate) http: &'a reqwest::Client,
    pub(crate) grants: &'a Grants,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) repository: &'a str,
    pub(crate) secret: &'a Secret,
    /// The object of the request, as the user knows it.
    pub(crate) reference: &'a str,
    /// The least pace of its answers.
    pub(crate) least: LeastRate,
    /// Where the endpoint stands among those that can be asked.
    pub(crate) place: Place,
    /// Where secrets for hosts come from that it may redirect to.
    pub(crate) keyring: Keyring<'a>,
}

/// The place of an endpoint in the order of asking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: usize,
    pub(crate) is_last: bool,
}

impl Place {
    /// The place of the next endpoint, if there is one.
    pub(crate) fn next(self) -> Option<usize> {
        (!self.is_last).then_some(self.at + 1)
    }
}

/// One HTTP request before redirects.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<HeaderValue>,
    /// The secret that a host is shown that redirects lead to.
    pub(crate) guest: Option<Guest>,
    pub(crate) form: Option<String>,
}

/// The `Authorization` for one host that the endpoint redirected to, and that asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) home: Url,
    pub(crate) authorization: HeaderValue,
    /// Whether it was made for the challenge at hand.
    pub(crate) is_fresh: bool,
}

/// Whether an answer is the endpoint's own or that of a host it redirected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Own,
    Foreign,
}

impl Asked<'_> {
    /// Sends a request and follows its redirects. Secrets of the endpoint stay with its host:
    /// neither the `Authorization` nor the configured headers go to another (CVE-2020-15157).
    pub(crate) async fn send(&self, exchange: Exchange) -> Result<(Response, Origin), Failure> {
        let mut url = exchange.url.clone();
        let mut home = None;
        let mut origin = Origin::Own;
        for _ in 0..MAX_REDIRECTS {
            let response = self.send_once(&exchange, &url, origin).await?;
            // Not the URL that was asked for: falling back to plain HTTP changes the scheme.
            let home = home.get_or_insert_with(|| response.url().clone());
            let next = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 if exchange.form.is_none() => {
                    self.redirect(&response)?
                }
                _ => return Ok((response, origin)),
            };
            if !same_origin(&next, home) {
                origin = Origin::Foreign;
            }
            url = next;
        }
        Err(Failure::last(self.protocol("too many redirects")))
    }

    fn redirect(&self, response: &Response) -> Result<Url, Failure> {
        let bad = |why: &str| Failure::last(self.protocol(format!("redirect: {why}")));
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|l| l.to_str().ok());
        let next = response
            .url()
            .join(location.ok_or_else(|| bad("without a Location"))?)
            .map_err(|_| bad("Location is not a URL"))?;
        match (response.url().scheme(), next.scheme()) {
            (_, "https") | ("http", "http") => Ok(next),
            ("https", "http") => Err(bad("from TLS to plain HTTP")),
            _ => Err(bad("neither http nor https")),
        }
    }

    async fn send_once(
        &self,
        exchange: &Exchange,
        url: &Url,
        origin: Origin,
    ) -> Result<Response, Failure> {
        let mut url = url.clone();
        // User and password in a URL would be sent on as Basic by the HTTP client.
        let cleared = url.set_username("").is_ok() && url.set_password(None).is_ok();
        if !cleared {
            return Err(Failure::last(self.protocol("a URL without a host")));
        }
        let result = self.build(exchange, url.clone(), origin).send().await;
        let fall_back = self.endpoint.http_fallback
            && same_origin(&url, &self.endpoint.base)
            && result.as_ref().is_err_and(reqwest::Error::is_connect);
        if fall_back && url.set_scheme("http").is_ok() {
            let plain = self.build(exchange, url, origin).send().await;
            return plain.map_err(|error| self.failed(&error));
        }
        result.map_err(|error| self.failed(&error))
    }

    fn build(&self, exchange: &Exchange, url: Url, origin: Origin) -> reqwest::RequestBuilder {
        let own = same_origin(&exchange.url, &self.endpoint.base);
        let mut headers = exchange.headers.clone();
        if origin == Origin::Own {
            if own {
                for (name, value) in &self.endpoint.headers {
                    headers.append(name.clone(), value.clone());
                }
            }
            if let Some(authorization) = &exchange.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
        } else if let Some(guest) = &exchange.guest
            && same_origin(&url, &guest.home)
        {
            headers.insert(AUTHORIZATION, guest.authorization.clone());
        }
        let mut request = self.http.request(exchange.method.clone(), url);
        if let Some(form) = &exchange.form {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(CONTENT_TYPE, kind);
            request = request.body(form.clone());
        }
        request.headers(headers)
    }

    /// Whether this endpoint is spoken to without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.base.scheme() == "http" || self.endpoint.http_fallback
    }

    fn names(&self) -> (String, String) {
        (self.endpoint.host(), self.reference.to_owned())
    }

    pub(crate) fn protocol(&self, why: impl Into<String>) -> Error {
        let (host, reference) = self.names();
        let why = why.into();
        Error::Protocol {
            host,
            reference,
            why,
        }
    }

    pub(crate) fn unauthorized(&self, why: impl Into<String>) -> Error {
        let (host, reference) = self.names();
        let mut why = why.into();
        if self
            .keyring
            .credentials
            .is_some_and(Credentials::are_unreadable)
        {
            why.push_str(
                "; `auth` of the credentials is not base64 of USERNAME:PASSWORD, and was not shown",
            );
        }
        Error::Unauthorized {
            host,
            reference,
            why,
        }
    }

    fn too_slow(&self, slow: TooSlow) -> Failure {
        let (host, reference) = self.names();
        let why = slow.to_string();
        Failure::last(Error::TooSlow {
            host,
            reference,
            why,
        })
    }

    pub(crate) fn too_large(&self, limit: u64) -> Failure {
        let (host, reference) = self.names();
        Failure::last(Error::TooLarge {
            host,
            reference,
            limit,
        })
    }

    /// The meaning of a status that is not a success.
    pub(crate) async fn refused(&self, response: Response) -> Failure {
        let (host, reference) = self.names();
        let status = response.status();
        let after = retry_after(response.headers(), SystemTime::now());
        let why = self.words(response).await;
        if is_passing(status) {
            return Failure {
                error: Error::Unavailable {
                    host,
                    reference,
                    why,
                },
                again: after.map_or(Again::Later, Again::After),
            };
        }
        Failure::last(match status {
            StatusCode::NOT_FOUND => Error::NotFound {
                host,
                reference,
                why,
            },
            StatusCode::UNAUTHORIZED => self.unauthorized(why),
            StatusCode::FORBIDDEN => Error::Denied {
                host,
                reference,
                why,
            },
            _ => Error::Protocol {
                host,
                reference,
                why,
            },
        })
    }

    /// The status of an answer, and the words of whoever sent it.
    pub(crate) async fn words(&self, response: Response) -> String {
        let status = response.status();
        words::reason(status, &self.beginning(response).await)
    }

    /// As much of a body as explains a refusal; how it ends is of no interest.
    async fn beginning(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        let mut pace = Pace::new(self.least);
        while body.len() < MAX_REASON {
            match pace.wait(response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    pace.took(chunk.len());
                    body.extend_from_slice(&chunk);
                }
                _ => break,
            }
        }
        body.truncate(MAX_REASON);
        body
    }

    /// The meaning of a request without an answer.
    pub(crate) fn failed(&self, error: &reqwest::Error) -> Failure {
        let (host, reference) = self.names();
        let (why, tls) = chain(error);
        if tls {
            return Failure::last(Error::Tls {
                host,
                reference,
                why,
            });
        }
        Failure::passing(Error::Unavailable {
            host,
            reference,
            why,
        })
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_body(
    asked: &Asked<'_>,
    mut response: Response,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(asked.too_large(limit));
    }
    let mut body = Vec::new();
    let mut pace = Pace::new(asked.least);
    loop {
        let next = pace.wait(response.chunk()).await;
        let next = next.map_err(|slow| asked.too_slow(slow))?;
        let Some(chunk) = next.map_err(|error| asked.failed(&error))? else {
            return Ok(body);
        };
        pace.took(chunk.len());
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(asked.too_large(limit));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The header that asks for a document from `offset` on.
pub(crate) fn range(offset: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if offset > 0
        && let Ok(value) = HeaderValue::from_str(&format!("bytes={offset}-"))
    {
        headers.insert(RANGE, value);
    }
    headers
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && authority(a) == authority(b)
}

/// The causes of an HTTP failure, and whether TLS is among them.
fn chain(error: &reqwest::Error) -> (String, bool) {
    let mut words: Vec<String> = Vec::new();
    let mut tls = false;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // An URL may carry a signature of a storage service: keep it out of messages.
        let text = match error.downcast_ref::<reqwest::Error>() {
            Some(_) => String::new(),
            None => error.to_string(),
        };
        if !text.is_empty() && !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
        tls |= is_tls(error);
        cause = error.source();
    }
    if words.is_empty() {
        words.push("the request failed".to_owned());
    }
    (words.join(": "), tls)
}

/// Whether this is a failure of TLS, which the layers between wrap in I/O errors.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().is_some_and(|inner| is_tls(inner)),
        None => error.is::<rustls::Error>(),
    }
}
