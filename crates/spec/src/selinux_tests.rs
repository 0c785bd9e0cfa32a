//! SELinux labels of containers: whose options count, and what is kept apart.

use crisp_model::{PodConfig, SelinuxLevel, SelinuxOptions};

use super::{Case, case};
use crate::{PidNamespace, pod_label, volume_label};

/// The labels of the process and of the mounts, where the kernel has SELinux.
fn labels(change: impl Fn(&mut Case)) -> (Option<String>, Option<String>) {
    let mut case = case();
    case.host.selinux = true;
    change(&mut case);
    let spec = case.build().unwrap();
    let process = spec.process().as_ref().unwrap().selinux_label().clone();
    let mount = spec.linux().as_ref().unwrap().mount_label().clone();
    (process, mount)
}

#[test]
fn selinux_labels_are_made_where_the_kernel_has_it() {
    let level = |case: &mut Case| case.container.security.selinux.level = "s0:c1,c2".to_owned();
    let without = |case: &mut Case| {
        case.host.selinux = false;
        level(case);
    };
    assert_eq!(labels(without), (None, None));
    let text = |text: &str| Some(text.to_owned());
    let files = text("system_u:object_r:container_file_t:s0:c1,c2");
    let process = text("system_u:system_r:container_t:s0:c1,c2");
    assert_eq!(labels(level), (process, files));
}

#[test]
fn selinux_options_of_a_container_come_before_its_pods() {
    let options = |user: &str, role: &str, kind: &str, level: &str| SelinuxOptions {
        user: user.to_owned(),
        role: role.to_owned(),
        kind: kind.to_owned(),
        level: level.to_owned(),
    };
    let none = options("", "", "", "");
    let pod = options("pod_u", "pod_r", "pod_t", "s0:c3,c4");
    for (container, pod, process, level) in [
        (&none, &none, "system_u:system_r:container_t", "s0"),
        (&none, &pod, "pod_u:pod_r:pod_t", "s0:c3,c4"),
        // The options of a container are one thing: nothing of its pod's is mixed in but the level.
        (
            &options("", "", "my_t", ""),
            &pod,
            "system_u:system_r:my_t",
            "s0:c3,c4",
        ),
        (
            &options("my_u", "my_r", "", "s0:c5,c6"),
            &pod,
            "my_u:my_r:container_t",
            "s0:c5,c6",
        ),
    ] {
        let made = labels(|case| {
            case.container.security.selinux = container.clone();
            case.pod.security.selinux = pod.clone();
        });
        let files = format!("system_u:object_r:container_file_t:{level}");
        assert_eq!(made, (Some(format!("{process}:{level}")), Some(files)));
    }
}

#[test]
fn a_pod_has_the_level_that_was_picked_for_it_unless_it_asks_for_another() {
    let picked: SelinuxLevel = "s0:c7,c8".parse().unwrap();
    for (container, pod, level) in [
        ("", "", "s0:c7,c8"),
        ("", "s0:c3", "s0:c3"),
        ("s0:c5", "s0:c3", "s0:c5"),
        ("s0:c5", "", "s0:c5"),
    ] {
        let set = |case: &mut Case| {
            case.selinux_level = Some(picked);
            case.container.security.selinux.level = container.to_owned();
            case.pod.security.selinux.level = pod.to_owned();
        };
        let files = |level: &str| format!("system_u:object_r:container_file_t:{level}");
        let (process, mount) = labels(set);
        assert!(process.unwrap().ends_with(&format!(":container_t:{level}")));
        assert_eq!(mount, Some(files(level)));
        // Volumes have the label of the mounts, what all of the pod use has the pod's.
        let mut case = case();
        set(&mut case);
        let volume = volume_label(&case.container, &case.pod, Some(picked));
        assert_eq!(volume, files(level));
        let of_pod = pod_label(&case.pod, Some(picked));
        let pods = if pod.is_empty() { "s0:c7,c8" } else { pod };
        assert_eq!(of_pod, files(pods));
        assert_eq!(
            pod_label(
                &PodConfig {
                    security: Default::default(),
                    ..case.pod
                },
                None
            ),
            files("s0")
        );
    }
}

#[test]
fn selinux_keeps_no_container_from_the_host_that_it_was_given() {
    type Change = fn(&mut Case);
    let asked: Change = |case| {
        case.container.security.privileged = true;
        case.container.security.selinux.kind = "my_t".to_owned();
    };
    let cases: [(Change, &str); 6] = [
        (|_| {}, "container_t"),
        (|case| case.container.security.privileged = true, "spc_t"),
        (|case| case.namespaces.pid = PidNamespace::Host, "spc_t"),
        (|case| case.namespaces.ipc = None, "spc_t"),
        (|case| case.namespaces.net = None, "container_t"),
        (asked, "my_t"),
    ];
    for (number, (change, kind)) in cases.into_iter().enumerate() {
        let (process, mount) = labels(change);
        let wanted = format!("system_u:system_r:{kind}:s0");
        assert_eq!(process, Some(wanted), "case {number}");
        assert!(mount.unwrap().contains("container_file_t"), "case {number}");
    }
}
