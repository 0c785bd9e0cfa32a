//! Where to ask for an image: the endpoints of a registry host, mirrors first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use url::Url;

use crate::error::{Context, Result};
use crate::hosts_file::{self, Entry, HostsFile};
use crate::tls_files::TlsFiles;

/// A use that an endpoint allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    /// Content by digest.
    Pull,
    /// The digest behind a tag.
    Resolve,
}

/// One place to ask.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// API root, `https://host[:port]/v2`, without a slash at its end.
    pub(crate) base: Url,
    /// Whether plain HTTP is tried when TLS cannot be set up: only loopback without a scheme.
    pub(crate) http_fallback: bool,
    /// The uses that it allows.
    pub(crate) capabilities: Vec<Capability>,
    /// Trust and identity.
    pub(crate) tls: TlsFiles,
    /// Headers of every request to this endpoint.
    pub(crate) headers: HeaderMap,
    /// Registry host that this endpoint stands in for; `None` when it is that host.
    pub(crate) proxied: Option<String>,
    /// Its own bound on connecting.
    pub(crate) dial_timeout: Option<Duration>,
}

impl Endpoint {
    /// `host[:port]`, as errors and credentials name it.
    pub(crate) fn host(&self) -> String {
        authority(&self.base)
    }

    /// A host that another endpoint redirected to: of it nothing is configured.
    pub(crate) fn guest(base: Url) -> Self {
        Self {
            base,
            http_fallback: false,
            capabilities: Vec::new(),
            tls: TlsFiles::default(),
            headers: HeaderMap::new(),
            proxied: None,
            dial_timeout: None,
        }
    }

    /// The URL of something below the API root.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let joined = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        if let Some(host) = &self.proxied {
            url.query_pairs_mut().append_pair("ns", host);
        }
        url
    }
}

/// `host[:port]` of a URL.
pub(crate) fn authority(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        _ => String::new(),
    }
}

/// The endpoints for `host` with `capability`, in the order in which to ask them.
///
/// Reads files: call it where blocking is allowed.
pub(crate) fn endpoints(dir: &Path, host: &str, capability: Capability) -> Result<Vec<Endpoint>> {
    let all = match host_dir(dir, host) {
        Some(own) => {
            if capability == Capability::Resolve && hides_default(dir, &own) {
                tracing::warn!(
                    dir = %own.display(), host,
                    "this directory has no hosts.toml, and hides that of `_default`: a copy of \
                     the latter in it would be used"
                );
            }
            load(&own, host)?
        }
        None => vec![upstream(host, &Entry::default(), Path::new(""))?],
    };
    let wanted: Vec<Endpoint> = all
        .into_iter()
        .filter(|endpoint| endpoint.capabilities.contains(&capability))
        .collect();
    if wanted.is_empty() {
        let why = format!("no host is allowed to {capability:?}: add it to `capabilities`");
        return Err(why).context(|| ("use", dir.join(host).display().to_string()));
    }
    Ok(wanted)
}

/// The first directory that configures `host`; `host_port_` is for file systems without colons.
fn host_dir(root: &Path, host: &str) -> Option<PathBuf> {
    let mut names = vec![host.to_owned(), "_default".to_owned()];
    if let Some((name, port)) = host.rsplit_once(':') {
        names.insert(0, format!("{name}_{port}_"));
    }
    names
        .into_iter()
        .map(|name| root.join(name))
        .find(|path| path.is_dir())
}

/// Whether a host's own directory says nothing about mirrors, and keeps from use what does.
fn hides_default(root: &Path, own: &Path) -> bool {
    let default = root.join("_default");
    own != default && !own.join("hosts.toml").exists() && default.join("hosts.toml").exists()
}

fn load(dir: &Path, host: &str) -> Result<Vec<Endpoint>> {
    let Some(file) = hosts_file::read(&dir.join("hosts.toml"))? else {
        let mut endpoint = upstream(host, &Entry::default(), dir)?;
        endpoint.tls = TlsFiles::in_docker_layout(dir)?;
        return Ok(vec![endpoint]);
    };
    of_hosts(&file, dir, host)
}

/// The endpoints that the content of a `hosts.toml` names.
#[cfg(any(test, fuzzing))]
pub(crate) fn of_file(content: &[u8], dir: &Path, host: &str) -> Result<Vec<Endpoint>> {
    let file = hosts_file::parse(&dir.join("hosts.toml"), content.to_vec())?;
    of_hosts(&file, dir, host)
}

fn of_hosts(file: &HostsFile, dir: &Path, host: &str) -> Result<Vec<Endpoint>> {
    let mut endpoints = Vec::new();
    for (address, entry) in &file.hosts {
        endpoints.push(endpoint(address, entry, dir, host)?);
    }
    endpoints.push(match &file.server {
        Some(server) => endpoint(server, &file.root, dir, host)?,
        None => upstream(host, &file.root, dir)?,
    });
    Ok(endpoints)
}

/// The registry host itself, when no file says where it is.
fn upstream(host: &str, entry: &Entry, dir: &Path) -> Result<Endpoint> {
    let address = if host == "docker.io" {
        "registry-1.docker.io"
    } else {
        host
    };
    let mut endpoint = endpoint(address, entry, dir, host)?;
    endpoint.proxied = None;
    Ok(endpoint)
}

fn endpoint(address: &str, entry: &Entry, dir: &Path, host: &str) -> Result<Endpoint> {
    let path = dir.join("hosts.toml");
    let step = || ("use", path.display());
    let host_step = || ("use", format!("host {address:?} of {}", path.display()));
    let explicit = address.contains("://");
    let text = if explicit {
        address.to_owned()
    } else {
        format!("https://{address}")
    };
    let mut base = Url::parse(&text).context(host_step)?;
    if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
        return Err("want http(s)://HOST[:PORT]").context(host_step);
    }
    let api = base.path().trim_end_matches('/').to_owned();
    if entry.override_path.unwrap_or(false) || api.ends_with("/v2") {
        base.set_path(&api);
    } else {
        base.set_path(&format!("{api}/v2"));
    }
    base.set_query(None);
    let loopback = !explicit && is_loopback(&base) && base.port().is_some_and(|p| p != 443);
    let mut tls = entry.tls_files(dir).context(step)?;
    tls.skip_verify |= loopback && entry.skip_verify.is_none();
    let own = authority(&base);
    let is_upstream = own == host || (host == "docker.io" && own == "registry-1.docker.io");
    Ok(Endpoint {
        http_fallback: loopback,
        capabilities: capabilities(entry).context(step)?,
        tls,
        headers: headers(entry).context(step)?,
        proxied: (!is_upstream).then(|| host.to_owned()),
        dial_timeout: entry.dial_timeout().context(step)?,
        base,
    })
}

fn capabilities(entry: &Entry) -> std::result::Result<Vec<Capability>, String> {
    if entry.capabilities.is_empty() {
        return Ok(vec![Capability::Pull, Capability::Resolve]);
    }
    let mut found = Vec::new();
    for name in &entry.capabilities {
        match name.to_ascii_lowercase().as_str() {
            "pull" => found.push(Capability::Pull),
            "resolve" => found.push(Capability::Resolve),
            "push" | "referrers" => {}
            other => return Err(format!("unknown capability {other:?}: pull, resolve, push")),
        }
    }
    Ok(found)
}

fn headers(entry: &Entry) -> std::result::Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, values) in &entry.header {
        let key = http::HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is not a header name"))?;
        for value in values.iter() {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| format!("the value of header {name:?} has control characters"))?;
            value.set_sensitive(true);
            map.append(key.clone(), value);
        }
    }
    Ok(map)
}

/// Whether the host is this machine by address or by the one name that always means it.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
