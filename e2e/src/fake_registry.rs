//! A registry that says what a test wants it to say, and remembers what it was asked.
//!
//! It serves whole documents by path, over plain HTTP, behind a guard if there is one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::image::Blob;
use crate::image::catalogue::Entry;
use crate::netns::Net;

/// The user that guards know.
pub const USER: &str = "user";
/// The user's password.
pub const PASSWORD: &str = "pass";
/// `USER:PASSWORD` in base64, as `Authorization: Basic` and docker's `config.json` carry it.
pub const CREDENTIALS: &str = "dXNlcjpwYXNz";
const TOKEN: &str = "a-token-of-the-test";

/// The credentials that a request has to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Open,
    /// User and password.
    Basic,
    /// A token, which `/token` gives for user and password.
    Bearer,
}

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status line without the version, as `200 OK`.
    pub status: String,
    /// Header lines.
    pub headers: Vec<String>,
    /// Body.
    pub body: Vec<u8>,
    /// How long it waits before its body.
    pub delay: Duration,
}

impl Reply {
    /// A document.
    #[must_use]
    pub fn document(media_type: &str, body: Vec<u8>) -> Self {
        Self {
            status: "200 OK".to_owned(),
            headers: vec![format!("Content-Type: {media_type}")],
            body,
            delay: Duration::ZERO,
        }
    }

    /// A status with one header line.
    #[must_use]
    pub fn bare(status: &str, header: &str) -> Self {
        Self {
            status: status.to_owned(),
            headers: vec![header.to_owned()],
            body: Vec::new(),
            delay: Duration::ZERO,
        }
    }
}

/// All that a registry serves.
#[derive(Debug, Clone)]
pub struct Site {
    guard: Guard,
    replies: BTreeMap<String, Reply>,
}

impl Site {
    /// An entry under `NAME:1`.
    #[must_use]
    pub fn of(name: &str, entry: &Entry) -> Self {
        let mut site = Self {
            guard: Guard::Open,
            replies: BTreeMap::new(),
        };
        for image in &entry.images {
            site.manifest(name, &image.manifest.digest, &image.manifest);
            for blob in &image.blobs {
                let reply = Reply::document("application/octet-stream", blob.bytes.clone());
                site.reply(&format!("/v2/{name}/blobs/{}", blob.digest), reply);
            }
        }
        let top = entry.index.as_ref().unwrap_or(&entry.images[0].manifest);
        site.manifest(name, &top.digest, top);
        site.manifest(name, "1", top);
        site
    }

    /// Puts the whole site behind a guard.
    #[must_use]
    pub fn behind(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Serves a manifest under a tag or digest.
    pub fn manifest(&mut self, name: &str, reference: &str, manifest: &Blob) {
        let reply = Reply::document(&manifest.media_type, manifest.bytes.clone());
        self.reply(&format!("/v2/{name}/manifests/{reference}"), reply);
    }

    /// Serves an answer at a path.
    pub fn reply(&mut self, path: &str, reply: Reply) {
        self.replies.insert(path.to_owned(), reply);
    }

    /// Changes every answer whose path contains `part`.
    pub fn change(&mut self, part: &str, change: impl Fn(&mut Reply)) {
        let replies = self.replies.iter_mut();
        replies
            .filter(|(path, _)| path.contains(part))
            .for_each(|(_, reply)| change(reply));
    }
}

/// A request that the registry was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// A running one. It answers until the process ends.
#[derive(Debug)]
pub struct FakeRegistry {
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeRegistry {
    /// Starts it on an address of `net`.
    #[must_use]
    pub fn start(net: &Net, address: &str, site: Site) -> Self {
        let listener = net.run(|| TcpListener::bind(address).unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let registry = Self {
            asked: Arc::clone(&asked),
        };
        let site = Arc::new(site);
        let address = address.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (site, asked, address) =
                    (Arc::clone(&site), Arc::clone(&asked), address.clone());
                std::thread::spawn(move || serve(stream, &site, &asked, &address));
            }
        });
        registry
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request; the client is free to leave at any moment.
fn serve(mut stream: TcpStream, site: &Site, asked: &Mutex<Vec<Asked>>, address: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
    let Some(request) = read(&mut stream) else {
        return;
    };
    asked.lock().unwrap().push(request.clone());
    let reply = answer(site, &request, address);
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        reply.status,
        reply.body.len(),
        reply
            .headers
            .iter()
            .map(|line| format!("{line}\r\n"))
            .collect::<String>()
    );
    stream.write_all(head.as_bytes()).ok();
    std::thread::sleep(reply.delay);
    if request.method != "HEAD" {
        stream.write_all(&reply.body).ok();
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        seen.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&seen).into_owned();
    let mut words = text.lines().next()?.split(' ');
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization")
            .then(|| value.trim().to_owned())
    };
    Some(Asked {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        authorization: text.lines().find_map(header),
    })
}

fn answer(site: &Site, request: &Asked, address: &str) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    let knows_password = request.authorization == Some(format!("Basic {CREDENTIALS}"));
    if path == "/token" {
        return match knows_password {
            true => Reply::document(
                "application/json",
                format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#).into_bytes(),
            ),
            false => Reply::bare("401 Unauthorized", "X-Token: none"),
        };
    }
    let may = match site.guard {
        Guard::Open => true,
        Guard::Basic => knows_password,
        Guard::Bearer => request.authorization == Some(format!("Bearer {TOKEN}")),
    };
    let challenge = match site.guard {
        Guard::Bearer => format!(r#"Bearer realm="http://{address}/token",service="test""#),
        _ => r#"Basic realm="test""#.to_owned(),
    };
    if !may {
        return Reply::bare(
            "401 Unauthorized",
            &format!("WWW-Authenticate: {challenge}"),
        );
    }
    match site.replies.get(path) {
        Some(reply) => reply.clone(),
        None if path == "/v2/" => Reply::document("application/json", b"{}".to_vec()),
        None => Reply::bare("404 Not Found", "X-Path: unknown"),
    }
}
