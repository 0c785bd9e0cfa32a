//! `hosts.toml` as it is written; `hosts` makes endpoints of it.
//!
//! The layout is containerd's, so that files made for it (by hand, by kind, by mirror operators)
//! work unchanged. Keys that we do not know are ignored for the same reason, and told of; the case of
//! those that we know does not matter, as it does not for Go's reader of TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::any_case::AnyCase;
use crate::error::{Context, Result};
use crate::tls_files::{TlsFiles, read_bounded};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(remote = "Self")]
pub(crate) struct HostsFile {
    /// The registry itself; asked last.
    pub(crate) server: Option<String>,
    /// Mirrors in the order of the file.
    #[serde(default, rename = "host", deserialize_with = "in_order")]
    pub(crate) hosts: Vec<(String, Entry)>,
    /// Settings of `server`.
    #[serde(flatten)]
    pub(crate) root: Entry,
}

/// The keys of [`Entry`].
const ENTRY_KEYS: &[&str] = &[
    "capabilities",
    "override_path",
    "skip_verify",
    "ca",
    "client",
    "header",
    "dial_timeout",
];

/// Settings of one host.
#[derive(Debug, Default, Deserialize)]
#[serde(default, remote = "Self")]
pub(crate) struct Entry {
    pub(crate) capabilities: Vec<String>,
    pub(crate) override_path: Option<bool>,
    pub(crate) skip_verify: Option<bool>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<Clients>,
    pub(crate) header: BTreeMap<String, OneOrMany<String>>,
    dial_timeout: Option<String>,
}

impl<'de> Deserialize<'de> for HostsFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::deserialize(AnyCase(deserializer))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::deserialize(AnyCase(deserializer))
    }
}

/// A value that may be written with or without a list around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// Client certificates: a file, or a list of files and pairs of files. A list of two names is two
/// files that each hold certificate and key, as the format's manual says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Many(Vec<ClientPair>),
}

/// A client certificate with its key, in one file or two.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ClientPair {
    Together(PathBuf),
    Apart(Vec<PathBuf>),
}

impl<T> OneOrMany<T> {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::Many(many) => many.iter(),
        }
    }
}

impl Entry {
    /// The TLS files, with paths relative to the directory of the file.
    pub(crate) fn tls_files(&self, dir: &Path) -> std::result::Result<TlsFiles, String> {
        let mut files = TlsFiles {
            skip_verify: self.skip_verify.unwrap_or(false),
            ..TlsFiles::default()
        };
        for path in self.ca.iter().flat_map(OneOrMany::iter) {
            files.ca.push(dir.join(path));
        }
        if let Some(Clients::One(path)) = &self.client {
            files.clients.push((dir.join(path), dir.join(path)));
        }
        let Some(Clients::Many(pairs)) = &self.client else {
            return Ok(files);
        };
        for pair in pairs {
            let (certificate, key) = match pair {
                ClientPair::Together(path) => (path, path),
                ClientPair::Apart(paths) => match paths.as_slice() {
                    [one] => (one, one),
                    // An empty key says that the certificate's file holds it.
                    [one, key] if key.as_os_str().is_empty() => (one, one),
                    [certificate, key] => (certificate, key),
                    _ => return Err("`client` wants [certificate, key] pairs".to_owned()),
                },
            };
            files.clients.push((dir.join(certificate), dir.join(key)));
        }
        Ok(files)
    }

    pub(crate) fn dial_timeout(&self) -> std::result::Result<Option<Duration>, String> {
        let Some(text) = &self.dial_timeout else {
            return Ok(None);
        };
        match duration(text) {
            Some(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
            _ => Err(format!(
                "dial_timeout {text:?}: want numbers with units, as 500ms, 10s or 1m30s"
            )),
        }
    }
}

/// A duration as Go writes it: numbers, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = behind;
    }
    Some(sum)
}

/// Reads and parses the file; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<HostsFile>> {
    match read_bounded(path)? {
        Some(content) => parse(path, content).map(Some),
        None => Ok(None),
    }
}

/// Parses the content of the file at `path`.
pub(crate) fn parse(path: &Path, content: Vec<u8>) -> Result<HostsFile> {
    let step = || ("read", path.display());
    let text = String::from_utf8(content).context(step)?;
    let file = toml::from_str(&text).context(step)?;
    let ignored = toml::from_str(&text).map(|table| unknown_keys(&table));
    if let Ok(keys) = ignored
        && !keys.is_empty()
    {
        tracing::warn!(
            path = %path.display(), keys = keys.join(", "),
            "these keys are not known and have no effect: look for a slip of the pen"
        );
    }
    Ok(file)
}

/// The keys of a file that nothing is done with, as a path each.
fn unknown_keys(file: &toml::Table) -> Vec<String> {
    let mut unknown = unknown_of(file, &["server", "host"], "");
    let hosts = file
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("host"));
    let hosts = hosts.filter_map(|(_, hosts)| hosts.as_table()).flatten();
    for (name, host) in hosts {
        let host = host.as_table().into_iter();
        unknown.extend(host.flat_map(|host| unknown_of(host, &[], &format!("host.{name:?}."))));
    }
    unknown
}

fn unknown_of(table: &toml::Table, further: &[&str], prefix: &str) -> Vec<String> {
    let is_known = |key: &str| {
        let mut known = further.iter().chain(ENTRY_KEYS);
        known.any(|known| known.eq_ignore_ascii_case(key))
    };
    let unknown = table.keys().filter(|key| !is_known(key));
    unknown.map(|key| format!("{prefix}{key}")).collect()
}

/// Keeps the order of a table's keys, which for mirrors is the order to ask in.
fn in_order<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<(String, Entry)>, D::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, Entry)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of hosts")
        }
        fn visit_map<A: MapAccess<'de>>(
            self,
            mut map: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            let mut hosts = Vec::new();
            while let Some(pair) = map.next_entry()? {
                hosts.push(pair);
            }
            Ok(hosts)
        }
    }
    deserializer.deserialize_map(InOrder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_effect_are_found_and_no_others() {
        let text = r#"
            SERVER = "https://a.test"
            skip-verify = true
            dial_timeout = "1s"
            [host."https://b.test"]
            capabilities = ["pull"]
            Override_Path = true
            proxy = "http://c.test"
            ca = "/ca.pem"
            client = [["cert", "key"]]
            [host."https://b.test".header]
            anything = "goes"
            [plugins]
        "#;
        let found = unknown_keys(&toml::from_str(text).unwrap());
        let wanted = ["skip-verify", "plugins", r#"host."https://b.test".proxy"#];
        assert_eq!(found, wanted);
    }
}
