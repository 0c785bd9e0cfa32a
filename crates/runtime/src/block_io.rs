//! Limits of block devices: weights and rates.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use crate::change::Change;
use crate::error::Result;

/// Weights and rates. Returns what could not be done to the letter.
pub(crate) fn limit(change: &Change<'_>, io: &LinuxBlockIo) -> Result<Vec<String>> {
    weight(change, io)?;
    let warnings = weights_of_devices(change, io)?;
    let throttles = [
        (io.throttle_read_bps_device(), "read_bps", "rbps"),
        (io.throttle_write_bps_device(), "write_bps", "wbps"),
        (io.throttle_read_iops_device(), "read_iops", "riops"),
        (io.throttle_write_iops_device(), "write_iops", "wiops"),
    ];
    for (devices, v1, v2) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            throttle(change, device, v1, v2)?;
        }
    }
    Ok(warnings)
}

/// Which files there are depends on the I/O scheduler: bfq has its own, in its own scale.
fn weight(change: &Change<'_>, io: &LinuxBlockIo) -> Result<()> {
    let Some(weight) = io.weight().filter(|weight| *weight != 0) else {
        return Ok(());
    };
    let plain = weight.to_string();
    if !is_v2(change) {
        let file = if has(change, "blkio", "blkio.bfq.weight") {
            "blkio.bfq.weight"
        } else {
            "blkio.weight"
        };
        return change.set("blkio", file, &plain);
    }
    let bfq = has(change, "io", "io.bfq.weight");
    if bfq {
        change.set("io", "io.bfq.weight", &plain)?;
    }
    if !bfq || has(change, "io", "io.weight") {
        let text = format!("default {}", weight_of_blkio(weight));
        change.set("io", "io.weight", &text)?;
    }
    Ok(())
}

/// Weights for single devices exist in the file of one scheduler or the other, or nowhere.
fn weights_of_devices(change: &Change<'_>, io: &LinuxBlockIo) -> Result<Vec<String>> {
    let devices = io.weight_device().as_deref().unwrap_or_default();
    let (controller, files) = match is_v2(change) {
        true => ("io", ["io.bfq.weight", "io.weight"]),
        false => ("blkio", ["blkio.bfq.weight_device", "blkio.weight_device"]),
    };
    let file = files.into_iter().find(|file| has(change, controller, file));
    let mut warnings = Vec::new();
    for device in devices {
        let number = format!("{}:{}", device.major(), device.minor());
        let Some(weight) = device.weight() else {
            continue;
        };
        let Some(file) = file else {
            warnings.push(format!(
                "the I/O weight of device {number} is ignored: no I/O scheduler here weighs devices"
            ));
            continue;
        };
        let weight = match file {
            "io.weight" => weight_of_blkio(weight),
            _ => u64::from(weight),
        };
        change.set(controller, file, &format!("{number} {weight}"))?;
    }
    Ok(warnings)
}

/// The controller has another name on version 1.
fn is_v2(change: &Change<'_>) -> bool {
    let layout = change.cgroup.layout();
    layout.is_v2_for("io") && !layout.has("blkio")
}

fn has(change: &Change<'_>, controller: &str, file: &str) -> bool {
    change.cgroup.read(controller, file).is_ok()
}

fn throttle(change: &Change<'_>, device: &LinuxThrottleDevice, v1: &str, v2: &str) -> Result<()> {
    let (major, minor, rate) = (device.major(), device.minor(), device.rate());
    if is_v2(change) {
        return change.set("io", "io.max", &format!("{major}:{minor} {v2}={rate}"));
    }
    let file = format!("blkio.throttle.{v1}_device");
    change.set("blkio", &file, &format!("{major}:{minor} {rate}"))
}

/// blkio weight (10 to 1000) to io.weight (1 to 10000).
fn weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crisp_sys::cgroup::{Cgroup, Layout, Unified};

    use super::*;
    use crate::change::Before;

    /// Files in place of a cgroup whose kernel has both schedulers that weigh.
    #[test]
    fn each_scheduler_gets_weights_in_its_own_scale() {
        let root = tempfile::tempdir().unwrap();
        for file in ["io.weight", "io.bfq.weight"] {
            crisp_sys::file::write_atomic(&root.path().join(file), b"", 0o600).unwrap();
        }
        let layout = Layout::V2(Unified {
            root: root.path().to_owned(),
            controllers: vec!["io".to_owned()],
        });
        let cgroup = Cgroup::new(Arc::new(layout), "");
        let change = Change::of(&cgroup, Before::Lost);
        let held = |file| cgroup.read("io", file).unwrap();
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(1000));
        assert!(limit(&change, &io).unwrap().is_empty());
        assert_eq!(
            (held("io.weight"), held("io.bfq.weight")),
            ("default 10000".to_owned(), "1000".to_owned())
        );
        let device =
            serde_json::json!({ "weightDevice": [{ "major": 8, "minor": 16, "weight": 10 }] });
        let io = serde_json::from_value(device).unwrap();
        assert!(limit(&change, &io).unwrap().is_empty());
        assert_eq!(held("io.bfq.weight"), "8:16 10");
        for file in ["io.weight", "io.bfq.weight"] {
            std::fs::remove_file(root.path().join(file)).unwrap();
        }
        let told = limit(&change, &io).unwrap();
        assert!(told[0].contains("8:16 is ignored"), "{told:?}");
    }

    #[test]
    fn weights_keep_their_meaning() {
        assert_eq!((weight_of_blkio(10), weight_of_blkio(1000)), (1, 10_000));
    }
}
