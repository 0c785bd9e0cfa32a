//! Serving CRI: both services on one listening socket, each connection wrapped for clients that
//! name paths, each call under a root span and limited by its caller's deadline, and large requests
//! limited together.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use crisp_api::runtime::v1::image_service_server::ImageServiceServer;
use crisp_api::runtime::v1::runtime_service_server::RuntimeServiceServer;
use crisp_door::Rooted;
use futures::{Stream, stream};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tonic::transport::{Error, Server};
use tower::layer::layer_fn;

use crate::authority::PathAuthority;
use crate::bodies::{Bounded, Room};
use crate::deadline::GrpcDeadline;
use crate::service::Service;

/// The largest message that clients of CRI send and take.
const MESSAGE: usize = 16 << 20;

/// Calls at once on one connection; a client keeps back what is more. A kubelet has a single
/// connection for all that it asks, and stops and probes of each of its pods may wait there
/// together: what they do not leave free, its lists would wait for.
const STREAMS: u32 = 1024;

/// The connections of a listener, as many at a time as there are `seats`: each holds a descriptor,
/// and clients that forget theirs are not to take those that a removal needs. Others wait in the
/// listener's queue.
fn clients(
    listener: UnixListener,
    seats: usize,
) -> impl Stream<Item = io::Result<PathAuthority>> + Send {
    let seats = Arc::new(Semaphore::new(seats));
    stream::unfold((listener, seats), async |(listener, seats)| {
        // The semaphore is never closed.
        let seat = Arc::clone(&seats).acquire_owned().await.ok()?;
        let accepted = listener.accept().await;
        let client = accepted.map(|(stream, _)| PathAuthority::new(stream, seat));
        Some((client, (listener, seats)))
    })
}

/// Serves calls until `stop`; then no new ones are taken, and it ends with the last one that runs.
/// At most `seats` clients are connected at a time.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    (listener, seats): (UnixListener, usize),
    service: Service,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let clients = clients(listener, seats);
    let room = Room::default();
    let shared = room.clone();
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS)
        .layer(layer_fn(Rooted::new))
        .layer(layer_fn(GrpcDeadline::new))
        .layer(layer_fn(move |services| {
            Bounded::new(services, shared.clone())
        }))
        .add_service(
            RuntimeServiceServer::new(service.clone())
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
        )
        .add_service(
            ImageServiceServer::new(service)
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
        )
        .serve_with_incoming_shutdown(clients, stop);
    tokio::select! {
        ended = serving => ended,
        never = return_memory(&room) => match never {},
    }
}

/// After large requests, the allocator keeps what they held until it is told.
async fn return_memory(room: &Room) -> Infallible {
    loop {
        room.emptied().await;
        crisp_node::give_memory_back().await;
    }
}
