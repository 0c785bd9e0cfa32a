//! The token server: an access token for a secret (distribution's token and OAuth2 protocols).

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::authorize::{self, Grant};
use crate::credentials::Secret;
use crate::exchange::{Asked, Exchange, read_body};
use crate::hosts::is_loopback;
use crate::retry::Failure;

const MAX_ANSWER: u64 = 1 << 20;
/// What a token lives when the server does not say.
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this long before its end, so that it does not end on the way.
const MARGIN: u64 = 5;
/// Names us to token servers that want to know.
const CLIENT_ID: &str = "crisp";

/// What a token is asked for.
pub(crate) struct Ticket<'a> {
    pub(crate) realm: &'a str,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: &'a str,
    pub(crate) secret: &'a Secret,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
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
    let (response, _) = asked.send(exchange).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            let why = format!("the token server answered {}", response.status());
            return Err(Failure::last(asked.unauthorized(why)));
        }
        _ => return Err(asked.refused(response).await),
    }
    let body = read_body(asked, response, MAX_ANSWER).await?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| Failure::last(asked.protocol("the token server sent no token")))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).max(DEFAULT_LIFE) - MARGIN;
    Some(token)
        .filter(|token| !token.is_empty())
        .and_then(|token| authorize::bearer(&token, Duration::from_secs(life.min(86_400))))
        .ok_or_else(|| Failure::last(asked.protocol("the token server sent no usable token")))
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
        form: Some(form.finish()),
    }
}
