//! A container's record: what it was asked to be, and what its creation found out and made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crisp_model as live;
use crisp_model::{CgroupPath, ContainerId, Digest, Timestamp};
use crisp_shim_api::RootfsSpec;
use serde::{Deserialize, Serialize};

use super::environment;
use super::mount::{Device, Image, Mount};
use super::parts::{Namespaces, Resources};
use super::security::Security;
use super::text::{Wrong, each, is_default, parse};
use crate::record::{ContainerRecord, MadeRecord};

#[derive(Serialize, Deserialize)]
pub(super) struct Container {
    id: String,
    config: Config,
    created_at: i64,
    cgroup_path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    resources: Resources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
}

#[derive(Serialize, Deserialize)]
struct Made {
    image_id: String,
    image_ref: String,
    #[serde(default, skip_serializing_if = "is_default")]
    user: User,
    #[serde(default, skip_serializing_if = "is_default")]
    volumes: Vec<Volume>,
    #[serde(default, skip_serializing_if = "is_default")]
    shown_images: Vec<String>,
    /// The signal's number.
    stop_signal: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    log_path: Option<PathBuf>,
    rootfs: Rootfs,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct User {
    #[serde(skip_serializing_if = "is_default")]
    uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    additional_gids: Vec<u32>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Volume {
    container_path: PathBuf,
    source: PathBuf,
}

/// Where the root file system comes from.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rootfs {
    Dir(PathBuf),
    Overlay {
        lowers: Vec<Lower>,
        upper: PathBuf,
        work: PathBuf,
    },
}

/// A read-only layer of an overlay, with its kind: one that is no directory gets a variant.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lower {
    Dir(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Name {
    name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    attempt: u32,
}

#[derive(Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the wire's independent flags"
)]
struct Config {
    name: Name,
    #[serde(default, skip_serializing_if = "is_default")]
    image: Image,
    #[serde(default, skip_serializing_if = "is_default")]
    command: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    args: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    working_dir: String,
    #[serde(default, skip_serializing_if = "is_default")]
    env: environment::Texts,
    /// The values of `env` that are no text.
    #[serde(default, skip_serializing_if = "is_default")]
    env_bytes: environment::Bytes,
    #[serde(default, skip_serializing_if = "is_default")]
    mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "is_default")]
    devices: Vec<Device>,
    #[serde(default, skip_serializing_if = "is_default")]
    cdi_devices: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    log_path: String,
    #[serde(default, skip_serializing_if = "is_default")]
    stdin: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    stdin_once: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    tty: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    resources: Resources,
    #[serde(default, skip_serializing_if = "is_default")]
    namespaces: Namespaces,
    #[serde(default, skip_serializing_if = "is_default")]
    security: Security,
    /// The signal's number.
    #[serde(default, skip_serializing_if = "is_default")]
    stop_signal: Option<i32>,
}

impl From<&ContainerRecord> for Container {
    fn from(record: &ContainerRecord) -> Self {
        let ContainerRecord {
            id,
            config,
            created_at,
            cgroup_path,
            resources,
            made,
        } = record;
        Self {
            id: id.to_string(),
            config: config.into(),
            created_at: created_at.0,
            cgroup_path: cgroup_path.to_string(),
            resources: resources.into(),
            made: made.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<Container> for ContainerRecord {
    type Error = Wrong;

    fn try_from(container: Container) -> Result<Self, Wrong> {
        let Container {
            id,
            config,
            created_at,
            cgroup_path,
            resources,
            made,
        } = container;
        Ok(Self {
            id: parse("container.id", ContainerId::parse(&id))?,
            config: config.try_into()?,
            created_at: Timestamp(created_at),
            cgroup_path: parse("container.cgroup_path", CgroupPath::parse(&cgroup_path))?,
            resources: resources.into(),
            made: made.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&MadeRecord> for Made {
    fn from(made: &MadeRecord) -> Self {
        let MadeRecord {
            image_id,
            image_ref,
            user,
            volumes,
            shown_images,
            stop_signal,
            log_path,
            rootfs,
        } = made;
        Self {
            image_id: image_id.to_string(),
            image_ref: image_ref.clone(),
            user: user.into(),
            volumes: each(volumes),
            shown_images: shown_images.clone(),
            stop_signal: *stop_signal,
            log_path: log_path.clone(),
            rootfs: rootfs.into(),
        }
    }
}

impl TryFrom<Made> for MadeRecord {
    type Error = Wrong;

    fn try_from(made: Made) -> Result<Self, Wrong> {
        let Made {
            image_id,
            image_ref,
            user,
            volumes,
            shown_images,
            stop_signal,
            log_path,
            rootfs,
        } = made;
        Ok(Self {
            image_id: parse("container.made.image_id", Digest::parse(&image_id))?,
            image_ref,
            user: user.into(),
            volumes: volumes.into_iter().map(Into::into).collect(),
            shown_images,
            stop_signal,
            log_path,
            rootfs: rootfs.into(),
        })
    }
}

impl From<&live::ContainerUser> for User {
    fn from(user: &live::ContainerUser) -> Self {
        let live::ContainerUser {
            uid,
            gid,
            additional_gids,
        } = user.clone();
        Self {
            uid,
            gid,
            additional_gids,
        }
    }
}

impl From<User> for live::ContainerUser {
    fn from(user: User) -> Self {
        let User {
            uid,
            gid,
            additional_gids,
        } = user;
        Self {
            uid,
            gid,
            additional_gids,
        }
    }
}

impl From<&live::Volume> for Volume {
    fn from(volume: &live::Volume) -> Self {
        let live::Volume {
            container_path,
            source,
        } = volume.clone();
        Self {
            container_path,
            source,
        }
    }
}

impl From<Volume> for live::Volume {
    fn from(volume: Volume) -> Self {
        let Volume {
            container_path,
            source,
        } = volume;
        Self {
            container_path,
            source,
        }
    }
}

impl From<&RootfsSpec> for Rootfs {
    fn from(rootfs: &RootfsSpec) -> Self {
        match rootfs.clone() {
            RootfsSpec::Dir(path) => Self::Dir(path),
            RootfsSpec::Overlay { lower, upper, work } => Self::Overlay {
                lowers: lower.into_iter().map(Lower::Dir).collect(),
                upper,
                work,
            },
        }
    }
}

impl From<Rootfs> for RootfsSpec {
    fn from(rootfs: Rootfs) -> Self {
        match rootfs {
            Rootfs::Dir(path) => Self::Dir(path),
            Rootfs::Overlay {
                lowers,
                upper,
                work,
            } => Self::Overlay {
                lower: lowers.into_iter().map(|Lower::Dir(path)| path).collect(),
                upper,
                work,
            },
        }
    }
}

impl From<&live::ContainerConfig> for Config {
    fn from(config: &live::ContainerConfig) -> Self {
        let live::ContainerConfig {
            name: live::ContainerName { name, attempt },
            image,
            command,
            args,
            working_dir,
            env,
            mounts,
            devices,
            cdi_devices,
            labels,
            annotations,
            log_path,
            stdin,
            stdin_once,
            tty,
            resources,
            namespaces,
            security,
            // A repeated request names them again.
            volatile_mounts: _,
            stop_signal,
        } = config;
        let (env, env_bytes) = environment::write(env);
        Self {
            name: Name {
                name: name.clone(),
                attempt: *attempt,
            },
            image: image.into(),
            command: command.clone(),
            args: args.clone(),
            working_dir: working_dir.clone(),
            env,
            env_bytes,
            mounts: each(mounts),
            devices: each(devices),
            cdi_devices: cdi_devices.clone(),
            labels: labels.clone(),
            annotations: annotations.clone(),
            log_path: log_path.clone(),
            stdin: *stdin,
            stdin_once: *stdin_once,
            tty: *tty,
            resources: resources.into(),
            namespaces: namespaces.into(),
            security: security.into(),
            stop_signal: *stop_signal,
        }
    }
}

impl TryFrom<Config> for live::ContainerConfig {
    type Error = Wrong;

    fn try_from(config: Config) -> Result<Self, Wrong> {
        let Config {
            name: Name { name, attempt },
            image,
            command,
            args,
            working_dir,
            env,
            env_bytes,
            mounts,
            devices,
            cdi_devices,
            labels,
            annotations,
            log_path,
            stdin,
            stdin_once,
            tty,
            resources,
            namespaces,
            security,
            stop_signal,
        } = config;
        Ok(Self {
            name: live::ContainerName { name, attempt },
            image: image.into(),
            command,
            args,
            working_dir,
            env: environment::read(env, env_bytes)?,
            mounts: mounts
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            devices: devices.into_iter().map(Into::into).collect(),
            cdi_devices,
            labels,
            annotations,
            log_path,
            stdin,
            stdin_once,
            tty,
            resources: resources.into(),
            namespaces: namespaces.try_into()?,
            security: security.into(),
            volatile_mounts: Vec::new(),
            stop_signal,
        })
    }
}
