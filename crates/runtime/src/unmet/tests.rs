//! Every field of the types of `oci-spec` is decided about, and those that are not done are refused
//! or told.

use std::collections::BTreeMap;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use super::{check, fields};

/// Structs and their fields. A mark says what becomes of one that is set: `!` is refused and `?`
/// told by this module, the others are done, or refused where they are read.
#[rustfmt::skip]
const DECIDED: &[(&str, &str)] = &[
    ("Spec", "ociVersion root mounts process hostname domainname hooks annotations linux ?solaris
              ?windows ?vm ?zos !uidMappings !gidMappings"),
    ("Root", "path readonly"),
    ("Mount", "destination type source options uidMappings gidMappings"),
    ("Process", "terminal consoleSize user args ?commandLine env cwd capabilities rlimits
                 noNewPrivileges apparmorProfile oomScoreAdj selinuxLabel ioPriority scheduler
                 execCPUAffinity"),
    ("Box", "height width"),
    ("PosixRlimit", "type hard soft"),
    ("User", "uid gid umask additionalGids ?username"),
    ("LinuxCapabilities", "bounding effective inheritable permitted ambient"),
    ("LinuxIOPriority", "class priority"),
    ("Scheduler", "policy nice priority flags runtime deadline period"),
    ("ExecCPUAffinity", "initial final"),
    ("Hooks", "prestart createRuntime createContainer startContainer poststart poststop"),
    ("Hook", "path args env timeout"),
    ("Linux", "netDevices uidMappings gidMappings sysctl resources cgroupsPath namespaces devices
               seccomp rootfsPropagation maskedPaths readonlyPaths mountLabel intelRdt memoryPolicy
               personality timeOffsets"),
    ("LinuxIdMapping", "hostID containerID size"),
    ("LinuxNetDevice", "name"),
    ("LinuxDeviceCgroup", "allow type major minor access"),
    ("LinuxMemory", "limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy
                     checkBeforeUpdate"),
    ("LinuxCpu", "shares quota idle burst period realtimeRuntime realtimePeriod cpus mems"),
    ("LinuxPids", "limit"),
    ("LinuxWeightDevice", "major minor weight leafWeight"),
    ("LinuxThrottleDevice", "major minor rate"),
    ("LinuxBlockIo", "weight leafWeight weightDevice throttleReadBpsDevice throttleWriteBpsDevice
                      throttleReadIOPSDevice throttleWriteIOPSDevice"),
    ("LinuxHugepageLimit", "pageSize limit"),
    ("LinuxInterfacePriority", "name priority"),
    ("LinuxNetwork", "classID priorities"),
    ("LinuxResources", "devices memory cpu pids blockIO hugepageLimits network rdma unified"),
    ("LinuxRdma", "hcaHandles hcaObjects"),
    ("LinuxNamespace", "type path"),
    ("LinuxDevice", "path type major minor fileMode uid gid"),
    ("LinuxSeccomp", "defaultAction defaultErrnoRet architectures flags listenerPath listenerMetadata
                      syscalls"),
    ("LinuxSyscall", "names action errnoRet args"),
    ("LinuxSeccompArg", "index value valueTwo op"),
    ("LinuxIntelRdt", "closID schemata l3CacheSchema memBwSchema ?enableCmt ?enableMbm enableMonitoring"),
    ("LinuxPersonality", "domain flags"),
    ("LinuxMemoryPolicy", "mode nodes flags"),
    ("LinuxTimeOffset", "secs nanosecs"),
];

/// Structs of other platforms: nothing of theirs is read.
const FOREIGN: [&str; 4] = ["Solaris", "Windows", "VM", "ZOS"];

#[test]
fn every_field_is_decided_about() {
    let sorted = |mut fields: Vec<String>| {
        fields.sort_unstable();
        fields
    };
    let bare = |field: &str| field.trim_start_matches(['!', '?']).to_owned();
    let decided: BTreeMap<_, _> = DECIDED
        .iter()
        .map(|(name, list)| (*name, sorted(list.split_whitespace().map(bare).collect())))
        .collect();
    let found: BTreeMap<_, _> = fields::of::<Spec>()
        .into_iter()
        .filter(|(name, _)| !FOREIGN.iter().any(|foreign| name.starts_with(foreign)))
        .map(|(name, list)| (name, sorted(list.into_iter().map(str::to_owned).collect())))
        .collect();
    assert_eq!(found, decided);
}

/// A spec in which one field is set.
fn with(pointer: &str, value: Value) -> Spec {
    let mut spec = json!({
        "ociVersion": "1.0.0", "root": { "path": "rootfs" },
        "process": { "user": {}, "cwd": "/", "args": ["a"] },
        "mounts": [{ "destination": "/a", "type": "bind", "source": "/b" }],
        "linux": { "namespaces": [{ "type": "mount" }] }
    });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[key] = value;
    serde_json::from_value(spec).unwrap()
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let map = || json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    for (pointer, value, text) in [
        ("/uidMappings", map(), "uidMappings"),
        ("/gidMappings", map(), "gidMappings"),
        ("/mounts/0/options", json!(["size=1"]), "mounts.options"),
        ("/linux/uidMappings", map(), "linux.uidMappings"),
        ("/linux/gidMappings", map(), "linux.gidMappings"),
        ("/hostname", json!("a"), "hostname"),
        ("/domainname", json!("a"), "domainname"),
    ] {
        let error = check(&with(pointer, value)).unwrap_err().to_string();
        assert!(error.contains(text), "{pointer}: {error}");
    }
}

#[test]
fn what_is_passed_over_is_told() {
    let kernel = json!({ "path": "/k" });
    for (pointer, value, text) in [
        ("/solaris", json!({}), "solaris"),
        ("/windows", json!({ "layerFolders": [] }), "windows"),
        ("/vm", json!({ "kernel": kernel }), "vm"),
        ("/zos", json!({}), "zos"),
        ("/process/commandLine", json!("a"), "process.commandLine"),
        (
            "/process/user/username",
            json!("a"),
            "process.user.username",
        ),
        ("/mounts/0/options", json!(["bind", "sync"]), "sync of /a"),
        (
            "/linux/intelRdt",
            json!({ "enableCmt": true }),
            "enableCMT is ignored",
        ),
        (
            "/linux/namespaces",
            json!([]),
            "a mount namespace of its own",
        ),
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/h", "env": ["A=b", "FLAG"] }] }),
            r#""FLAG" of the hook /h is left out"#,
        ),
    ] {
        let told = check(&with(pointer, value)).unwrap();
        assert_eq!(told.len(), 1, "{pointer}: {told:?}");
        assert!(told[0].contains(text), "{pointer}: {told:?}");
    }
    let nothing = [
        ("/hostname", json!("")),
        ("/mounts/0/options", json!(["rbind", "ro", "rslave"])),
        ("/mounts/0/uidMappings", json!([])),
    ];
    for (pointer, value) in nothing {
        assert!(
            check(&with(pointer, value)).unwrap().is_empty(),
            "{pointer}"
        );
    }
}

#[test]
fn a_process_of_its_own_is_told_too() {
    let process = json!({ "user": { "username": "a" }, "cwd": "/", "commandLine": "b" });
    let process: Process = serde_json::from_value(process).unwrap();
    assert_eq!(super::process(&process).len(), 2);
}
