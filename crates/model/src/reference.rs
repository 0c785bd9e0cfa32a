//! Image references as users write them: `[host[:port]/]path[:tag][@digest]`.
//!
//! The grammar and the defaults (`docker.io`, `library/`, `latest`) are those of the distribution
//! project's reference format, so that what works with other tools works here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

/// A normalised image reference: host and repository are explicit, and a tag or digest is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

const MAX_NAME: usize = 255;

impl ImageRef {
    /// Parses and normalises a reference.
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |why| ReferenceError {
            text: text.chars().take(300).collect(),
            why,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| fail("bad digest"))?),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail(
                "a tag is 1 to 128 of [A-Za-z0-9_.-], not starting with . or -",
            ));
        }
        let (host, repository) = split_host(name);
        if !is_host(host) {
            return Err(fail("bad registry host"));
        }
        if repository.is_empty() || !repository.split('/').all(is_component) {
            return Err(fail(
                "a repository is lowercase path components of [a-z0-9._-]",
            ));
        }
        let bare = host == "docker.io" && !repository.contains('/');
        let repository = if bare {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        // With what is implied: what is shown is taken again.
        if repository.len() > MAX_NAME {
            return Err(fail("the repository is longer than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self {
            host: host.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Registry host with its port, `docker.io` when none was written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository path within the host.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag, if one was written or implied.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host/repository`, with neither tag nor digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// `host/repository@digest`: how CRI lists the digests of an image.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self {
            host: self.host.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest.clone()),
        }
    }
}

fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (
                if first == "index.docker.io" {
                    "docker.io"
                } else {
                    first
                },
                rest,
            )
        }
        _ => ("docker.io", name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0));
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let name_ok = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.len() <= MAX_NAME
                && name.split('.').all(|label| {
                    !label.is_empty()
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        }
    };
    port_ok && name_ok
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag
            .bytes()
            .enumerate()
            .all(|(i, b)| word(b) || (i > 0 && (b == b'.' || b == b'-')))
}

/// A path component: alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text
        .split(|c: char| c.is_ascii() && alnum(c as u8))
        .filter(|s| !s.is_empty());
    text.bytes().next().is_some_and(alnum)
        && text.bytes().next_back().is_some_and(alnum)
        && separators
            .into_iter()
            .all(|s| s == "." || s == "_" || s == "__" || s.bytes().all(|b| b == b'-'))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        Self::parse(&text)
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_normalise() {
        let hex = "ab".repeat(32);
        let cases = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("a/b:1", "docker.io/a/b:1".to_owned()),
            ("index.docker.io/b", "docker.io/library/b:latest".to_owned()),
            ("localhost/b", "localhost/b:latest".to_owned()),
            (
                "127.0.0.1:5000/a/b__c",
                "127.0.0.1:5000/a/b__c:latest".to_owned(),
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest".to_owned()),
            (
                &format!("r.io/x@sha256:{hex}"),
                format!("r.io/x@sha256:{hex}"),
            ),
            (
                &format!("r.io/x:t@sha256:{hex}"),
                format!("r.io/x:t@sha256:{hex}"),
            ),
        ];
        for (text, normal) in cases {
            assert_eq!(
                ImageRef::parse(text).map(|r| r.to_string()),
                Ok(normal),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_references_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            "/",
            ":",
            "@",
            "A",
            "r.io/",
            "r.io/A",
            "r.io/a:",
            "r.io/a:-x",
            "r.io/a@sha256:1",
            "r.io/../a",
            "r.io/a..b",
            "r.io/a___b",
            "r.io:0/a",
            "r.io:99999/a",
            "-r.io/a",
            "a b",
            "r.io/a\n",
            "r.io/ä",
            "r.io/a//b",
            &long,
        ] {
            assert!(ImageRef::parse(text).is_err(), "{text:?}");
        }
    }

    /// A name that was taken and cannot be read back would spoil the record that it is in.
    #[test]
    fn what_is_implied_counts_in_the_length() {
        let longest = MAX_NAME - "library/".len();
        let image = ImageRef::parse(&"a".repeat(longest)).unwrap();
        assert_eq!(ImageRef::parse(&image.to_string()), Ok(image));
        assert!(ImageRef::parse(&"a".repeat(longest + 1)).is_err());
    }
}
