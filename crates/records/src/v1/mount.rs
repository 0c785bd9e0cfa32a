//! Images, mounts and devices as a container asks for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crisp_model as live;
use crisp_model::container::Access as LiveAccess;
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use super::text::{Wrong, is_default};

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Image {
    #[serde(skip_serializing_if = "is_default")]
    image: String,
    #[serde(skip_serializing_if = "is_default")]
    user_specified_image: String,
    #[serde(skip_serializing_if = "is_default")]
    runtime_handler: String,
    #[serde(skip_serializing_if = "is_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Mount {
    container_path: PathBuf,
    source: Source,
    #[serde(default, skip_serializing_if = "is_default")]
    propagation: Propagation,
    #[serde(default, skip_serializing_if = "is_default")]
    access: Access,
    #[serde(default, skip_serializing_if = "is_default")]
    selinux_relabel: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    options: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    id_map: Option<Ids>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Host(PathBuf),
    Image {
        image: Image,
        #[serde(default, skip_serializing_if = "is_default")]
        sub_path: String,
    },
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Access {
    #[default]
    ReadWrite,
    ReadOnly,
    RecursiveReadOnly,
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Device {
    host_path: PathBuf,
    container_path: PathBuf,
    permissions: String,
}

impl From<&live::ImageSpec> for Image {
    fn from(image: &live::ImageSpec) -> Self {
        let live::ImageSpec {
            image,
            user_specified_image,
            runtime_handler,
            annotations,
        } = image.clone();
        Self {
            image,
            user_specified_image,
            runtime_handler,
            annotations,
        }
    }
}

impl From<Image> for live::ImageSpec {
    fn from(image: Image) -> Self {
        let Image {
            image,
            user_specified_image,
            runtime_handler,
            annotations,
        } = image;
        Self {
            image,
            user_specified_image,
            runtime_handler,
            annotations,
        }
    }
}

impl From<&live::Mount> for Mount {
    fn from(mount: &live::Mount) -> Self {
        let live::Mount {
            container_path,
            source,
            propagation,
            access,
            selinux_relabel,
            options,
            id_map,
        } = mount;
        Self {
            container_path: container_path.clone(),
            source: match source {
                live::MountSource::Host(path) => Source::Host(path.clone()),
                live::MountSource::Image { image, sub_path } => Source::Image {
                    image: image.into(),
                    sub_path: sub_path.clone(),
                },
            },
            propagation: match propagation {
                live::Propagation::Private => Propagation::Private,
                live::Propagation::HostToContainer => Propagation::HostToContainer,
                live::Propagation::Bidirectional => Propagation::Bidirectional,
            },
            access: match access {
                LiveAccess::ReadWrite => Access::ReadWrite,
                LiveAccess::ReadOnly => Access::ReadOnly,
                LiveAccess::RecursiveReadOnly => Access::RecursiveReadOnly,
            },
            selinux_relabel: *selinux_relabel,
            options: options.clone(),
            id_map: id_map.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<Mount> for live::Mount {
    type Error = Wrong;

    fn try_from(mount: Mount) -> Result<Self, Wrong> {
        let Mount {
            container_path,
            source,
            propagation,
            access,
            selinux_relabel,
            options,
            id_map,
        } = mount;
        Ok(Self {
            container_path,
            source: match source {
                Source::Host(path) => live::MountSource::Host(path),
                Source::Image { image, sub_path } => live::MountSource::Image {
                    image: image.into(),
                    sub_path,
                },
            },
            propagation: match propagation {
                Propagation::Private => live::Propagation::Private,
                Propagation::HostToContainer => live::Propagation::HostToContainer,
                Propagation::Bidirectional => live::Propagation::Bidirectional,
            },
            access: match access {
                Access::ReadWrite => LiveAccess::ReadWrite,
                Access::ReadOnly => LiveAccess::ReadOnly,
                Access::RecursiveReadOnly => LiveAccess::RecursiveReadOnly,
            },
            selinux_relabel,
            options,
            id_map: id_map.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&live::Device> for Device {
    fn from(device: &live::Device) -> Self {
        let live::Device {
            host_path,
            container_path,
            permissions,
        } = device.clone();
        Self {
            host_path,
            container_path,
            permissions,
        }
    }
}

impl From<Device> for live::Device {
    fn from(device: Device) -> Self {
        let Device {
            host_path,
            container_path,
            permissions,
        } = device;
        Self {
            host_path,
            container_path,
            permissions,
        }
    }
}
