//! A *request* is a question to one endpoint, with as many exchanges as its authentication takes:
//! one with what is known already, and one more with what the challenge asked for.

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;

use crate::authorize::{self, Key};
use crate::challenge::{self, Challenge};
use crate::credentials::Secret;
use crate::exchange::{Asked, Exchange, Origin};
use crate::retry::Failure;
use crate::token::{self, Ticket};

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
            Secret::Bearer(token) => self.ready(token)?,
            _ => self.grants.get(&key),
        };
        // Once with what is known, once more with what the challenge asked for.
        let mut renewed = matches!(self.secret, Secret::Bearer(_));
        loop {
            let (response, origin) = self
                .send(Exchange {
                    method: method.clone(),
                    url: self.endpoint.url(path),
                    headers: headers.clone(),
                    authorization: authorization.clone(),
                    form: None,
                })
                .await?;
            if response.status().is_success() {
                return Ok(response);
            }
            if response.status() != StatusCode::UNAUTHORIZED || renewed || origin == Origin::Foreign
            {
                return Err(self.refused(response).await);
            }
            self.grants.forget(&key);
            let grant = self.authenticate(response).await?;
            authorization = Some(grant.header.clone());
            self.grants.put(key.clone(), grant);
            renewed = true;
        }
    }

    fn ready(&self, token: &str) -> Result<Option<HeaderValue>, Failure> {
        let life = std::time::Duration::ZERO;
        match authorize::bearer(token, life) {
            Some(grant) => Ok(Some(grant.header)),
            None => Err(Failure::last(
                self.unauthorized("the registry token has control characters"),
            )),
        }
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
