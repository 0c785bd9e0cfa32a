//! From CRI's mounts and devices to ours.

use std::path::Path;

use crisp_api::runtime::v1 as cri;
use crisp_model::container::Access;
use crisp_model::{Device, IdMap, Mount, MountSource, Propagation};

use super::check::{cleaned, container_path, enumeration, relative};
use super::id_map::id_map;
use super::{Result, image, invalid};

/// Mount options that callers may set: each of them only restricts the mount.
const OPTIONS: &[&str] = &["noexec", "nosuid", "nodev"];

pub(crate) fn mounts(wire: Vec<cri::Mount>) -> Result<Vec<Mount>> {
    let numbered = wire.into_iter().enumerate();
    numbered
        .map(|(i, wire)| mount(&format!("config.mounts[{i}]"), wire))
        .collect()
}

fn mount(at: &str, wire: cri::Mount) -> Result<Mount> {
    let field = |name: &str| format!("{at}.{name}");
    let container_path = container_path(&field("container_path"), &wire.container_path)?;
    if container_path == Path::new("/") {
        return invalid(
            field("container_path"),
            "would hide the container's own root",
        );
    }
    let propagation = match enumeration(&field("propagation"), wire.propagation)? {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        cri::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if let Some(unknown) = wire
        .mount_options
        .iter()
        .find(|o| !OPTIONS.contains(&o.as_str()))
    {
        let why = format!("{unknown:?} is none of {}", OPTIONS.join(", "));
        return invalid(field("mount_options"), why);
    }
    Ok(Mount {
        container_path,
        access: access(at, &wire, propagation)?,
        source: source(at, &wire, propagation)?,
        propagation,
        selinux_relabel: wire.selinux_relabel,
        id_map: owners(at, (&wire.uid_mappings, &wire.gid_mappings))?,
        options: wire.mount_options,
    })
}

/// A path of the host, or an image that is named: an empty `image` stands for none, as other readers
/// of the same request take it.
fn source(at: &str, wire: &cri::Mount, propagation: Propagation) -> Result<MountSource> {
    let field = |name: &str| format!("{at}.{name}");
    let sub_path = &wire.image_sub_path;
    if !shows_image(wire) {
        if !sub_path.is_empty() {
            return invalid(field("image_sub_path"), "needs image");
        }
        return Ok(MountSource::Host(cleaned(
            &field("host_path"),
            &wire.host_path,
        )?));
    }
    if !wire.host_path.is_empty() {
        return invalid(field("host_path"), "has to be empty where image is set");
    }
    // It has no peer on the host that mounts could reach.
    if propagation == Propagation::Bidirectional {
        let why = "an image cannot be propagated to the host: use PROPAGATION_PRIVATE";
        return invalid(field("propagation"), why);
    }
    if !sub_path.is_empty() {
        relative(&field("image_sub_path"), sub_path)?;
    }
    Ok(MountSource::Image {
        image: image::spec(&field("image"), wire.image.clone())?,
        sub_path: sub_path.clone(),
    })
}

fn shows_image(wire: &cri::Mount) -> bool {
    let image = wire.image.as_ref();
    image.is_some_and(|image| !image.image.is_empty())
}

fn owners(at: &str, (uids, gids): (&[cri::IdMapping], &[cri::IdMapping])) -> Result<Option<IdMap>> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    id_map((uids, gids)).map(Some).or_else(|wrong| {
        let field = match wrong.kind {
            "uids" => "uidMappings",
            _ => "gidMappings",
        };
        invalid(format!("{at}.{field}"), wrong.why)
    })
}

fn access(at: &str, wire: &cri::Mount, propagation: Propagation) -> Result<Access> {
    let at = format!("{at}.recursive_read_only");
    match (wire.readonly, wire.recursive_read_only) {
        (false, false) if shows_image(wire) => Ok(Access::ReadOnly),
        (false, false) => Ok(Access::ReadWrite),
        (true, false) => Ok(Access::ReadOnly),
        (false, true) => invalid(at, "needs readonly"),
        // A mount that is propagated later would be writable.
        (true, true) if propagation != Propagation::Private => {
            invalid(at, "needs propagation PROPAGATION_PRIVATE")
        }
        (true, true) => Ok(Access::RecursiveReadOnly),
    }
}

pub(crate) fn devices(wire: Vec<cri::Device>) -> Result<Vec<Device>> {
    let one = |(i, wire): (usize, cri::Device)| {
        let at = |name: &str| format!("config.devices[{i}].{name}");
        let host_path = cleaned(&at("host_path"), &wire.host_path)?;
        let container_path = match wire.container_path.as_str() {
            "" => host_path.clone(),
            text => container_path(&at("container_path"), text)?,
        };
        let permissions = match wire.permissions.as_str() {
            "" => "rwm".to_owned(),
            text if text.chars().all(|c| "rwm".contains(c)) => text.to_owned(),
            text => return invalid(at("permissions"), format!("{text:?} is not of r, w and m")),
        };
        Ok(Device {
            host_path,
            container_path,
            permissions,
        })
    };
    wire.into_iter().enumerate().map(one).collect()
}
