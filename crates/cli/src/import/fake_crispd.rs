//! For tests: a crispd that knows names and digests alone. It pulls as crispd does, from where the
//! `hosts.toml` of a name's host leads, and unpacks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use cri::image_service_server::{ImageService, ImageServiceServer};
use crisp_api::runtime::v1 as cri;
use crisp_model::ImageRef;
use crisp_tasks::Worker;
use futures::future::{BoxFuture, FutureExt as _, Ready, ready};
use futures::stream::{self, BoxStream};
use tokio::net::UnixListener;
use tonic::codegen::{Body, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::images::{CERTIFICATE, client};

/// Its images and its faults.
#[derive(Debug, Default)]
pub struct State {
    /// Names with the digests that they lead to.
    pub names: BTreeMap<String, String>,
    /// Names that it refuses to pull.
    pub refuses: BTreeSet<String>,
    /// Names that it was asked to pull.
    pub pulls: Vec<String>,
}

/// A crispd that runs.
#[derive(Debug)]
pub struct FakeCrispd {
    /// Its socket.
    pub socket: PathBuf,
    state: Arc<Mutex<State>>,
    _server: Worker<()>,
}

impl FakeCrispd {
    /// Starts one, which is called by a name and finds registries by a directory of settings.
    pub fn start(socket: &Path, name: &'static str, certs: &Path) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let images = Images {
            certs: certs.to_owned(),
            state: Arc::clone(&state),
        };
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, async |listener| {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = Server::builder()
            .add_service(Version(name))
            .add_service(ImageServiceServer::new(images));
        let server = Worker::start(async move {
            server
                .serve_with_incoming(Box::pin(incoming))
                .await
                .unwrap();
        });
        Self {
            socket: socket.to_owned(),
            state,
            _server: server,
        }
    }

    /// Looks at its images and faults, or changes them.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

/// The one call about the runtime that an import makes.
#[derive(Debug, Clone)]
struct Version(&'static str);

impl NamedService for Version {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl UnaryService<cri::VersionRequest> for Version {
    type Response = cri::VersionResponse;
    type Future = Ready<Result<Response<cri::VersionResponse>, Status>>;

    fn call(&mut self, _: Request<cri::VersionRequest>) -> Self::Future {
        ready(Ok(Response::new(cri::VersionResponse {
            runtime_name: self.0.to_owned(),
            ..Default::default()
        })))
    }
}

impl<B> Service<http::Request<B>> for Version
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = self.clone();
        async move {
            let mut grpc =
                Grpc::new(ProstCodec::<cri::VersionResponse, cri::VersionRequest>::default());
            Ok(grpc.unary(method, request).await)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct Images {
    certs: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Images {
    /// The digest of an image, as the registry tells it to which its host leads.
    async fn resolve(&self, name: &ImageRef) -> Result<String, Status> {
        let place = self.certs.join(name.host());
        let missing = |_| Status::unavailable("no way to a registry");
        let hosts = std::fs::read_to_string(place.join("hosts.toml")).map_err(missing)?;
        let certificate = std::fs::read_to_string(place.join(CERTIFICATE)).map_err(missing)?;
        let url = hosts.split("https://").nth(1).unwrap();
        let (address, path) = url.split('"').next().unwrap().split_once('/').unwrap();
        let digest = name.digest().map(ToString::to_string);
        let reference = digest.as_deref().or(name.tag()).unwrap();
        let path = format!("/{path}/v2/{}/manifests/{reference}", name.repository());
        let answer = client::get(address.parse().unwrap(), &path, &certificate).await;
        let answer = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        let header = answer.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case("docker-content-digest")
                .then(|| value.to_owned())
        });
        header.ok_or_else(|| Status::not_found("the registry has no such image"))
    }
}

fn named(image: Option<cri::ImageSpec>) -> String {
    image.unwrap_or_default().image
}

#[tonic::async_trait]
impl ImageService for Images {
    type StreamImagesStream = BoxStream<'static, Result<cri::StreamImagesResponse, Status>>;

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let name = named(request.into_inner().image);
        let state = self.state.lock().unwrap();
        let image = state.names.get(&name).map(|digest| cri::Image {
            repo_digests: vec![format!(
                "{}@{digest}",
                ImageRef::parse(&name).unwrap().name()
            )],
            ..Default::default()
        });
        Ok(Response::new(cri::ImageStatusResponse {
            image,
            ..Default::default()
        }))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let name = named(request.into_inner().image);
        let refused = {
            let mut state = self.state.lock().unwrap();
            state.pulls.push(name.clone());
            state.refuses.contains(&name)
        };
        if refused {
            return Err(Status::failed_precondition("not for this machine"));
        }
        let digest = self.resolve(&ImageRef::parse(&name).unwrap()).await?;
        let mut state = self.state.lock().unwrap();
        state.names.insert(name, digest.clone());
        Ok(Response::new(cri::PullImageResponse { image_ref: digest }))
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        Ok(Response::new(cri::ImageFsInfoResponse::default()))
    }

    async fn list_images(
        &self,
        _: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        Err(Status::unimplemented("list_images"))
    }

    async fn stream_images(
        &self,
        _: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        Err(Status::unimplemented("stream_images"))
    }

    async fn remove_image(
        &self,
        _: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        Err(Status::unimplemented("remove_image"))
    }
}
