//! Docker's `config.json`: credentials that an administrator left on the node.
//!
//! Only `auths` is read. `credHelpers` and `credsStore` name programs to run; the kubelet has its
//! own credential providers for that, and what they return arrives through CRI.

use std::collections::BTreeMap;
use std::path::Path;

use crisp_model::go_json;
use serde::Deserialize;

use crate::credentials::{Credentials, bare_host, canonical};
use crate::error::{Context, Result};
use crate::tls_files::read_bounded;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Credentials for `host`; `None` when the file or an entry for the host is missing.
pub(crate) fn credentials(path: &Path, host: &str) -> Result<Option<Credentials>> {
    match read_bounded(path)? {
        Some(content) => find(path, &content, host),
        None => Ok(None),
    }
}

/// Credentials for `host` in the content of the file at `path`.
pub(crate) fn find(path: &Path, content: &[u8], host: &str) -> Result<Option<Credentials>> {
    // The parser's own words may quote the file, and with it a secret: give its place only.
    let file = go_json::first_of_slice(content).map_err(|e| match e.line() {
        0 => "not docker's config.json: a value of the wrong type".to_owned(),
        line => format!(
            "not docker's config.json: line {line} column {}",
            e.column()
        ),
    });
    let file: File = file.context(|| ("read", path.display()))?;
    let host = canonical(host);
    let entry = file.auths.iter().find(|(key, _)| bare_host(key) == host);
    let found = entry.map(|(_, auth)| Credentials {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        identity_token: auth.identitytoken.clone(),
        registry_token: auth.registrytoken.clone(),
        server_address: host.to_owned(),
    });
    let empty = Credentials {
        server_address: host.to_owned(),
        ..Credentials::default()
    };
    let found = found.filter(|credentials| *credentials != empty);
    if found.is_none() && (file.cred_helpers.contains_key(host) || !file.creds_store.is_empty()) {
        tracing::debug!(path = %path.display(), host, "credential helpers are not run");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_methods,
        reason = "test fixtures need no atomic write"
    )]
    use super::*;
    use crate::credentials::Secret;

    #[test]
    fn entries_are_found_by_any_spelling_of_the_host() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aDpi"},
            "r.io": {"identitytoken": "t"},
            "https://s.io:5000": {"username": "u", "password": "p"},
            "empty.io": {}
        }, "credHelpers": {"empty.io": "x"}, "HttpHeaders": {}}"#;
        std::fs::write(file.path(), text).unwrap();
        let password = |u: &str, p: &str| {
            Some(Secret::Password {
                username: u.into(),
                password: p.into(),
            })
        };
        for (host, expected) in [
            ("docker.io", password("h", "b")),
            ("registry-1.docker.io", password("h", "b")),
            ("r.io", Some(Secret::Identity("t".into()))),
            ("s.io:5000", password("u", "p")),
            ("s.io", None),
            ("empty.io", None),
        ] {
            let found = credentials(file.path(), host).unwrap();
            assert_eq!(found.map(|c| c.secret()), expected, "{host}");
        }
    }

    /// Forms that other readers of the file take are taken.
    #[test]
    fn odd_but_common_forms() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [
            (r#"{"Auths":{"a":{"AUTH":"aDpi"}}}"#, true),
            (r#"{"auths":{"a":{"Username":"h","PASSWORD":"b"}}}"#, true),
            (
                r#"{"auths":{"a":{"auth":"x"}},"auths":{"a":{"auth":"aDpi"}}}"#,
                true,
            ),
            (
                r#"{"auths":{"a":{"auth":"aDpi","email":null}},"credsStore":null}"#,
                true,
            ),
            (r#"{"auths":{"a":{"auth":"aDpi"}}} trailing"#, true),
            (r#"{"auths":{"a":null}}"#, false),
            (r#"{"auths":null,"credHelpers":null}"#, false),
            ("{}", false),
            ("null", false),
        ] {
            std::fs::write(file.path(), text).unwrap();
            let found = credentials(file.path(), "a").unwrap();
            let secret = Secret::Password {
                username: "h".into(),
                password: "b".into(),
            };
            let expected = expected.then_some(secret);
            assert_eq!(found.map(|c| c.secret()), expected, "{text}");
        }
        for text in ["", "[]", r#"{"auths":[]}"#, r#"{"auths":{"a":"x"}}"#] {
            std::fs::write(file.path(), text).unwrap();
            assert!(credentials(file.path(), "a").is_err(), "{text}");
        }
    }

    #[test]
    fn a_broken_file_is_named_but_not_quoted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"auths": {"a": {"auth": 12345}}}"#).unwrap();
        let error = credentials(file.path(), "a").unwrap_err().to_string();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
        assert!(!error.contains("12345"), "{error}");
        assert!(
            credentials(Path::new("/proc/nonexistent"), "a")
                .unwrap()
                .is_none()
        );
    }
}
