//! The token server: an access token for a secret (distribution's token and OAuth2 protocols).

use std::time::Duration;

use crisp_model::go_json;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::authorize::{self, Grant};
use crate::credentials::Secret;
use crate::exchange::{Asked, Exchange, read_body};
use crate::hosts::{authority, is_loopback};
use crate::retry::{Failure, is_passing};

const MAX_ANSWER: u64 = 1 << 20;
/// The life of a token when the server does not say, seconds.
const DEFAULT_LIFE: u64 = 60;
/// A server that promises more than a day may have been set anew by then.
const LONGEST_LIFE: u64 = 86_400;
/// A token is renewed this long before its end, so that it does not end on the way.
const MARGIN: u64 = 5;
/// Names us to token servers that want to know.
const CLIENT_ID: &str = "crisp";

/// A request for a token.
pub(crate) struct Ticket<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: &'a str,
    pub(crate) secret: &'a Secret,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    expires_in: i64,
}

/// Fetches a token from the server that the registry named.
pub(crate) async fn fetch(asked: &Asked<'_>, ticket: &Ticket<'_>) -> Result<Grant, Failure> {
    let realm = realm(asked, ticket.realm)?;
    let exchange = match ticket.secret {
        Secret::Identity(token) => refresh(realm, ticket, token),
        Secret::Password { username, password } => {
            let mut exchange = query(realm, ticket, Some(username));
            exchange.authorization = authorize::basic(username, password).map(|g| g.header);
            exchange
        }
        Secret::Anonymous | Secret::Bearer(_) => query(realm, ticket, None),
    };
    let server = authority(&exchange.url);
    ask(asked, exchange).await.map_err(|failure| Failure {
        error: failure.error.of_host(format!("token server {server}")),
        ..failure
    })
}

async fn ask(asked: &Asked<'_>, exchange: Exchange) -> Result<Grant, Failure> {
    let (response, _) = asked.send(exchange).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            let why = asked.words(response).await;
            return Err(Failure::last(asked.unauthorized(why)));
        }
        status if is_passing(status) => return Err(asked.refused(response).await),
        _ => {
            let why = asked.words(response).await;
            return Err(Failure::last(asked.protocol(why)));
        }
    }
    let body = read_body(asked, response, MAX_ANSWER).await?;
    grant(&body).map_err(|why| Failure::last(asked.protocol(why)))
}

/// The token of an answer.
pub(crate) fn grant(body: &[u8]) -> Result<Grant, &'static str> {
    let answer: Answer =
        go_json::first_of_slice(body).map_err(|_| "it sent no token: not the JSON of one")?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        return Err("it sent no token");
    }
    let life = u64::try_from(answer.expires_in).unwrap_or_default();
    let life = life.clamp(DEFAULT_LIFE, LONGEST_LIFE) - MARGIN;
    let grant = authorize::bearer(&token, Duration::from_secs(life));
    grant.ok_or("it sent a token with control characters")
}

/// The token server's URL. A registry behind TLS cannot send its users' passwords into the clear.
fn realm(asked: &Asked<'_>, text: &str) -> Result<Url, Failure> {
    let bad = |why: &str| Failure::last(asked.protocol(format!("token server {text:?}: {why}")));
    let url = Url::parse(text).map_err(|_| bad("not a URL"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if asked.is_plain() || is_loopback(&url) => Ok(url),
        "http" => Err(bad("plain HTTP, named by a registry behind TLS")),
        _ => Err(bad("want http or https")),
    }
}

fn query(mut realm: Url, ticket: &Ticket<'_>, account: Option<&str>) -> Exchange {
    {
        let mut pairs = realm.query_pairs_mut();
        if let Some(service) = ticket.service {
            pairs.append_pair("service", service);
        }
        for scope in ticket.scope.split_ascii_whitespace() {
            pairs.append_pair("scope", scope);
        }
        if let Some(account) = account {
            pairs.append_pair("account", account);
        }
    }
    Exchange {
        method: Method::GET,
        url: realm,
        headers: HeaderMap::new(),
        authorization: None,
        guest: None,
        form: None,
    }
}

fn refresh(realm: Url, ticket: &Ticket<'_>, token: &str) -> Exchange {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", ticket.scope);
    if let Some(service) = ticket.service {
        form.append_pair("service", service);
    }
    Exchange {
        method: Method::POST,
        url: realm,
        headers: HeaderMap::new(),
        authorization: None,
        guest: None,
        form: Some(form.finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// The token and its life; containerd answers the same, except where said.
    #[test]
    fn odd_but_common_answers() {
        for (body, expected) in [
            (r#"{"token":"t","expires_in":300}"#, Some(("t", 295))),
            (r#"{"access_token":"t"}"#, Some(("t", 55))),
            (r#"{"token":"","access_token":"t"}"#, Some(("t", 55))),
            (
                r#"{"token":null,"access_token":"t","expires_in":null}"#,
                Some(("t", 55)),
            ),
            (r#"{"Token":"t","Expires_In":120}"#, Some(("t", 115))),
            (r#"{"token":"a","TOKEN":"t"}"#, Some(("t", 55))),
            (r#"{"token":"t","expires_in":-1}"#, Some(("t", 55))),
            (r#"{"token":"t","expires_in":1}"#, Some(("t", 55))),
            (
                r#"{"token":"t","expires_in":99999999}"#,
                Some(("t", 86_395)),
            ),
            (r#"{"token":"t"} {"token":"u"}"#, Some(("t", 55))),
            // containerd reads this date, and fails when it is none; we need none.
            (r#"{"token":"t","issued_at":"yesterday"}"#, Some(("t", 55))),
            (r#"{"token":"t","expires_in":"300"}"#, None),
            (r#"{"token":"t","expires_in":300.5}"#, None),
            (r#"{"token":1}"#, None),
            ("{}", None),
            ("<html>", None),
            ("", None),
            (r#"{"token":"a\nb"}"#, None),
        ] {
            let found = grant(body.as_bytes());
            let found = found.ok().map(|grant| {
                let left = grant.until.saturating_duration_since(Instant::now());
                let header = grant.header.to_str().unwrap().to_owned();
                (header, left.as_millis().div_ceil(1000))
            });
            let expected = expected.map(|(token, life)| (format!("Bearer {token}"), life));
            assert_eq!(found, expected, "{body}");
        }
    }
}
