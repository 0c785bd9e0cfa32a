//! The wire's trait of the image service, and the work of its calls.

use cri::image_service_server::ImageService;
use crisp_api::runtime::v1 as cri;
use crisp_image::ImageInfo;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::Service;
use super::stream_lists::Messages;
use crate::answer;
use crate::from_cri::image::{credentials, spec};
use crate::to_cri;

impl Service {
    fn list_images(&self, request: cri::ListImagesRequest) -> cri::ListImagesResponse {
        let found = self.select_images(request.filter);
        cri::ListImagesResponse {
            images: found.iter().map(to_cri::image::image).collect(),
        }
    }

    /// The images that a filter takes.
    pub(super) fn select_images(&self, filter: Option<cri::ImageFilter>) -> Vec<ImageInfo> {
        let images = self.engine.images();
        let wanted = filter.and_then(|f| f.image).map(|i| i.image);
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
            return images.list();
        };
        match images.find(&wanted) {
            Ok(found) => found.into_iter().collect(),
            // A filter may fit several images, where a name has to stand for one.
            Err(several) => {
                let mut all = images.list();
                all.retain(|image| several.matches.contains(&image.id));
                all
            }
        }
    }

    async fn image_status(
        &self,
        request: cri::ImageStatusRequest,
    ) -> Result<cri::ImageStatusResponse, Status> {
        let images = self.engine.images();
        let wanted = spec("image", request.image)?;
        let found = images
            .find(&wanted.image)
            .map_err(|a| answer::images(a.into()))?;
        let Some(found) = found else {
            return Ok(cri::ImageStatusResponse::default());
        };
        let mut response = cri::ImageStatusResponse {
            image: Some(to_cri::image::image(&found)),
            ..cri::ImageStatusResponse::default()
        };
        if request.verbose {
            let raw = images.raw_config(&found).await.map_err(answer::images)?;
            let config: Value = serde_json::from_slice(&raw).unwrap_or_default();
            response.info = to_cri::info::image(&found, &config);
        }
        Ok(response)
    }

    async fn pull(&self, request: cri::PullImageRequest) -> Result<cri::PullImageResponse, Status> {
        let wanted = spec("image", request.image)?;
        let pull = self
            .engine
            .images()
            .pull(&wanted.image, credentials(request.auth));
        let id = pull.await.map_err(answer::images)?;
        Ok(cri::PullImageResponse {
            image_ref: id.to_string(),
        })
    }

    async fn remove_image(
        &self,
        request: cri::RemoveImageRequest,
    ) -> Result<cri::RemoveImageResponse, Status> {
        let wanted = spec("image", request.image)?;
        self.engine
            .images()
            .remove(&wanted.image)
            .await
            .map_err(answer::images)?;
        Ok(cri::RemoveImageResponse::default())
    }

    /// Counts disk usage off the serving threads, because the count may take a moment.
    async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse, Status> {
        let images = self.engine.images().clone();
        let info = crisp_tasks::blocking(move || images.fs_info()).await;
        let info = info.map_err(|failed| {
            Status::internal(format!("read the disk usage of images: {failed}"))
        })?;
        let layers = self.engine.writable_layers().await;
        Ok(to_cri::image::fs_info(&info, &layers))
    }
}

fn name(image: Option<&cri::ImageSpec>) -> String {
    image.map(|image| image.image.clone()).unwrap_or_default()
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        self.call("ListImages", "", async {
            Ok(Service::list_images(self, request.into_inner()))
        })
        .await
    }

    type StreamImagesStream = Messages<cri::StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        self.call("StreamImages", "", async {
            Ok(Service::stream_images(self, request.into_inner()))
        })
        .await
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let about = name(request.image.as_ref());
        self.call("ImageStatus", &about, Service::image_status(self, request))
            .await
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let request = request.into_inner();
        let about = name(request.image.as_ref());
        self.call("PullImage", &about, self.pull(request)).await
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        let request = request.into_inner();
        let about = name(request.image.as_ref());
        self.call("RemoveImage", &about, Service::remove_image(self, request))
            .await
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        self.call("ImageFsInfo", "", Service::image_fs_info(self))
            .await
    }
}
