//! The nouns of Crisp: ids, digests, image references, phases and configurations.
//!
//! Everything here is a plain value: parsed once at the edge, then passed on. Nothing in this
//! crate does I/O, reads the clock or is async, so every other room may know it.

#![forbid(unsafe_code)]

pub mod cause;
pub mod cgroup;
pub mod container;
pub mod digest;
pub mod field;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod go_json;
pub mod id;
pub mod id_map;
pub mod image;
pub mod nul;
pub mod owner;
pub mod path;
pub mod phase;
pub mod pod;
pub mod reference;
pub mod resources;
pub mod security;
pub mod selinux_label;
pub mod selinux_level;
pub mod signal;
pub mod text;
pub mod time;

pub use cause::Cause;
pub use cgroup::{CgroupNamespaces, CgroupPath};
pub use container::{
    ContainerConfig, ContainerName, Device, IMAGE_VIEW, ImageSpec, MAPPED_WHERE_POSSIBLE, Mount,
    MountSource, Propagation, Volume,
};
pub use digest::Digest;
pub use field::{Field, Limit};
pub use id::{ContainerId, PodId};
pub use id_map::{IdMap, IdRange};
pub use image::ImageConfig;
pub use owner::Owner;
pub use phase::{ContainerPhase, ExitStatus, PodPhase};
pub use pod::{DnsConfig, NamespaceMode, PodConfig, PodName, PodNamespaces, PortMapping, Protocol};
pub use reference::ImageRef;
pub use resources::{Resources, cpu_weight};
pub use security::{
    Capabilities, ContainerUser, GroupsPolicy, Profile, SecurityContext, SelinuxOptions, UserSpec,
};
pub use selinux_level::SelinuxLevel;
pub use signal::Signal;
pub use time::Timestamp;
