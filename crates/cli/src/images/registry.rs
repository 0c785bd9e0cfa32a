//! A registry that serves some images to whom it is told to, by the distribution protocol's reading
//! half; it ends with the value, and so does its key. Its path has a random part, which nodes are told:
//! others on their network, as pods are, cannot read what an owner brings to nodes.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use crisp_model::ImageRef;
use crisp_tasks::Worker;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::blob::{Blob, Content, Image};
use super::identity::Identity;
use super::{Host, Way};
use crate::failure::{Context as _, Result};

/// Bytes of a blob that are sent at a time.
const PIECE: usize = 1 << 16;
/// How long no connection is taken after one that could not be, as where all descriptors are in use.
const PAUSE: Duration = Duration::from_millis(100);

/// Places of hosts that somebody has asked for, who was told of the secret.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    secret: String,
    certificate: String,
    asked: Asked,
    _server: Worker<()>,
}

impl Registry {
    /// Serves images on a free port of an address.
    pub async fn serve(ip: IpAddr, images: &[Image]) -> Result<Self> {
        let step = || format!("registry on {ip}: listen");
        let listener = TcpListener::bind((ip, 0)).await.context(step)?;
        let address = listener.local_addr().context(step)?;
        let secret = secret().context(step)?;
        let shelf = Arc::new(Shelf::of(images, &secret)?);
        let identity = Identity::of(ip)?;
        let certificate = identity.certificate.clone();
        let asked = Asked::default();
        let noted = Arc::clone(&asked);
        let server = Worker::start(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (shelf, noted) = (Arc::clone(&shelf), Arc::clone(&noted));
                let identity = identity.clone();
                // They end with their clients, and with this program at the latest.
                crisp_tasks::detached(async move {
                    let Some(stream) = identity.meet(stream).await else {
                        return;
                    };
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let path = request.uri().path();
                        if let Some((host, _)) = shelf.host_of(path) {
                            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                            noted.insert(host.to_owned());
                        }
                        let response = shelf.answer(request.method(), path);
                        std::future::ready(Ok::<_, Infallible>(response))
                    });
                    let connection = http1::Builder::new();
                    // A client that leaves in the middle is told of by itself.
                    drop(
                        connection
                            .serve_connection(TokioIo::new(stream), answer)
                            .await,
                    );
                });
            }
        });
        Ok(Self {
            address,
            secret,
            certificate,
            asked,
            _server: server,
        })
    }

    /// The way here for the images of a host.
    pub fn way(&self, host: &str, whose: Host) -> Way {
        // Clients add the `/v2` at which its API begins.
        let url = format!("https://{}/{}/{}", self.address, self.secret, place(host));
        Way::to(&url, &self.certificate, whose)
    }

    /// Whether anybody has asked for anything of a host.
    pub fn is_asked_for(&self, host: &str) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.contains(&place(host))
    }
}

/// The part of a path that stands for a host: two hosts may have images of one name.
fn place(host: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    host.replace(|letter| !is_plain(letter), "_")
}

/// A word that nobody guesses.
fn secret() -> std::io::Result<String> {
    let bytes = crisp_sys::rand::entropy32()?;
    let digits = bytes.iter().take(16).map(|byte| format!("{byte:02x}"));
    Ok(digits.collect())
}

/// Blobs by digest, and digests by host, repository and tag.
#[derive(Debug, Default)]
struct Shelf {
    /// All paths begin with this.
    root: String,
    blobs: HashMap<String, Blob>,
    tags: HashMap<[String; 3], String>,
}

impl Shelf {
    fn of(images: &[Image], secret: &str) -> Result<Self> {
        let mut shelf = Self {
            root: format!("/{secret}/"),
            ..Self::default()
        };
        for image in images {
            let name = ImageRef::parse(&image.name)
                .context(|| format!("image {}: read its name", image.name))?;
            // Beside a digest a tag is only a remark, and may stand for another image.
            if let (Some(tag), None) = (name.tag(), name.digest()) {
                let key = [
                    place(name.host()),
                    name.repository().to_owned(),
                    tag.to_owned(),
                ];
                shelf.tags.insert(key, image.digest.clone());
            }
            let blobs = image.blobs.iter().cloned();
            shelf
                .blobs
                .extend(blobs.map(|blob| (blob.digest.clone(), blob)));
        }
        Ok(shelf)
    }

    /// The place of the host that a path is for, and the rest of it.
    fn host_of<'a>(&self, path: &'a str) -> Option<(&'a str, &'a str)> {
        path.strip_prefix(&self.root)?.split_once("/v2/")
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Piecewise> {
        let mut response = match self.host_of(path) {
            Some((_, "")) => Response::new(Piecewise::default()),
            Some((host, rest)) => self.find(host, rest).map_or_else(missing, found),
            None => missing(),
        };
        if method == Method::HEAD {
            *response.body_mut() = Piecewise::default();
        } else if method != Method::GET {
            response = empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        response
    }

    fn find(&self, host: &str, rest: &str) -> Option<&Blob> {
        if let Some((_, digest)) = rest.rsplit_once("/blobs/") {
            return self.blobs.get(digest);
        }
        let (repository, reference) = rest.rsplit_once("/manifests/")?;
        let key = [host, repository, reference].map(str::to_owned);
        let digest = self.tags.get(&key).map_or(reference, String::as_str);
        self.blobs.get(digest)
    }
}

fn empty(status: StatusCode) -> Response<Piecewise> {
    let mut response = Response::new(Piecewise::default());
    *response.status_mut() = status;
    response
}

fn missing() -> Response<Piecewise> {
    empty(StatusCode::NOT_FOUND)
}

fn found(blob: &Blob) -> Response<Piecewise> {
    let reader = match blob.content.open() {
        Ok(reader) => reader,
        Err(error) => return failed(&blob.digest, &error),
    };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, &blob.media_type)
        .header(header::CONTENT_LENGTH, blob.content.size())
        .header("Docker-Content-Digest", &blob.digest)
        .body(Piecewise {
            reader: Some(reader),
        });
    response.unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

/// A blob that cannot be read: crispd tells the words of a registry.
fn failed(digest: &str, error: &std::io::Error) -> Response<Piecewise> {
    let message = format!("{digest} cannot be read: {error}");
    let document = json!({"errors": [{"code": "UNKNOWN", "message": message}]});
    let mut response = empty(StatusCode::INTERNAL_SERVER_ERROR);
    let content = Content::of(document.to_string().into_bytes());
    response.body_mut().reader = content.open().ok();
    response
}

/// A body that is read as it is sent.
#[derive(Default)]
struct Piecewise {
    reader: Option<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for Piecewise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piecewise").finish_non_exhaustive()
    }
}

impl Body for Piecewise {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        // Other connections have their turn between two pieces.
        ready!(tokio::task::coop::poll_proceed(context)).made_progress();
        let Some(reader) = &mut self.get_mut().reader else {
            return Poll::Ready(None);
        };
        let mut piece = vec![0; PIECE];
        Poll::Ready(match reader.read(&mut piece) {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some(Ok(Frame::data(piece.into())))
            }
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;

    fn image(name: &str, text: &str) -> Image {
        let content = Content::of(text.as_bytes().to_vec());
        let digest = content.digest().unwrap();
        let blob = Blob {
            digest: digest.clone(),
            media_type: "application/x".to_owned(),
            content,
        };
        Image {
            name: name.to_owned(),
            digest,
            blobs: vec![blob],
        }
    }

    fn shelf() -> Shelf {
        Shelf::of(&[image("docker.io/library/a:1", "{}")], "s").unwrap()
    }

    #[test]
    fn images_are_found_by_tag_and_digest_and_nothing_else_is() {
        let shelf = shelf();
        let digest = shelf.blobs.keys().next().unwrap().clone();
        let status = |path: &str| shelf.answer(&Method::GET, path).status().as_u16();
        let below = |path: &str| status(&format!("/s/docker.io/v2/{path}"));
        assert_eq!(below(""), 200);
        assert_eq!(status("/docker.io/v2/library/a/manifests/1"), 404);
        assert_eq!(below("library/a/manifests/1"), 200);
        assert_eq!(below(&format!("library/a/manifests/{digest}")), 200);
        assert_eq!(below(&format!("library/a/blobs/{digest}")), 200);
        assert_eq!(below("library/a/manifests/2"), 404);
        assert_eq!(below("library/b/manifests/1"), 404);
        assert_eq!(status("/s/a.example/v2/library/a/manifests/1"), 404);
        assert_eq!(below("library/a/blobs/sha256:0"), 404);
        assert_eq!(status("/"), 404);
    }

    #[test]
    fn names_that_differ_in_their_host_or_have_a_digest_are_no_others_tag() {
        let digest = "sha256:".to_owned() + &"0".repeat(64);
        let images = [
            image("a.example:5000/x:1", "one"),
            image("b.example/x:1", "two"),
            image(&format!("b.example/x:1@{digest}"), "three"),
            image(&format!("b.example/x@{digest}"), "four"),
        ];
        let shelf = Shelf::of(&images, "s").unwrap();
        let has = |host: &str| {
            let found = shelf.find(&place(host), "x/manifests/1").unwrap();
            found.digest.clone()
        };
        assert_eq!(has("a.example:5000"), images[0].digest);
        assert_eq!(has("b.example"), images[1].digest);
        assert!(shelf.find("b.example", "x/manifests/latest").is_none());
    }

    #[test]
    fn no_two_secrets_are_one() {
        let [one, other] = [(); 2].map(|()| secret().unwrap());
        assert!(one.len() == 32 && one != other);
    }

    #[test]
    fn nothing_can_be_written() {
        let answer = shelf().answer(&Method::PUT, "/s/docker.io/v2/library/a/manifests/1");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_blob_that_cannot_be_read_is_told_with_the_cause() {
        let mut image = image("docker.io/library/a:1", "{}");
        image.blobs[0].content = Content::Part {
            path: "/nowhere".into(),
            offset: 0,
            size: 2,
        };
        let shelf = Shelf::of(&[image], "s").unwrap();
        let answer = shelf.answer(&Method::GET, "/s/docker.io/v2/library/a/manifests/1");
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let mut words = String::new();
        let mut reader = answer.into_body().reader.unwrap();
        reader.read_to_string(&mut words).unwrap();
        assert!(words.contains("cannot be read: No such file"), "{words}");
    }

    /// Else a program that listens on the port of a killed command would be the registry of a crispd.
    #[tokio::test]
    async fn clients_that_were_led_here_know_it_from_another_one() {
        let images = [image("docker.io/library/a:1", "{}")];
        let serve = || Registry::serve(std::net::Ipv4Addr::LOCALHOST.into(), &images);
        let (registry, another) = (serve().await.unwrap(), serve().await.unwrap());
        let path = format!("/{}/docker.io/v2/library/a/manifests/1", registry.secret);
        let answer = client::get(registry.address, &path, &registry.certificate);
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let refused = client::get(another.address, &path, &registry.certificate);
        let refused = refused.await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{refused}");
    }
}
