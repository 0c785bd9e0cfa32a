//! Credentials as CRI carries them, and what they mean on the wire.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// CRI's `AuthConfig`: whichever of the fields are set. Its `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password of that user.
    pub password: String,
    /// `username:password` in base64, instead of the two above.
    pub auth: String,
    /// Refresh token, exchanged for an access token by OAuth2.
    pub identity_token: String,
    /// Bearer token, sent to the registry as it is.
    pub registry_token: String,
    /// Host that these credentials are for; empty means any.
    pub server_address: String,
}

/// The secret that a registry or its token server is shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Secret {
    /// Nothing.
    Anonymous,
    /// User and password.
    Password { username: String, password: String },
    /// OAuth2 refresh token.
    Identity(String),
    /// Ready bearer token.
    Bearer(String),
}

/// Secrets to show to hosts that an endpoint redirects to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyring<'a> {
    /// Secrets of the call.
    pub(crate) credentials: Option<&'a Credentials>,
    /// The administrator's file.
    pub(crate) docker_config: Option<&'a Path>,
}

impl Keyring<'_> {
    /// The secret that is meant for `host` by name. Credentials that name no host are for the
    /// registry of the call alone: a redirect must not lead them away.
    pub(crate) fn named(&self, host: &str) -> Option<Secret> {
        let named = self.credentials.filter(|c| !c.server_address.is_empty());
        let secret = named.filter(|c| c.is_for(host)).map(Credentials::secret);
        secret.filter(|secret| *secret != Secret::Anonymous)
    }
}

impl Credentials {
    /// Whether these credentials may be shown to `host`.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.server_address.is_empty() || bare_host(&self.server_address) == canonical(host)
    }

    /// Whether there is only an `auth`, and no user and password can be read from it.
    pub(crate) fn are_unreadable(&self) -> bool {
        !self.auth.trim().is_empty() && self.secret() == Secret::Anonymous
    }

    /// The strongest secret that the fields make up.
    pub(crate) fn secret(&self) -> Secret {
        if !self.registry_token.is_empty() {
            return Secret::Bearer(self.registry_token.clone());
        }
        if !self.identity_token.is_empty() {
            return Secret::Identity(self.identity_token.clone());
        }
        if !self.username.is_empty() || !self.password.is_empty() {
            return Secret::Password {
                username: self.username.clone(),
                password: self.password.clone(),
            };
        }
        match decode_auth(&self.auth) {
            Some((username, password)) => Secret::Password { username, password },
            None => Secret::Anonymous,
        }
    }
}

/// Splits docker's `auth` field; docker itself pads some with NUL bytes.
pub(crate) fn decode_auth(auth: &str) -> Option<(String, String)> {
    let auth = auth.trim();
    let raw = STANDARD
        .decode(auth)
        .or_else(|_| STANDARD_NO_PAD.decode(auth))
        .ok()?;
    let text = String::from_utf8(raw).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

/// The host of a server address, which may be a URL: docker writes `https://index.docker.io/v1/`.
pub(crate) fn bare_host(address: &str) -> &str {
    let address = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    canonical(address.split('/').next().unwrap_or(address))
}

/// One name for the three that Docker Hub goes by.
pub(crate) fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
            Self::Bearer(_) => "Bearer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_secret_wins() {
        let password = |u: &str, p: &str| Secret::Password {
            username: u.into(),
            password: p.into(),
        };
        let make = |change: fn(&mut Credentials)| {
            let mut c = Credentials::default();
            change(&mut c);
            c.secret()
        };
        assert_eq!(make(|_| {}), Secret::Anonymous);
        assert_eq!(make(|c| c.auth = "dTpwOng=".into()), password("u", "p:x"));
        assert_eq!(make(|c| c.auth = "dTpwAAA=".into()), password("u", "p"));
        assert_eq!(make(|c| c.auth = "!!".into()), Secret::Anonymous);
        assert_eq!(make(|c| c.username = "u".into()), password("u", ""));
        assert_eq!(
            make(|c| {
                c.username = "u".into();
                c.identity_token = "i".into();
            }),
            Secret::Identity("i".into())
        );
        assert_eq!(
            make(|c| {
                c.identity_token = "i".into();
                c.registry_token = "r".into();
            }),
            Secret::Bearer("r".into())
        );
    }

    #[test]
    fn credentials_stay_with_their_server() {
        let cases = [
            ("", "any.io", true),
            ("r.io", "r.io", true),
            ("https://r.io/v1/", "r.io", true),
            ("r.io:5000", "r.io", false),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
            ("r.io", "evil.io", false),
        ];
        for (server, host, expected) in cases {
            let credentials = Credentials {
                server_address: server.into(),
                ..Credentials::default()
            };
            assert_eq!(credentials.is_for(host), expected, "{server} {host}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let credentials = Credentials {
            password: "hunter2".into(),
            registry_token: "tok".into(),
            ..Credentials::default()
        };
        let text = format!("{credentials:?} {:?}", credentials.secret());
        assert!(
            !text.contains("hunter2") && !text.contains("tok\""),
            "{text}"
        );
    }
}
