//! The page over HTTP/1.1, for clients that nothing is known of: each has one request on a
//! connection and little time, and of many at once the newest is served.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crisp_tasks::{Worker, Workers};
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::Span;

use super::figure::Figure;
use super::operations::Operations;
use super::page::{Format, Page};

/// The only path.
const PATH: &str = "/metrics";
/// Connections at a time. When there are more, the oldest is closed: clients that say nothing, or
/// take nothing, keep nobody out.
const MOST: usize = 32;
/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(3);
/// How long a connection lasts in all.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Largest head of a request.
const MAX_HEAD: usize = 16 << 10;
/// How long to wait when the system has no descriptor for a connection.
const RETRY: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// An address that is taken and not served yet: clients wait until the figures are there.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes an address.
///
/// # Errors
/// When it cannot be had.
pub async fn bind(listen: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// Serves the page from now on: the record of the calls, and what `figures` tells whenever a
    /// client comes, on a thread where it may block.
    pub fn serve(
        self,
        operations: &Operations,
        figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static,
    ) -> Server {
        let desk = Arc::new(Desk {
            page: Arc::new(Page::new(operations, figures)),
            turn: Arc::default(),
        });
        Server {
            address: self.address,
            _accepting: Worker::start(accept(self.listener, desk)),
        }
    }
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Server {
    address: SocketAddr,
    _accepting: Worker<()>,
}

impl Server {
    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Desk {
    page: Arc<Page>,
    /// Held to write the page: however many ask, one thread is busy with it.
    turn: Arc<Mutex<()>>,
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut clients = Workers::default();
    // By number, so that the first is the oldest.
    let mut connected = BTreeSet::new();
    let mut next = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if connected.len() >= MOST && let Some(oldest) = connected.pop_first() {
                        clients.abort(|number| *number == oldest);
                    }
                    connected.insert(next);
                    clients.start(next, Span::none(), meet(socket, Arc::clone(&desk)));
                    next += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics server cannot accept a connection");
                    sleep(RETRY).await;
                }
            },
            (number, ended) = clients.next() => {
                connected.remove(&number);
                if let Err(error @ crisp_tasks::Failed::Panicked(_)) = ended {
                    tracing::error!(%error, "the metrics page cannot be written");
                }
            }
        }
    }
}

/// Serves one request. A client that breaks off, or whose time is over, is nothing to tell of.
async fn meet(socket: TcpStream, desk: Arc<Desk>) {
    let service = service_fn(move |request: Request<_>| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(&request, &desk).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    drop(timeout(EXCHANGE, serving).await);
}

async fn answer<B>(request: &Request<B>, desk: &Desk) -> Response<String> {
    if request.uri().path() != PATH {
        let text = format!("there is nothing here but {PATH}\n");
        return plain(StatusCode::NOT_FOUND, text);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "use GET or HEAD\n".to_owned(),
        );
        let allowed = http::HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    let format = Format::of(&accepted(request.headers()));
    let turn = Arc::clone(&desk.turn).lock_owned().await;
    let page = Arc::clone(&desk.page);
    let write = move || {
        // The thread goes on when its client leaves, and so holds the turn itself.
        let _turn = turn;
        page.write(format)
    };
    match crisp_tasks::blocking(write).await {
        Ok(Ok(page)) => written(StatusCode::OK, format.content_type(), page),
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        Err(error) => {
            tracing::error!(%error, "the metrics page cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

/// The header `Accept`, which may come in several lines.
fn accepted(headers: &HeaderMap) -> String {
    let lines = headers.get_all(ACCEPT).iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

fn plain(status: StatusCode, text: String) -> Response<String> {
    written(status, PLAIN, text)
}

fn written(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Instant;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::metrics::Kind;

    async fn server() -> Server {
        let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        bound.serve(&Operations::recorded(), || {
            vec![Figure::new(Kind::Gauge, "crisp_pods", "Pods").plain(7_u64)]
        })
    }

    async fn asked(server: &Server, head: &str) -> String {
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        let request = format!("{head}\r\nHost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn one_path_is_read_and_nothing_else() {
        let server = server().await;
        let page = asked(&server, "GET /metrics HTTP/1.1").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(
            page.contains("\r\ncontent-type: text/plain; version=0.0.4;"),
            "{page}"
        );
        assert!(page.contains("\ncrisp_pods 7\n"), "{page}");
        let query = asked(&server, "GET /metrics?x=y HTTP/1.1").await;
        assert!(query.starts_with("HTTP/1.1 200 "), "{query}");
        let split = "GET /metrics HTTP/1.1\r\nAccept: text/plain;q=0.1\r\n\
            Accept: application/openmetrics-text";
        let open = asked(&server, split).await;
        assert!(
            open.contains("\r\ncontent-type: application/openmetrics-text;"),
            "{open}"
        );
        assert!(open.ends_with("# EOF\n"), "{open}");
        let head = asked(&server, "HEAD /metrics HTTP/1.1").await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        let post = asked(&server, "POST /metrics HTTP/1.1").await;
        assert!(
            post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nallow: GET, HEAD\r\n"),
            "{post}"
        );
        for path in ["/", "/metrics/", "/debug/pprof"] {
            let none = asked(&server, &format!("GET {path} HTTP/1.1")).await;
            assert!(none.starts_with("HTTP/1.1 404 "), "{path}: {none}");
        }
    }

    #[tokio::test]
    async fn clients_that_say_nothing_keep_nobody_out() {
        let server = server().await;
        let mut silent = Vec::new();
        for _ in 0..4 * MOST {
            silent.push(TcpStream::connect(server.address()).await.unwrap());
        }
        let page = asked(&server, "GET /metrics HTTP/1.1").await;
        assert!(page.contains("\ncrisp_pods 7\n"), "{page}");
        // The oldest has given way; all are closed once their time is over.
        let begun = Instant::now();
        for mut client in silent {
            let mut rest = Vec::new();
            let closed = timeout(HEAD * 2, client.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "a client that says nothing is kept");
        }
        assert!(begun.elapsed() < HEAD * 2);
    }

    #[tokio::test]
    async fn clients_that_leave_keep_one_thread_busy_and_no_more() {
        let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (busy, most, begun) = (AtomicUsize::new(0), AtomicUsize::new(0), Arc::default());
        let most = Arc::new(most);
        let (told, pages) = (Arc::clone(&most), Arc::<AtomicUsize>::clone(&begun));
        let server = bound.serve(&Operations::default(), move || {
            pages.fetch_add(1, SeqCst);
            told.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            busy.fetch_sub(1, SeqCst);
            Vec::new()
        });
        for number in 1..=4 {
            let mut client = TcpStream::connect(server.address()).await.unwrap();
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
            client.write_all(request).await.unwrap();
            // It leaves while its page is written.
            while begun.load(SeqCst) < number {
                sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(most.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_source_that_panics_costs_its_answer_alone() {
        let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let server = bound.serve(&Operations::default(), || panic!("oh"));
        for _ in 0..2 {
            let failed = asked(&server, "GET /metrics HTTP/1.1").await;
            assert!(failed.starts_with("HTTP/1.1 500 "), "{failed}");
        }
    }
}
