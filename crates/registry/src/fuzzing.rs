//! Laws for any bytes that a registry, a token server or a file on the node may hold:
//! the fuzzer tries bytes of its own, the tests those of `fuzz/corpus`.

use std::path::Path;

use crate::challenge::{self, Challenge};
use crate::document::{self, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::{docker_config, hosts, token};

/// A document is an index or an image, whatever the answer's content type says of it.
pub fn document_kind(data: &[u8]) {
    let sent = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].map(Some);
    let sent = sent.into_iter().chain([None, Some("text/plain")]);
    let found = sent.filter_map(|sent| document::media_type(sent, data).ok());
    let mut kinds = found.map(|kind| matches!(kind.as_str(), OCI_INDEX | DOCKER_LIST));
    if let Some(first) = kinds.next() {
        assert!(kinds.all(|kind| kind == first), "an index and an image");
    }
}

/// Every endpoint of a `hosts.toml` is reached by HTTP and has a host.
pub fn hosts_toml(data: &[u8]) {
    let dir = Path::new("/certs.d/r.test");
    for endpoint in hosts::of_file(data, dir, "r.test").unwrap_or_default() {
        assert!(matches!(endpoint.base.scheme(), "http" | "https"));
        assert!(endpoint.base.host().is_some() && endpoint.base.query().is_none());
        let wait = endpoint.dial_timeout;
        assert!(wait.is_none_or(|wait| !wait.is_zero()), "no time to dial");
    }
}

/// A challenge that was understood is understood again when it is written plainly.
pub fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = challenge::parse(text.split('\n'));
    let Some(Challenge::Bearer {
        realm,
        service,
        scope,
        error,
    }) = &found
    else {
        return;
    };
    let parameters = [
        ("realm", Some(realm)),
        ("service", service.as_ref()),
        ("scope", scope.as_ref()),
        ("error", error.as_ref()),
    ];
    let parameters = parameters.iter().filter_map(|(name, value)| {
        let value = (*value)?.replace('\\', "\\\\").replace('"', "\\\"");
        Some(format!("{name}=\"{value}\""))
    });
    let plain = format!("Bearer {}", parameters.collect::<Vec<_>>().join(", "));
    assert_eq!(challenge::parse([plain.as_str()].into_iter()), found);
}

/// A token server's answer gives a header, or the reason why not.
pub fn token_answer(data: &[u8]) {
    match token::grant(data) {
        Ok(grant) => assert!(grant.header.as_bytes().starts_with(b"Bearer ")),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Docker's `config.json` gives credentials of the host that was asked for, and no other's.
pub fn docker_config(data: &[u8]) {
    for host in ["docker.io", "r.test:5000"] {
        let path = Path::new("/config.json");
        if let Ok(Some(found)) = docker_config::find(path, data, host) {
            assert_eq!(found.server_address, host);
            // The choice of a secret ends, whatever is in the file.
            drop(found.secret());
        }
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[
    ("document_kind", document_kind),
    ("hosts_toml", hosts_toml),
    ("challenge", challenge),
    ("token_answer", token_answer),
    ("docker_config", docker_config),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
