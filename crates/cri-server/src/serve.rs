//! Serving CRI: both services on one listening socket, each connection wrapped for clients that
//! name paths, each call under a root span and limited by its caller's deadline.

use crisp_api::runtime::v1::image_service_server::ImageServiceServer;
use crisp_api::runtime::v1::runtime_service_server::RuntimeServiceServer;
use crisp_door::Rooted;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Error, Server};
use tower::layer::layer_fn;

use crate::authority::PathAuthority;
use crate::deadline::GrpcDeadline;
use crate::service::Service;

/// The largest message that clients of CRI send and take.
const MESSAGE: usize = 16 << 20;

/// Serves calls until `stop`; then no new ones are taken, and it ends with the last one that runs.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: UnixListener,
    service: Service,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let clients = UnixListenerStream::new(listener).map(|client| client.map(PathAuthority::new));
    Server::builder()
        .layer(layer_fn(Rooted::new))
        .layer(layer_fn(GrpcDeadline::new))
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
        .serve_with_incoming_shutdown(clients, stop)
        .await
}
