//! Deadlines that callers set, by gRPC's header `grpc-timeout`.
//!
//! tonic has a timer for them too, but it answers CANCELLED, which reads as if the caller had
//! changed its mind, and it does not end streams. This layer answers a moment before tonic would:
//! with DEADLINE_EXCEEDED and a message that names the call and the time that it had. A stream ends
//! with the same status.

use std::future::{poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

const HEADER: &str = "grpc-timeout";

/// Most digits that the header has by gRPC's protocol.
const MOST_DIGITS: usize = 8;

/// Answer 2 ms early: at the deadline itself tonic would answer CANCELLED, and clients would give
/// up before they read our message.
const AHEAD: Duration = Duration::from_millis(2);

/// Services whose calls end at their caller's deadline. Work that a call began belongs to the
/// engine and goes on, as it does when a client disconnects.
#[derive(Debug, Clone)]
pub struct GrpcDeadline<S>(S);

impl<S> GrpcDeadline<S> {
    /// Wraps these services.
    pub fn new(services: S) -> Self {
        Self(services)
    }
}

impl<S> Service<Request<Body>> for GrpcDeadline<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match given_time(request.headers()) {
            Ok(None) => Box::pin(self.0.call(request)),
            Ok(Some(within)) => {
                let limit = Limit::new(within, request.uri().path());
                Box::pin(limited(self.0.call(request), limit))
            }
            Err(refusal) => Box::pin(ready(Ok(refusal.into_http()))),
        }
    }
}

async fn limited<E>(
    work: impl Future<Output = Result<Response<Body>, E>>,
    mut limit: Limit,
) -> Result<Response<Body>, E> {
    let mut work = pin!(work);
    let answer = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => limit.poll(context).map(|()| None),
    });
    match answer.await {
        Some(answer) => answer.map(|response| response.map(|body| Limited::around(body, limit))),
        None => Ok(limit.exceeded.into_http()),
    }
}

/// The deadline of a call, and the status that is answered when it passes.
struct Limit {
    timer: Pin<Box<Sleep>>,
    exceeded: Status,
}

impl Limit {
    fn new(within: Duration, path: &str) -> Self {
        let rpc = path.rsplit('/').next().unwrap_or(path);
        let text = format!("{rpc}: the deadline that the caller set, {within:?}, has passed");
        Self {
            timer: Box::pin(sleep(within.saturating_sub(AHEAD))),
            exceeded: Status::deadline_exceeded(text),
        }
    }

    /// Looks at the clock before the timer: a timer fires late when threads are busy, and tonic's
    /// could then fire first.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.timer.deadline() {
            return Poll::Ready(());
        }
        self.timer.as_mut().poll(context)
    }
}

/// A response body that ends with DEADLINE_EXCEEDED when the deadline passes before its own end.
struct Limited {
    /// None once the deadline has been answered.
    body: Option<Body>,
    limit: Limit,
}

impl Limited {
    fn around(body: Body, limit: Limit) -> Body {
        let body = Some(body);
        Body::new(Self { body, limit })
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, limit } = &mut *self;
        let Some(inner) = body else {
            return Poll::Ready(None);
        };
        // Before the body is polled: a stream that always has more would never end.
        if limit.poll(context).is_pending() {
            return Pin::new(inner).poll_frame(context);
        }
        *body = None;
        let mut trailers = HeaderMap::new();
        let told = limit.exceeded.add_header(&mut trailers);
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// The time that the caller gave, if it gave any. A header that cannot be read is refused, as other
/// servers do: without a deadline the call could take longer than its caller wants.
fn given_time(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    match parse(value.as_bytes()) {
        Some(time) => Ok(Some(time)),
        None => Err(Status::invalid_argument(format!(
            "{HEADER} is not 1 to {MOST_DIGITS} digits and one of H, M, S, m, u and n"
        ))),
    }
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let is_number =
        (1..=MOST_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(digits)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::future::{BoxFuture, pending};
    use http_body::Body as _;
    use tonic::Code;
    use tower::service_fn;

    use super::*;

    #[test]
    fn times_are_read_as_grpc_writes_them() {
        let cases: [(&[u8], Option<Duration>); 24] = [
            (b"2H", Some(Duration::from_secs(7200))),
            (b"3M", Some(Duration::from_secs(180))),
            (b"42S", Some(Duration::from_secs(42))),
            (b"50m", Some(Duration::from_millis(50))),
            (b"7u", Some(Duration::from_micros(7))),
            (b"82n", Some(Duration::from_nanos(82))),
            (b"0S", Some(Duration::ZERO)),
            (b"00000001S", Some(Duration::from_secs(1))),
            (b"99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            (b"", None),
            (b"S", None),
            (b"5", None),
            (b"123456789S", None),
            (b"5s", None),
            (b"5h", None),
            (b"5 S", None),
            (b" 5S", None),
            (b"5S ", None),
            (b"+5S", None),
            (b"-5S", None),
            (b"5.5S", None),
            (b"0x5S", None),
            (b"5\xc3\xa9", None),
            ("٥S".as_bytes(), None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), wanted, "{}", text.escape_ascii());
        }
    }

    type Work = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    /// A body that sends some frames and then waits.
    struct Stream {
        frames: usize,
    }

    impl http_body::Body for Stream {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.frames == 0 {
                return Poll::Pending;
            }
            self.frames -= 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    fn stream(frames: usize) -> Work {
        Box::pin(ready(Ok(Response::new(Body::new(Stream { frames })))))
    }

    /// Calls with this header; returns code, message, and the number of data frames before them.
    async fn ask(time: Option<&str>, work: fn() -> Work) -> (Code, String, usize) {
        let mut services = GrpcDeadline::new(service_fn(move |_: Request<Body>| work()));
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static("/runtime.v1.RuntimeService/StopContainer");
        if let Some(time) = time {
            request.headers_mut().insert(HEADER, time.parse().unwrap());
        }
        let response = services.call(request).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            assert!(response.body().is_end_stream(), "no trailers-only answer");
            return (status.code(), status.message().to_owned(), 0);
        }
        let (mut body, mut data) = (response.into_body(), 0);
        loop {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            let Some(frame) = frame else {
                return (Code::Ok, String::new(), data);
            };
            match frame.unwrap().into_trailers() {
                Ok(trailers) => {
                    let last = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
                    assert!(last.is_none() && body.is_end_stream(), "there is more");
                    let status = Status::from_header_map(&trailers).unwrap();
                    return (status.code(), status.message().to_owned(), data);
                }
                Err(_) => data += 1,
            }
        }
    }

    #[tokio::test]
    async fn calls_and_streams_end_at_the_deadline_with_its_code() {
        let never: fn() -> Work = || Box::pin(pending());
        let quick: fn() -> Work = || Box::pin(ready(Ok(Response::new(Body::empty()))));
        let waits: fn() -> Work = || stream(3);
        let gushes: fn() -> Work = || stream(usize::MAX);
        let late = Code::DeadlineExceeded;
        let cases = [
            ("an answer in time", Some("5S"), quick, Code::Ok),
            ("an answer at once", Some("0n"), quick, Code::Ok),
            ("no deadline", None, quick, Code::Ok),
            ("no answer", Some("20m"), never, late),
            ("no time at all", Some("0S"), never, late),
            ("less than the lead", Some("1n"), never, late),
            // A busy machine takes a while to the first frame.
            ("a stream that waits", Some("500m"), waits, late),
            ("a stream without end", Some("500m"), gushes, late),
            ("nonsense", Some("soon"), quick, Code::InvalidArgument),
        ];
        for (name, time, work, wanted) in cases {
            let begun = std::time::Instant::now();
            let (code, message, data) = ask(time, work).await;
            assert_eq!(code, wanted, "{name}: {message}");
            if code == late {
                assert!(message.contains("StopContainer: "), "{name}: {message}");
                assert!(begun.elapsed() < Duration::from_secs(4), "{name}");
            }
            assert_eq!(data > 0, name.contains("stream"), "{name}: {data}");
        }
    }
}
