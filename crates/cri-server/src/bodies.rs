//! Memory of requests: how many bytes all large ones may hold together while they are read and
//! answered.
//!
//! gRPC bounds one message, and HTTP/2 the streams of one connection; many callers with large
//! messages would still fill the daemon's memory. A request counts with what it has beyond
//! [`UNCOUNTED`], from its first byte until it is answered. Calls of a kubelet are smaller, so they
//! are read whatever others send.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// The part of each request that does not count: that of 1,024 calls at once is 64 MiB.
const UNCOUNTED: usize = 64 << 10;
/// The most that requests hold together beyond it: four of the largest that are read.
const ALL: usize = 64 << 20;

/// The room for all large requests of a door. Clones share it.
#[derive(Debug, Clone)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    left: AtomicUsize,
    emptied: Notify,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Shared {
            left: AtomicUsize::new(ALL),
            emptied: Notify::new(),
        }))
    }
}

impl Room {
    /// Waits until large requests were there and all are answered.
    pub async fn emptied(&self) {
        self.0.emptied.notified().await;
    }
}

/// The part of the room that one request holds, given back once it is answered.
#[derive(Debug)]
struct Share {
    room: Room,
    taken: AtomicUsize,
}

impl Share {
    fn take(&self, wanted: usize) -> bool {
        let less = |left: usize| left.checked_sub(wanted);
        let left = &self.room.0.left;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_ok() {
            self.taken.fetch_add(wanted, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = self.taken.load(Ordering::Relaxed);
        let left = self.room.0.left.fetch_add(taken, Ordering::Relaxed);
        if taken > 0 && left + taken == ALL {
            self.room.0.emptied.notify_one();
        }
    }
}

/// Services whose requests share a room.
#[derive(Debug, Clone)]
pub struct Bounded<S> {
    services: S,
    room: Room,
}

impl<S> Bounded<S> {
    /// Wraps these services.
    pub fn new(services: S, room: Room) -> Self {
        Self { services, room }
    }
}

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let share = Arc::new(Share {
            room: self.room.clone(),
            taken: AtomicUsize::new(0),
        });
        let path = request.uri().path();
        let rpc = path.rsplit('/').next().unwrap_or(path).to_owned();
        let counted = |body| Counted {
            body,
            rpc,
            read: 0,
            share: Arc::clone(&share),
        };
        let work = self.services.call(request.map(counted).map(Body::new));
        // The message lives as long as the call, which is longer than the body that it came by.
        Box::pin(async move {
            let answer = work.await;
            drop(share);
            answer
        })
    }
}

/// A request's body, counted as it is read.
struct Counted {
    body: Body,
    rpc: String,
    read: usize,
    share: Arc<Share>,
}

impl Counted {
    fn count(&mut self, length: usize) -> Result<(), Status> {
        let before = self.read.saturating_sub(UNCOUNTED);
        self.read += length;
        let more = self.read.saturating_sub(UNCOUNTED) - before;
        if more == 0 || self.share.take(more) {
            return Ok(());
        }
        let text = format!(
            "{}: it is larger than {} KiB, and such requests hold {} MiB at this moment, \
             which is the most: try again when others are answered",
            self.rpc,
            UNCOUNTED >> 10,
            ALL >> 20
        );
        tracing::warn!(error = text, "a large request is not read");
        Err(Status::resource_exhausted(text))
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(refusal) = self.count(data.len())
        {
            self.body = Body::empty();
            return Poll::Ready(Some(Err(refusal)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http_body::Body as _;
    use tokio::sync::oneshot;
    use tonic::Code;
    use tower::service_fn;

    use super::*;

    /// A body of one frame.
    struct Whole(Option<Bytes>);

    impl http_body::Body for Whole {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(Frame::data).map(Ok))
        }
    }

    /// A call under way: its message is read, and it waits to be told to answer.
    struct Asked {
        read: Result<usize, Status>,
        answer: oneshot::Sender<()>,
        done: tokio::task::JoinHandle<()>,
    }

    /// Sends a request of so many bytes, and returns when it is read or refused.
    async fn ask(room: &Room, bytes: usize) -> Asked {
        let (tell, told) = oneshot::channel();
        let (answer, go) = oneshot::channel::<()>();
        let mut ends = Some((tell, go));
        let service = service_fn(move |request: Request<Body>| {
            let (tell, go) = ends.take().unwrap();
            async move {
                let mut body = request.into_body();
                let mut read = Ok(0);
                while let Some(frame) = poll_fn(|c| Pin::new(&mut body).poll_frame(c)).await {
                    read = frame.map(|frame| frame.into_data().unwrap().len());
                }
                drop(tell.send(read));
                drop(go.await);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let mut bounded = Bounded::new(service, room.clone());
        let body = Body::new(Whole(Some(Bytes::from(vec![0; bytes]))));
        let mut request = Request::new(body);
        *request.uri_mut() = http::Uri::from_static("/runtime.v1.RuntimeService/CreateContainer");
        let call = bounded.call(request);
        #[allow(clippy::disallowed_methods, reason = "a test's own worker")]
        let done = tokio::spawn(async move {
            call.await.unwrap();
        });
        Asked {
            read: told.await.unwrap(),
            answer,
            done,
        }
    }

    async fn end(asked: Asked) {
        asked.answer.send(()).unwrap();
        asked.done.await.unwrap();
    }

    #[tokio::test]
    async fn large_requests_share_a_room_and_small_ones_need_none() {
        let room = Room::default();
        let largest = 16 << 20;
        let mut large = Vec::new();
        for _ in 0..4 {
            let asked = ask(&room, largest).await;
            assert_eq!(asked.read.as_ref().unwrap(), &largest);
            large.push(asked);
        }
        let refused = ask(&room, largest).await;
        let status = refused.read.as_ref().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let text = status.message();
        assert!(text.starts_with("CreateContainer: "), "{text}");
        assert!(text.contains("64 MiB"), "{text}");
        // As many calls as a full node has at once.
        let mut small = Vec::new();
        for _ in 0..1000 {
            let asked = ask(&room, UNCOUNTED).await;
            assert_eq!(asked.read.as_ref().unwrap(), &UNCOUNTED);
            small.push(asked);
        }
        end(large.pop().unwrap()).await;
        let next = ask(&room, largest).await;
        assert!(next.read.is_ok(), "what was answered holds its room");
        for asked in large.into_iter().chain(small).chain([next, refused]) {
            end(asked).await;
        }
        room.emptied().await;
        assert_eq!(room.0.left.load(Ordering::Relaxed), ALL);
    }
}
