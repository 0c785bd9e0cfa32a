//! Pushes images to a registry on plain HTTP: the few calls that this takes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::catalogue::Entry;
use super::{Blob, Packed};

/// A registry at `HOST:PORT`.
#[derive(Debug, Clone)]
pub struct Registry {
    address: String,
}

/// An answer of a server.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub headers: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends one request and reads the answer to the end of the connection.
///
/// # Errors
/// When the server cannot be reached or does not speak HTTP.
pub fn request(address: &str, head: &str, body: &[u8]) -> Result<Answer> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let (first, more) = head.split_once('\n').unwrap_or((head, ""));
    let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
    write!(
        stream,
        "{first} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).with_context(|| format!("{address}: {first}"))
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("no HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let (status, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let status = status.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer {
        status,
        headers: headers.to_owned(),
        body: answer[end + 4..].to_vec(),
    })
}

impl Registry {
    /// The registry at an address, as `127.0.0.1:5000`.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
        }
    }

    /// Pushes an entry under `NAME:TAG`.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn push(&self, name: &str, tag: &str, entry: &Entry) -> Result<()> {
        for image in &entry.images {
            self.push_image(name, image)?;
        }
        match &entry.index {
            Some(index) => self.put_manifest(name, tag, index),
            None => self.put_manifest(name, tag, &entry.images[0].manifest),
        }
    }

    fn push_image(&self, name: &str, image: &Packed) -> Result<()> {
        for blob in &image.blobs {
            self.put_blob(name, blob)?;
        }
        self.put_manifest(name, &image.manifest.digest, &image.manifest)
    }

    fn put_blob(&self, name: &str, blob: &Blob) -> Result<()> {
        let digest = &blob.digest;
        let there = request(
            &self.address,
            &format!("HEAD /v2/{name}/blobs/{digest}"),
            b"",
        )?;
        if there.status == 200 {
            return Ok(());
        }
        let begun = request(
            &self.address,
            &format!("POST /v2/{name}/blobs/uploads/"),
            b"",
        )?;
        ensure!(begun.status == 202, "upload to {name}: {begun:?}");
        let location = begun
            .header("location")
            .context("no location of the upload")?;
        let Some(at) = location.find("/v2/") else {
            bail!("strange location {location}")
        };
        let path = &location[at..];
        let joint = if path.contains('?') { '&' } else { '?' };
        let head =
            format!("PUT {path}{joint}digest={digest}\nContent-Type: application/octet-stream");
        let done = request(&self.address, &head, &blob.bytes)?;
        ensure!(done.status == 201, "blob {digest} to {name}: {done:?}");
        Ok(())
    }

    fn put_manifest(&self, name: &str, reference: &str, manifest: &Blob) -> Result<()> {
        let kind = &manifest.media_type;
        let head = format!("PUT /v2/{name}/manifests/{reference}\nContent-Type: {kind}");
        let done = request(&self.address, &head, &manifest.bytes)?;
        ensure!(
            done.status == 201,
            "manifest {reference} to {name}: {done:?}"
        );
        Ok(())
    }
}
