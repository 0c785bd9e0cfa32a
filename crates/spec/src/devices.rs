//! Device nodes, and which devices the cgroup lets a container use.

use crisp_model::Field;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::{DeviceKind, Error, Input, ResolvedDevice, Result};

/// Devices that every container may use, with their numbers of devices.txt.
const USABLE: [(i64, Option<i64>); 10] = [
    (1, Some(3)),    // null
    (1, Some(5)),    // zero
    (1, Some(7)),    // full
    (1, Some(8)),    // random
    (1, Some(9)),    // urandom
    (5, Some(0)),    // tty
    (5, Some(1)),    // console
    (5, Some(2)),    // ptmx
    (10, Some(200)), // net/tun, whose node a container with CAP_NET_ADMIN makes for itself
    (136, None),     // pts/*
];

/// The permissions of a device that gets a node and no rule.
const NO_RULE: &str = "none";

/// Nodes to make in `/dev`.
pub(crate) fn nodes(input: &Input<'_>) -> Result<Vec<LinuxDevice>> {
    input.devices.iter().map(node).collect()
}

fn node(device: &ResolvedDevice) -> Result<LinuxDevice> {
    let path = &device.path;
    if !path.is_absolute() || path.file_name().is_none() {
        let why = format!("{} is not an absolute path of a file", path.display());
        return Err(Error::invalid(Field::DeviceDestination, why));
    }
    let mut node = LinuxDevice::default();
    node.set_path(path.clone());
    node.set_typ(kind(device));
    node.set_major(device.major);
    node.set_minor(device.minor);
    node.set_file_mode(Some(device.mode & 0o7777));
    node.set_uid(Some(device.uid));
    node.set_gid(Some(device.gid));
    Ok(node)
}

fn kind(device: &ResolvedDevice) -> LinuxDeviceType {
    match device.kind {
        DeviceKind::Char => LinuxDeviceType::C,
        DeviceKind::Block => LinuxDeviceType::B,
    }
}

/// Rules of the devices cgroup, the last one that matches decides: nothing, then nodes may be made
/// (not used), then the usual devices, then those asked for. Privileged containers may use all.
pub(crate) fn rules(input: &Input<'_>) -> Result<Vec<LinuxDeviceCgroup>> {
    if input.container.security.privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, (None, None), "rwm")]);
    }
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, (None, None), "rwm"),
        rule(true, LinuxDeviceType::C, (None, None), "m"),
        rule(true, LinuxDeviceType::B, (None, None), "m"),
    ];
    let usable = USABLE.iter().map(|(major, minor)| (Some(*major), *minor));
    rules.extend(usable.map(|numbers| rule(true, LinuxDeviceType::C, numbers, "rwm")));
    let reached = input.devices.iter();
    for device in reached.filter(|device| device.permissions != NO_RULE) {
        let access = access(&device.permissions)?;
        let numbers = (Some(device.major), Some(device.minor));
        rules.push(rule(true, kind(device), numbers, access));
    }
    Ok(rules)
}

fn access(permissions: &str) -> Result<&str> {
    let known = permissions.chars().all(|letter| "rwm".contains(letter));
    match permissions {
        "" => Ok("rwm"),
        some if known && some.len() <= 3 => Ok(some),
        other => {
            let why = format!("{other:?} is not made of r, w and m");
            Err(Error::invalid(Field::DevicePermissions, why))
        }
    }
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(Some(kind));
    rule.set_major(major);
    rule.set_minor(minor);
    rule.set_access(Some(access.to_owned()));
    rule
}
