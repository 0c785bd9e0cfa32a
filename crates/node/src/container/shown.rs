//! Images that a container's mounts show (image volumes): which they are, and what of them is seen.

use std::path::PathBuf;

use crisp_image::ImageInfo;
use crisp_model::{ContainerConfig, Field, ImageSpec, Mount, MountSource};
use crisp_spec::ImageView;

use crate::error::{Error, Result, image_error};
use crate::shared::Shared;

/// The mounts that show an image, with what each of them shows.
fn asked(config: &ContainerConfig) -> impl Iterator<Item = (&Mount, &ImageSpec, &str)> {
    config
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Image { image, sub_path } => Some((mount, image, sub_path.as_str())),
            MountSource::Host(_) => None,
        })
}

/// The images, in the order of their mounts: each is here, and has what is to be seen of it.
pub(super) async fn find(shared: &Shared, config: &ContainerConfig) -> Result<Vec<ImageInfo>> {
    let images = &shared.config.images;
    let mut found = Vec::new();
    for (mount, spec, sub_path) in asked(config) {
        let at = mount.container_path.display();
        let Some(image) = images.find(&spec.image)? else {
            return Err(Error::NotFound {
                what: "image to mount",
                id: spec.image.clone(),
            });
        };
        let is_there = sub_path.is_empty() || {
            let there = images.has_content_at(&image, sub_path).await;
            there.map_err(image_error("look for a path in the image of a mount"))?
        };
        if !is_there {
            let why = format!(
                "the image {} that is to be mounted at {at} has no directory or file {sub_path:?}",
                spec.image
            );
            return Err(Error::invalid(Field::ImageSubPath, why));
        }
        found.push(image);
    }
    Ok(found)
}

/// The mounts as the spec wants them, with the layers of their images in the same order.
pub(super) fn views(config: &ContainerConfig, layers: Vec<Vec<PathBuf>>) -> Vec<ImageView> {
    let each = asked(config).zip(layers);
    each.map(|((mount, _, sub_path), lower)| ImageView {
        destination: mount.container_path.clone(),
        lower,
        sub_path: sub_path.to_owned(),
        options: mount.options.clone(),
    })
    .collect()
}
