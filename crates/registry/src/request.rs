//! A *request* is a question to one endpoint, with as many exchanges as its authentication takes:
//! one with what is known already, and one more with what the challenge asked for. A host that the
//! endpoint redirects to is a *guest*: its challenge is answered with what is meant for it by name.

use std::path::Path;
use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;

use crate::authorize::{self, Key};
use crate::challenge::{self, Challenge};
use crate::credentials::Secret;
use crate::docker_config;
use crate::exchange::{Asked, Exchange, Guest, Origin};
use crate::hosts::Endpoint;
use crate::retry::Failure;
use crate::token::{self, Ticket};

/// A token that the caller has ready is never kept: it comes with each call.
const READY_LIFE: Duration = Duration::ZERO;

impl Asked<'_> {
    /// Fetches `path` below the API root, authenticating as far as the secret goes.
    pub(crate) async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response, Failure> {
        self.request(Method::GET, path, headers).await
    }

    /// As [`Asked::get`], with any method.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let key = Key {
            base: self.endpoint.base.to_string(),
            repository: self.repository.to_owned(),
            secret: self.secret.clone(),
        };
        let mut authorization = match self.secret {
            Secret::Bearer(token) => Some(self.bearer(token)?.header),
            _ => self.grants.get(&key),
        };
        let mut guest = None;
        // Once with what is known, once more with what the challenge asked for.
        let mut renewed = matches!(self.secret, Secret::Bearer(_));
        loop {
            let (response, origin) = self
                .send(Exchange {
                    method: method.clone(),
                    url: self.endpoint.url(path),
                    headers: headers.clone(),
                    authorization: authorization.clone(),
                    guest: guest.clone(),
                    form: None,
                })
                .await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let is_challenge = response.status() == StatusCode::UNAUTHORIZED;
            match origin {
                Origin::Own if is_challenge && !renewed => {
                    self.grants.forget(&key);
                    let grant = self.authenticate(response).await?;
                    authorization = Some(grant.header.clone());
                    self.grants.put(key.clone(), grant);
                    renewed = true;
                }
                Origin::Own => return Err(self.refused(response).await),
                Origin::Foreign => {
                    guest = Some(self.as_guest(response, guest.as_ref()).await?);
                }
            }
        }
    }

    /// The secret for a host that the endpoint redirected to, and that did not give what was asked
    /// for; `tried` is what it was shown. Errors name that host.
    async fn as_guest(&self, response: Response, tried: Option<&Guest>) -> Result<Guest, Failure> {
        let mut home = response.url().clone();
        home.set_query(None);
        home.set_path("/v2");
        let key = Key {
            base: home.to_string(),
            repository: self.repository.to_owned(),
            secret: self.secret.clone(),
        };
        let endpoint = Endpoint::guest(home.clone());
        let secret = self.secret_for(&endpoint.host()).await;
        let asked = Asked {
            endpoint: &endpoint,
            secret: &secret,
            ..*self
        };
        let is_known = tried.is_some_and(|guest| guest.is_fresh);
        if response.status() != StatusCode::UNAUTHORIZED || is_known {
            return Err(asked.refused(response).await);
        }
        let guest = |authorization, is_fresh| Guest {
            home,
            authorization,
            is_fresh,
        };
        if let Some(authorization) = self.grants.get(&key).filter(|_| tried.is_none()) {
            return Ok(guest(authorization, false));
        }
        self.grants.forget(&key);
        let grant = match &secret {
            Secret::Bearer(token) => asked.bearer(token)?,
            _ => asked.authenticate(response).await?,
        };
        let authorization = grant.header.clone();
        self.grants.put(key, grant);
        Ok(guest(authorization, true))
    }

    /// The secret that a host is shown that has no claim to the one of this endpoint.
    async fn secret_for(&self, host: &str) -> Secret {
        if let Some(secret) = self.keyring.named(host) {
            return secret;
        }
        let Some(path) = self.keyring.docker_config.map(Path::to_owned) else {
            return Secret::Anonymous;
        };
        let name = host.to_owned();
        let read = crisp_tasks::blocking(move || docker_config::credentials(&path, &name)).await;
        match read {
            Ok(Ok(Some(credentials))) => credentials.secret(),
            Ok(Ok(None)) => Secret::Anonymous,
            Ok(Err(error)) => {
                tracing::debug!(%error, host, "asking without credentials");
                Secret::Anonymous
            }
            Err(error) => {
                tracing::debug!(%error, host, "asking without credentials");
                Secret::Anonymous
            }
        }
    }

    fn bearer(&self, token: &str) -> Result<authorize::Grant, Failure> {
        let unusable = "the registry token has control characters";
        authorize::bearer(token, READY_LIFE)
            .ok_or_else(|| Failure::last(self.unauthorized(unusable)))
    }

    /// Answers the challenge of an endpoint.
    async fn authenticate(&self, response: Response) -> Result<authorize::Grant, Failure> {
        let values = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = challenge::parse(values.iter().filter_map(|v| v.to_str().ok()));
        match (challenge, self.secret) {
            (Some(Challenge::Basic), Secret::Password { username, password }) => {
                authorize::basic(username, password)
                    .ok_or_else(|| Failure::last(self.unauthorized("unusable password")))
            }
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                    error,
                }),
                secret,
            ) => {
                if let Some(error) = error {
                    tracing::debug!(host = self.endpoint.host(), error, "token refused");
                }
                token::fetch(
                    self,
                    &Ticket {
                        realm: &realm,
                        service: service.as_deref(),
                        scope: &scopes(self.repository, scope.as_deref()),
                        secret,
                    },
                )
                .await
            }
            _ => Err(self.refused(response).await),
        }
    }
}

/// Our own scope, and whatever else the challenge says that it takes.
fn scopes(repository: &str, asked: Option<&str>) -> String {
    let mut scopes = vec![format!("repository:{repository}:pull")];
    for scope in asked.unwrap_or_default().split_ascii_whitespace() {
        if !scopes.iter().any(|known| known == scope) && scopes.len() < 8 {
            scopes.push(scope.to_owned());
        }
    }
    scopes.join(" ")
}
