//! Limits that few callers ask for: of real time, RDMA devices, classes of network traffic; and
//! those that the kernel of this machine has no file for, which are refused, or told where the
//! kernel does by itself what they are about.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
};
use rustix::io::Errno;

use crate::change::Change;
use crate::error::{Error, Result};

/// Puts them in force. Returns what is passed over.
pub(crate) fn limit(change: &Change<'_>, resources: &LinuxResources) -> Result<Vec<String>> {
    let limits = Limits { change };
    if let Some(cpu) = resources.cpu() {
        limits.real_time(cpu)?;
    }
    if let Some(io) = resources.block_io() {
        limits.leaves(io)?;
    }
    for (device, rdma) in resources
        .rdma()
        .iter()
        .flatten()
        .collect::<BTreeMap<_, _>>()
    {
        limits.rdma(device, rdma)?;
    }
    if let Some(network) = resources.network() {
        limits.network(network)?;
    }
    Ok(resources
        .memory()
        .as_ref()
        .map_or_else(Vec::new, |memory| limits.memory(memory)))
}

/// Refuses a limit of memory that the container is above already, where the caller asks for that:
/// the kernel would take it, and kill. Memory that the kernel can take back does not count, as with
/// version 1.
pub(crate) fn check_memory(change: &Change<'_>, memory: &LinuxMemory) -> Result<()> {
    // Version 1 refuses it by itself.
    if memory.check_before_update() != Some(true) || !change.cgroup.layout().is_v2_for("memory") {
        return Ok(());
    }
    let Some(limit @ 1..) = memory.limit().and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(());
    };
    let mut used = used_memory(change)?;
    if used > limit {
        let surplus = (used - limit).to_string();
        // Kernels before 5.19 have no such file, and others do what they can: the figure tells.
        change
            .cgroup
            .write("memory", "memory.reclaim", &surplus)
            .ok();
        used = used_memory(change)?;
    }
    if used > limit {
        // The number of version 1.
        return Err(Error::Setup {
            step: "limit the cgroup: memory.max".to_owned(),
            message: format!("the container uses {used} bytes, more than {limit}"),
            errno: Some(Errno::BUSY.raw_os_error()),
        });
    }
    Ok(())
}

fn used_memory(change: &Change<'_>) -> Result<u64> {
    let text = change.cgroup.read("memory", "memory.current");
    let text = text.map_err(|error| Error::cgroup("read the memory of", error))?;
    let unread = |_| Error::invalid("memory.current", format!("{:?} is no number", text.trim()));
    text.trim().parse().map_err(unread)
}

struct Limits<'a> {
    change: &'a Change<'a>,
}

impl Limits<'_> {
    fn is_v2(&self, controller: &str) -> bool {
        self.change.cgroup.layout().is_v2_for(controller)
    }

    /// A field that only version 1 has files for.
    fn version_1(&self, controller: &str, field: &str) -> Result<()> {
        if self.is_v2(controller) {
            let what = format!("linux.resources.{field} with cgroup version 2");
            return Err(Error::Unsupported(what));
        }
        Ok(())
    }

    fn real_time(&self, cpu: &LinuxCpu) -> Result<()> {
        let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
        let period = cpu.realtime_period().filter(|period| *period != 0);
        if runtime.is_none() && period.is_none() {
            return Ok(());
        }
        self.version_1("cpu", "cpu.realtimeRuntime")?;
        if let Some(period) = period {
            self.change
                .set("cpu", "cpu.rt_period_us", &period.to_string())?;
        }
        if let Some(runtime) = runtime {
            self.change
                .set("cpu", "cpu.rt_runtime_us", &runtime.to_string())?;
        }
        Ok(())
    }

    fn leaves(&self, io: &LinuxBlockIo) -> Result<()> {
        if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
            self.version_1("blkio", "blockIO.leafWeight")?;
            self.change
                .set("blkio", "blkio.leaf_weight", &weight.to_string())?;
        }
        for device in io.weight_device().iter().flatten() {
            if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
                self.version_1("blkio", "blockIO.weightDevice.leafWeight")?;
                let line = format!("{}:{} {weight}", device.major(), device.minor());
                self.change
                    .set("blkio", "blkio.leaf_weight_device", &line)?;
            }
        }
        Ok(())
    }

    fn rdma(&self, device: &str, rdma: &LinuxRdma) -> Result<()> {
        if device.is_empty() || device.contains(char::is_whitespace) {
            let why = format!("{device:?} is no name of a device");
            return Err(Error::invalid("linux.resources.rdma", why));
        }
        let mut line = device.to_owned();
        for (key, value) in [
            ("hca_handle", rdma.hca_handles()),
            ("hca_object", rdma.hca_objects()),
        ] {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        self.change.set("rdma", "rdma.max", &line)
    }

    fn network(&self, network: &LinuxNetwork) -> Result<()> {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            self.version_1("net_cls", "network.classID")?;
            self.change
                .set("net_cls", "net_cls.classid", &class.to_string())?;
        }
        for interface in network.priorities().iter().flatten() {
            self.version_1("net_prio", "network.priorities")?;
            let line = format!("{} {}", interface.name(), interface.priority());
            self.change.set("net_prio", "net_prio.ifpriomap", &line)?;
        }
        Ok(())
    }

    /// Fields that the kernel has given up, or that say what it does by itself.
    fn memory(&self, memory: &LinuxMemory) -> Vec<String> {
        let swappiness = memory.swappiness().is_some();
        let no_killer = memory.disable_oom_killer() == Some(true);
        let fields = [
            (
                memory.kernel().is_some(),
                "kernel",
                "the kernel counts its memory together with the rest",
            ),
            (
                memory.kernel_tcp().is_some(),
                "kernelTCP",
                "the kernel counts its memory together with the rest",
            ),
            (
                memory.use_hierarchy() == Some(false),
                "useHierarchy",
                "the kernel always counts what is below",
            ),
            (
                self.is_v2("memory") && swappiness,
                "swappiness",
                "cgroup version 2 has none",
            ),
            (
                self.is_v2("memory") && no_killer,
                "disableOOMKiller",
                "cgroup version 2 always kills",
            ),
        ];
        let given = fields.into_iter().filter(|(given, ..)| *given);
        given
            .map(|(_, field, why)| format!("linux.resources.memory.{field} is ignored: {why}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use crisp_sys::cgroup::{Cgroup, Layout, Unified};
    use serde_json::{Value, json};

    use super::*;
    use crate::change::Before;

    const V1: [&str; 8] = [
        "cpu.rt_period_us",
        "cpu.rt_runtime_us",
        "blkio.leaf_weight",
        "blkio.leaf_weight_device",
        "rdma.max",
        "net_cls.classid",
        "net_prio.ifpriomap",
        "memory.current",
    ];

    fn resources(value: Value) -> LinuxResources {
        serde_json::from_value(value).unwrap()
    }

    fn everything() -> LinuxResources {
        resources(json!({
            "cpu": { "realtimeRuntime": 95, "realtimePeriod": 100 },
            "blockIO": { "leafWeight": 20,
                "weightDevice": [{ "major": 8, "minor": 1, "leafWeight": 30 }] },
            "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 4 } },
            "network": { "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 5 }] }
        }))
    }

    /// Files in place of a cgroup.
    fn with_files(layout: impl FnOnce(&std::path::Path) -> Layout, check: impl Fn(&Change<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        for file in V1 {
            crisp_sys::file::write_atomic(&dir.path().join(file), b"", 0o600).unwrap();
        }
        let cgroup = Cgroup::new(Arc::new(layout(dir.path())), "");
        check(&Change::of(&cgroup, Before::Lost));
    }

    fn version_1(root: &std::path::Path) -> Layout {
        let names = ["cpu", "blkio", "rdma", "net_cls", "net_prio", "memory"];
        Layout::Hybrid {
            controllers: names.map(|name| (name.to_owned(), root.to_owned())).into(),
            unified: None,
        }
    }

    fn version_2(root: &std::path::Path) -> Layout {
        Layout::V2(Unified {
            root: root.to_owned(),
            controllers: vec!["memory".to_owned(), "rdma".to_owned()],
        })
    }

    #[test]
    fn version_1_has_a_file_for_each() {
        with_files(version_1, |change| {
            assert!(limit(change, &everything()).unwrap().is_empty());
            let texts = V1.map(|file| {
                let (controller, _) = file.split_once('.').unwrap();
                change.cgroup.read(controller, file).unwrap()
            });
            let expected = [
                "100",
                "95",
                "20",
                "8:1 30",
                "mlx5_1 hca_handle=3 hca_object=4",
                "1048577",
                "eth0 5",
                "",
            ];
            assert_eq!(texts, expected);
        });
    }

    #[test]
    fn version_2_refuses_by_name() {
        for (value, field) in [
            (
                json!({ "cpu": { "realtimeRuntime": 95 } }),
                "cpu.realtimeRuntime",
            ),
            (
                json!({ "cpu": { "realtimePeriod": 95 } }),
                "cpu.realtimeRuntime",
            ),
            (
                json!({ "blockIO": { "leafWeight": 20 } }),
                "blockIO.leafWeight",
            ),
            (
                json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 1, "leafWeight": 9 }] } }),
                "weightDevice.leafWeight",
            ),
            (json!({ "network": { "classID": 1 } }), "network.classID"),
            (
                json!({ "network": { "priorities": [{ "name": "a", "priority": 5 }] } }),
                "network.priorities",
            ),
            (json!({ "rdma": { "a b": { "hcaHandles": 1 } } }), "rdma"),
        ] {
            with_files(version_2, |change| {
                let error = limit(change, &resources(value.clone())).unwrap_err();
                assert!(error.to_string().contains(field), "{error}");
            });
        }
    }

    #[test]
    fn memory_of_other_times_is_told() {
        let memory = json!({ "memory": { "kernel": 1, "kernelTCP": 1, "useHierarchy": false,
            "swappiness": 60, "disableOOMKiller": true } });
        for (layout, fields) in [
            (version_1 as fn(&std::path::Path) -> Layout, 3),
            (version_2, 5),
        ] {
            with_files(layout, |change| {
                assert_eq!(
                    limit(change, &resources(memory.clone())).unwrap().len(),
                    fields
                );
            });
        }
    }

    #[test]
    fn a_limit_below_what_is_used_can_be_refused() {
        with_files(version_2, |change| {
            let dir = change.cgroup.dir("memory").unwrap();
            crisp_sys::file::write_atomic(&dir.join("memory.current"), b"500\n", 0o600).unwrap();
            for (limit, check, good) in [
                (400, true, false),
                (600, true, true),
                (400, false, true),
                (-1, true, true),
            ] {
                let mut memory = LinuxMemory::default();
                memory.set_limit(Some(limit));
                memory.set_check_before_update(Some(check));
                assert_eq!(
                    check_memory(change, &memory).is_ok(),
                    good,
                    "{limit} {check}"
                );
            }
            assert!(fs::exists(dir).unwrap());
        });
    }
}
