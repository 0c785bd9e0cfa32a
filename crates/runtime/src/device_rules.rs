//! Device rules of the spec. Each is understood to the letter or refused: what was read as a wider
//! rule would open devices of the host.

use crisp_sys::device_filter::{DeviceRule, DeviceType};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// All rules, or the first one that makes no sense.
pub(crate) fn all(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>> {
    rules.iter().map(one).collect()
}

fn one(rule: &LinuxDeviceCgroup) -> Result<DeviceRule> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => DeviceType::All,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceType::Char,
        Some(LinuxDeviceType::B) => DeviceType::Block,
        Some(LinuxDeviceType::P) => return Err(refused("type p: a FIFO is no device")),
    };
    let asked = match rule.access() {
        Some(letters) => letters.clone(),
        // A rule that denies all access harms nobody.
        None if !rule.allow() => "rwm".to_owned(),
        None => return Err(refused("a rule that allows a device has to say its access")),
    };
    // Letters of later kernels mean accesses that this one has no rules for.
    let access: String = asked.chars().filter(|l| "rwm".contains(*l)).collect();
    if access.is_empty() {
        return Err(refused(format!("access {asked:?} has none of r, w and m")));
    }
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    let whole = "rwm".chars().all(|letter| access.contains(letter));
    if kind == DeviceType::All && (major.is_some() || minor.is_some() || !whole) {
        // The kernel's devices files take no notice of what else such a rule says.
        return Err(refused("type a stands for any number and any access"));
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major,
        minor,
        access,
    })
}

/// Absent or -1 is any number.
fn number(value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| refused(format!("{value} is not a number of a device"))),
    }
}

fn refused(why: impl Into<String>) -> Error {
    Error::invalid("linux.resources.devices", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_read_to_the_letter() {
        for (rule, expected) in [
            (json!({ "allow": false }), Some("All None None rwm")),
            (
                json!({ "allow": false, "access": "mwr" }),
                Some("All None None mwr"),
            ),
            (
                json!({ "allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm" }),
                Some("All None None rwm"),
            ),
            (
                json!({ "allow": true, "type": "c", "major": 1, "access": "rw" }),
                Some("Char Some(1) None rw"),
            ),
            (
                json!({ "allow": true, "type": "u", "major": 1, "minor": 0, "access": "m" }),
                Some("Char Some(1) Some(0) m"),
            ),
            (
                json!({ "allow": false, "type": "b", "minor": -1 }),
                Some("Block None None rwm"),
            ),
            (json!({ "allow": true, "type": "p", "access": "rw" }), None),
            (
                json!({ "allow": true, "type": "b", "major": 4_294_967_296_i64 }),
                None,
            ),
            (json!({ "allow": true, "type": "c", "minor": -2 }), None),
            (
                json!({ "allow": true, "type": "c", "access": "rxy" }),
                Some("Char None None r"),
            ),
            (json!({ "allow": true, "type": "c", "access": "x" }), None),
            (json!({ "allow": true, "type": "c", "access": "" }), None),
            (json!({ "allow": true, "type": "c", "major": 1 }), None),
            (json!({ "allow": false, "type": "a", "major": 1 }), None),
            (json!({ "allow": true, "access": "r" }), None),
        ] {
            let parsed: LinuxDeviceCgroup = serde_json::from_value(rule.clone()).unwrap();
            let read = one(&parsed).ok().map(|rule| {
                let (major, minor) = (rule.major, rule.minor);
                format!("{:?} {major:?} {minor:?} {}", rule.kind, rule.access)
            });
            assert_eq!(read.as_deref(), expected, "{rule}");
        }
    }
}
