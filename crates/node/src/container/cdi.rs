//! Devices that a container asks for by name (CDI): which they are, and what they change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crisp_cdi::{DeviceNode, Edits, Library, Name};
use crisp_model::{Cause, ContainerConfig, Field};
use crisp_spec::{DeviceKind, ResolvedDevice, ResolvedUser};

use super::bundle::Bundle;
use super::devices;
use crate::error::{Error, Result};

/// The names that a container asks for.
pub(super) fn asked(config: &ContainerConfig) -> Result<Vec<Name>> {
    let names = crisp_cdi::asked(&config.cdi_devices, &config.annotations);
    names.map_err(refused)
}

/// The changes that the devices of a container make. Blocks.
pub(super) fn edits(library: &Library, config: &ContainerConfig) -> Result<Edits> {
    let names = asked(config)?;
    let found = library.resolve(&names);
    found.map_err(refused)
}

fn refused(error: crisp_cdi::Error) -> Error {
    match error {
        crisp_cdi::Error::Dir { .. } => Error::Internal {
            step: "look for devices by name (CDI)".to_owned(),
            cause: Cause::of(error),
        },
        other => Error::invalid(Field::CdiDevices, other.to_string()),
    }
}

/// Adds the device nodes of edits, in the place of nodes at the same paths. A node without an owner
/// is the container's user's. Blocks.
pub(super) fn add_nodes(
    edits: &Edits,
    (owner, lends): ((u32, u32), bool),
    devices: &mut Vec<ResolvedDevice>,
) -> Result<()> {
    // By path, with the place in the list: a spec may have as many nodes as its size allows.
    let mut added = BTreeMap::new();
    for (place, asked) in edits.device_nodes.iter().enumerate() {
        let node = node(asked, (owner, lends)).map_err(|why| {
            let why = format!("device node {}: {why}", asked.path.display());
            Error::invalid(Field::CdiDevices, why)
        })?;
        if lends {
            tell_unmet(asked, &node.source);
        }
        added.insert(asked.path.as_path(), (place, node));
    }
    devices.retain(|known| !added.contains_key(known.path.as_path()));
    let mut added: Vec<_> = added.into_values().collect();
    added.sort_by_key(|(place, _)| *place);
    devices.extend(added.into_iter().map(|(_, node)| node));
    Ok(())
}

/// A fact that a spec does not tell of a node is that of the host's node.
fn node(
    asked: &DeviceNode,
    ((uid, gid), lends): ((u32, u32), bool),
) -> std::result::Result<ResolvedDevice, String> {
    let kind = match asked.r#type.as_deref().unwrap_or_default() {
        "" => None,
        "b" => Some(DeviceKind::Block),
        "p" => return Err("Crisp makes no pipes (type p)".to_owned()),
        _ => Some(DeviceKind::Char),
    };
    let own = asked.host_path.as_deref();
    let host_path = own
        .filter(|path| *path != Path::new(""))
        .unwrap_or(&asked.path);
    let found = on_host(host_path);
    let numbers = (asked.major.unwrap_or(0), asked.minor.unwrap_or(0));
    let (kind, numbers) = match (kind, numbers) {
        (Some(kind), (major, _)) if major != 0 => (kind, numbers),
        (kind, _) => {
            let host = found.as_ref().map_err(Clone::clone)?;
            if kind.is_some_and(|kind| kind != host.kind) {
                let why = "is of another type than the spec says";
                return Err(format!("{} {why}", host_path.display()));
            }
            let own = (numbers.0 != 0).then_some(numbers);
            (host.kind, own.unwrap_or((host.major, host.minor)))
        }
    };
    let is_asked = |host: &ResolvedDevice| {
        host.source == asked.path || (host.kind, (host.major, host.minor)) == (kind, numbers)
    };
    if lends && !found.as_ref().map_or(host_path == asked.path, is_asked) {
        let why = "is not that device, and a pod with a user namespace is lent the host's";
        return Err(format!("{} {why}", host_path.display()));
    }
    let (source, mode) = found.map_or_else(
        |_| (host_path.to_owned(), 0o666),
        |host| (host.source, host.mode),
    );
    Ok(ResolvedDevice {
        path: asked.path.clone(),
        source,
        kind,
        major: numbers.0,
        minor: numbers.1,
        mode: asked.file_mode.unwrap_or(mode) & 0o7777,
        uid: asked.uid.unwrap_or(uid),
        gid: asked.gid.unwrap_or(gid),
        permissions: asked.permissions.clone().unwrap_or_default(),
    })
}

/// Tells what a spec says of a node that is lent: its inode is the host's, and stays as it is.
fn tell_unmet(asked: &DeviceNode, source: &Path) {
    let mode = fs::metadata(source).map_or(0, |host| host.mode());
    let unmet = unmet(asked, mode);
    if !unmet.is_empty() {
        let (device, unmet) = (asked.path.display(), unmet.join(", "));
        tracing::warn!(target: "crisp::container", %device, source = %source.display(), unmet, "a pod with a user namespace is lent the host's device node, which has not all that the device's spec (CDI) says");
    }
}

/// The fields of a spec that a node of this mode on the host does not meet. The host's owners are
/// nobody in the namespace.
fn unmet(asked: &DeviceNode, mode: u32) -> Vec<&'static str> {
    let is_other = |asked: u32| (asked ^ mode) & 0o7777 != 0;
    let fields = [
        ("fileMode", asked.file_mode.is_some_and(is_other)),
        ("uid", asked.uid.is_some()),
        ("gid", asked.gid.is_some()),
    ];
    let unmet = fields.into_iter().filter(|(_, is_unmet)| *is_unmet);
    unmet.map(|(field, _)| field).collect()
}

fn on_host(path: &Path) -> std::result::Result<ResolvedDevice, String> {
    let found = fs::metadata(path);
    let found = found.map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
    let source = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let node = devices::node((&source, &found), path.to_owned(), "");
    node.ok_or_else(|| format!("{} is no device (mode {:o})", path.display(), found.mode()))
}

/// Adds the groups of edits, which callers are told of as well.
pub(super) fn add_groups(edits: &Edits, user: &mut ResolvedUser) {
    let mut known: BTreeSet<u32> = user.additional_gids.iter().copied().collect();
    let more = edits.additional_gids.iter().copied();
    let more = more.filter(|group| *group != 0 && known.insert(*group));
    user.additional_gids.extend(more);
}

/// Makes all other changes in a bundle that is not written yet.
pub(super) fn change(edits: &Edits, bundle: &mut Bundle) -> Result<()> {
    crisp_cdi::apply(edits, &mut bundle.spec).map_err(refused)?;
    let names: BTreeSet<&[u8]> = edits
        .env
        .iter()
        .map(|text| name_of(text.as_bytes()))
        .collect();
    // They would take the place of the devices' own.
    let raw = &mut bundle.raw_environment;
    raw.retain(|variable| !names.contains(&name_of(variable)));
    Ok(())
}

fn name_of(variable: &[u8]) -> &[u8] {
    variable
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_node(path: &str) -> DeviceNode {
        DeviceNode {
            path: path.into(),
            ..DeviceNode::default()
        }
    }

    #[test]
    fn what_a_spec_does_not_say_of_a_node_the_hosts_says() {
        let zero = DeviceNode {
            host_path: Some("/dev/zero".into()),
            ..asked_node("/dev/vendor0")
        };
        let found = node(&zero, ((7, 8), false)).unwrap();
        let numbers = (found.kind, found.major, found.minor);
        assert_eq!(numbers, (DeviceKind::Char, 1, 5));
        assert_eq!((found.mode, found.uid, found.gid), (0o666, 7, 8));
        let told = DeviceNode {
            r#type: Some("b".into()),
            major: Some(7),
            minor: Some(3),
            file_mode: Some(0o640),
            uid: Some(0),
            permissions: Some("none".into()),
            ..asked_node("/dev/absent")
        };
        let found = node(&told, ((7, 8), false)).unwrap();
        let numbers = (found.kind, found.major, found.minor);
        assert_eq!(numbers, (DeviceKind::Block, 7, 3));
        assert_eq!((found.mode, found.uid, found.gid), (0o640, 0, 8));
        assert_eq!(found.permissions, "none");
    }

    #[test]
    fn a_lent_node_is_the_one_that_is_asked_for() {
        let of = |host: &str, minor| DeviceNode {
            r#type: Some("c".to_owned()),
            major: Some(1),
            minor: Some(minor),
            host_path: Some(host.into()),
            ..asked_node("/dev/vendor0")
        };
        assert!(node(&of("/dev/zero", 5), ((0, 0), true)).is_ok());
        for (host, minor) in [("/dev/zero", 3), ("/etc", 5), ("/dev/absent", 5)] {
            let asked = of(host, minor);
            let why = node(&asked, ((0, 0), true)).unwrap_err();
            assert!(why.contains("is lent the host's"), "{why}");
            assert!(node(&asked, ((0, 0), false)).is_ok());
        }
    }

    #[test]
    fn a_lent_node_keeps_its_mode_and_owners() {
        let of = |file_mode, uid, gid| DeviceNode {
            file_mode,
            uid,
            gid,
            ..asked_node("/dev/vendor0")
        };
        for (asked, expected) in [
            (of(None, None, None), &[][..]),
            (of(Some(0o666), None, None), &[]),
            (of(Some(0o640), None, None), &["fileMode"]),
            (of(Some(0o666), Some(0), Some(5)), &["uid", "gid"]),
        ] {
            assert_eq!(unmet(&asked, 0o20666), expected);
        }
    }

    /// A file of 1 MiB can have as many: compared each with each, they would take minutes.
    #[test]
    fn many_nodes_and_groups_take_no_longer_than_their_number() {
        let many = 40_000;
        let node = |n| DeviceNode {
            r#type: Some("c".to_owned()),
            major: Some(1),
            ..asked_node(&format!("/dev/v{n}"))
        };
        let mut edits = Edits::default();
        edits.device_nodes = (0..many).chain([5]).map(node).collect();
        edits.additional_gids = (0..many).chain([5]).collect();
        let own = |path: &str| {
            let mut own = on_host(Path::new("/dev/zero")).unwrap();
            own.path = path.into();
            own
        };
        let mut devices = vec![own("/dev/own"), own("/dev/v7")];
        let mut user = ResolvedUser {
            additional_gids: vec![9],
            ..ResolvedUser::default()
        };
        let begun = std::time::Instant::now();
        add_nodes(&edits, ((0, 0), false), &mut devices).unwrap();
        add_groups(&edits, &mut user);
        let took = begun.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
        // The last of those at one place counts, and stands there.
        assert_eq!(devices.len(), 40_001);
        let paths = [&devices[0].path, &devices[1].path, &devices[40_000].path];
        assert_eq!(
            paths.map(|path| path.to_str().unwrap()),
            ["/dev/own", "/dev/v0", "/dev/v5"]
        );
        assert_eq!(user.additional_gids[..3], [9, 1, 2]);
        assert_eq!(user.additional_gids.len(), 39_999);
    }

    #[test]
    fn nodes_that_cannot_be_made_are_refused() {
        let of = |kind: &str, host: &str| DeviceNode {
            r#type: Some(kind.to_owned()),
            host_path: Some(host.into()),
            ..asked_node("/dev/x")
        };
        for (asked, told) in [
            (of("", "/dev/absent"), "/dev/absent"),
            (of("b", "/dev/zero"), "another type"),
            (of("p", "/dev/zero"), "type p"),
            (of("c", "/etc/hosts"), "no device"),
        ] {
            let why = node(&asked, ((0, 0), false)).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }
}
