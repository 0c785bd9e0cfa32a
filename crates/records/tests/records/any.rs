//! Random records: every field by itself is set or not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crisp_model::container::Access;
use crisp_model::pod::PodSecurity;
use crisp_model::{
    Capabilities, CgroupPath, ContainerConfig, ContainerName, Device, DnsConfig, GroupsPolicy,
    IdMap, IdRange, ImageSpec, Mount, MountSource, NamespaceMode, Owner, PodConfig, PodName,
    PodNamespaces, PortMapping, Profile, Propagation, Protocol, Resources, SecurityContext,
    SelinuxLevel, SelinuxOptions, Timestamp, UserSpec,
};
use crisp_records::{ContainerRecord, Entry, PodProgress, PodRecord, PodState};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::values::{
    container, container_id, full_container, full_progress, pod, progress, small_made, small_pod,
    states,
};

/// A text that is empty now and then.
fn text() -> BoxedStrategy<String> {
    prop_oneof![Just(String::new()), ".{1,6}"].boxed()
}

/// The value of an environment variable.
fn value() -> BoxedStrategy<OsString> {
    vec(any::<u8>(), 0..4).prop_map(OsString::from_vec).boxed()
}

fn cgroup_path() -> BoxedStrategy<CgroupPath> {
    text()
        .prop_filter_map("it leaves the root", |text| CgroupPath::parse(&text).ok())
        .boxed()
}

fn texts() -> BoxedStrategy<Vec<String>> {
    vec(text(), 0..3).boxed()
}

fn texts_by_text() -> BoxedStrategy<BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3).boxed()
}

fn resources() -> BoxedStrategy<Resources> {
    let numbers = [(); 6].map(|()| option::of(any::<i64>()));
    let list = || option::of(text());
    let hugepages = btree_map(text(), any::<u64>(), 0..2);
    (numbers, list(), list(), hugepages, texts_by_text())
        .prop_map(
            |(numbers, cpuset_cpus, cpuset_mems, hugepage_limits, unified)| Resources {
                cpu_period: numbers[0],
                cpu_quota: numbers[1],
                cpu_shares: numbers[2],
                memory_limit: numbers[3],
                memory_swap_limit: numbers[4],
                oom_score_adj: numbers[5],
                cpuset_cpus,
                cpuset_mems,
                hugepage_limits,
                unified,
            },
        )
        .boxed()
}

fn user() -> BoxedStrategy<UserSpec> {
    let id = || option::of(any::<i64>());
    let policy = select(vec![GroupsPolicy::Merge, GroupsPolicy::Strict]);
    (id(), text(), id(), vec(any::<i64>(), 0..3), policy)
        .prop_map(|(uid, name, gid, supplemental_groups, policy)| UserSpec {
            uid,
            name,
            gid,
            supplemental_groups,
            policy,
        })
        .boxed()
}

fn profile() -> BoxedStrategy<Profile> {
    prop_oneof![
        Just(Profile::Unspecified),
        Just(Profile::RuntimeDefault),
        Just(Profile::Unconfined),
        text().prop_map(Profile::Localhost),
    ]
    .boxed()
}

fn label() -> BoxedStrategy<SelinuxOptions> {
    [(); 4]
        .map(|()| text())
        .prop_map(|[user, role, kind, level]| SelinuxOptions {
            user,
            role,
            kind,
            level,
        })
        .boxed()
}

fn mode() -> BoxedStrategy<NamespaceMode> {
    prop_oneof![
        Just(NamespaceMode::Pod),
        Just(NamespaceMode::Container),
        Just(NamespaceMode::Node),
        any::<u8>().prop_map(|byte| NamespaceMode::Target(container_id(byte))),
    ]
    .boxed()
}

fn namespaces() -> BoxedStrategy<PodNamespaces> {
    let modes = [(); 3].map(|()| mode());
    (modes, option::of(ids()))
        .prop_map(|([network, pid, ipc], users)| PodNamespaces {
            network,
            pid,
            ipc,
            users,
        })
        .boxed()
}

fn ids() -> BoxedStrategy<IdMap> {
    let range = || {
        let numbers = (0..1000_u32, 0..1000_u32, 1..1000_u32);
        numbers.prop_map(|(container, host, length)| IdRange {
            container,
            host,
            length,
        })
    };
    (range(), range())
        .prop_map(|(users, groups)| IdMap::new(vec![users], vec![groups]).unwrap())
        .boxed()
}

fn port() -> BoxedStrategy<PortMapping> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (
        protocol,
        any::<u16>(),
        any::<u16>(),
        any::<Option<std::net::IpAddr>>(),
    )
        .prop_map(
            |(protocol, container_port, host_port, host_ip)| PortMapping {
                protocol,
                container_port,
                host_port,
                host_ip,
            },
        )
        .boxed()
}

fn pod_security() -> BoxedStrategy<PodSecurity> {
    let flags = any::<[bool; 2]>();
    (user(), flags, profile(), profile(), label())
        .prop_map(|(user, flags, seccomp, apparmor, selinux)| PodSecurity {
            user,
            privileged: flags[0],
            readonly_rootfs: flags[1],
            seccomp,
            apparmor,
            selinux,
        })
        .boxed()
}

fn pod_config() -> BoxedStrategy<PodConfig> {
    let name = ([(); 3].map(|()| text()), any::<u32>());
    let dns = [(); 3].map(|()| texts());
    let texts = [(); 3].map(|()| text());
    let maps = [(); 3].map(|()| texts_by_text());
    let limits = [(); 2].map(|()| option::of(resources()));
    let directory = option::of("/[a-z]{1,5}");
    let rest = (namespaces(), pod_security(), vec(port(), 0..3), directory);
    (name, dns, texts, maps, limits, rest)
        .prop_map(|(name, dns, texts, maps, limits, rest)| {
            let ([pod, uid, namespace], attempt) = name;
            let [servers, searches, options] = dns;
            let [hostname, cgroup_parent, runtime_handler] = texts;
            let [labels, annotations, sysctls] = maps;
            let [overhead, resources] = limits;
            let (namespaces, security, port_mappings, directory) = rest;
            PodConfig {
                name: PodName {
                    name: pod,
                    uid,
                    namespace,
                    attempt,
                },
                hostname,
                log_directory: directory.map(Into::into),
                dns: DnsConfig {
                    servers,
                    searches,
                    options,
                },
                port_mappings,
                labels,
                annotations,
                cgroup_parent,
                namespaces,
                security,
                sysctls,
                overhead,
                resources,
                runtime_handler,
            }
        })
        .boxed()
}

fn image() -> BoxedStrategy<ImageSpec> {
    ([(); 3].map(|()| text()), texts_by_text())
        .prop_map(
            |([image, user_specified_image, runtime_handler], annotations)| ImageSpec {
                image,
                user_specified_image,
                runtime_handler,
                annotations,
            },
        )
        .boxed()
}

fn mount() -> BoxedStrategy<Mount> {
    let source = prop_oneof![
        text().prop_map(|path| MountSource::Host(path.into())),
        (image(), text()).prop_map(|(image, sub_path)| MountSource::Image { image, sub_path }),
    ];
    let propagation = select(vec![
        Propagation::Private,
        Propagation::HostToContainer,
        Propagation::Bidirectional,
    ]);
    let access = select(vec![
        Access::ReadWrite,
        Access::ReadOnly,
        Access::RecursiveReadOnly,
    ]);
    let rest = (any::<bool>(), texts(), option::of(ids()));
    (text(), source, propagation, access, rest)
        .prop_map(|(path, source, propagation, access, rest)| {
            let (selinux_relabel, options, id_map) = rest;
            Mount {
                container_path: path.into(),
                source,
                propagation,
                access,
                selinux_relabel,
                options,
                id_map,
            }
        })
        .boxed()
}

fn security() -> BoxedStrategy<SecurityContext> {
    let capabilities = [(); 3].map(|()| texts());
    let profiles = [(); 2].map(|()| profile());
    let paths = [(); 2].map(|()| option::of(texts()));
    let flags = any::<[bool; 3]>();
    (user(), flags, capabilities, profiles, (label(), paths))
        .prop_map(|(user, flags, capabilities, profiles, (selinux, paths))| {
            let [add, drop, add_ambient] = capabilities;
            let [seccomp, apparmor] = profiles;
            let [masked_paths, readonly_paths] = paths;
            SecurityContext {
                user,
                privileged: flags[0],
                readonly_rootfs: flags[1],
                no_new_privs: flags[2],
                capabilities: Capabilities {
                    add,
                    drop,
                    add_ambient,
                },
                seccomp,
                apparmor,
                selinux,
                masked_paths,
                readonly_paths,
            }
        })
        .boxed()
}

fn container_config() -> BoxedStrategy<ContainerConfig> {
    let name = (text(), any::<u32>());
    let lists = [(); 3].map(|()| texts());
    let maps = [(); 2].map(|()| texts_by_text());
    let mounts = (vec(mount(), 0..3), vec(text(), 0..2));
    let flags = any::<[bool; 3]>();
    let rest = (vec((text(), value()), 0..3), resources(), namespaces());
    let signal = option::of(1..=64);
    let more = (image(), text(), text(), security(), signal);
    (name, lists, maps, mounts, flags, rest, more)
        .prop_map(|(name, lists, maps, mounts, flags, rest, more)| {
            let [command, args, cdi_devices] = lists;
            let [labels, annotations] = maps;
            let (env, resources, namespaces) = rest;
            let (image, working_dir, log_path, security, stop_signal) = more;
            let device = |path: String| Device {
                host_path: path.clone().into(),
                container_path: "/dev/x".into(),
                permissions: path,
            };
            ContainerConfig {
                name: ContainerName {
                    name: name.0,
                    attempt: name.1,
                },
                image,
                command,
                args,
                working_dir,
                env,
                mounts: mounts.0,
                devices: mounts.1.into_iter().map(device).collect(),
                cdi_devices,
                labels,
                annotations,
                log_path,
                stdin: flags[0],
                stdin_once: flags[1],
                tty: flags[2],
                resources,
                namespaces,
                security,
                volatile_mounts: Vec::new(),
                stop_signal,
            }
        })
        .boxed()
}

fn pod_entry() -> BoxedStrategy<Entry> {
    let owner = select(vec![Owner::Cri, Owner::Docker]);
    let level = option::of((0..SelinuxLevel::COUNT).prop_map(SelinuxLevel::numbered));
    (owner, pod_config(), any::<i64>(), cgroup_path(), level)
        .prop_map(|(owner, config, created_at, cgroup_path, selinux_level)| {
            pod(PodRecord {
                owner,
                config,
                created_at: Timestamp(created_at),
                cgroup_path,
                selinux_level,
                ..small_pod()
            })
        })
        .boxed()
}

fn progress_entry() -> BoxedStrategy<Entry> {
    let phase = select(vec![
        PodState::Booting,
        PodState::Ready,
        PodState::Stopping,
        PodState::NotReady,
        PodState::Removing,
    ]);
    (phase, any::<bool>(), text())
        .prop_map(|(phase, is_full, boot_id)| {
            let of = if is_full { full_progress } else { progress };
            Entry::Progress(PodProgress {
                boot_id,
                ..of(phase)
            })
        })
        .boxed()
}

fn container_entry() -> BoxedStrategy<Entry> {
    let made = select(vec![None, Some(small_made()), full_container(0).made]);
    (
        0..3_u8,
        container_config(),
        resources(),
        made,
        cgroup_path(),
    )
        .prop_map(|(byte, config, resources, made, cgroup_path)| {
            container(ContainerRecord {
                config,
                resources,
                made,
                cgroup_path,
                ..full_container(byte)
            })
        })
        .boxed()
}

/// Entries about one pod and three containers, in any order.
pub(crate) fn entries() -> BoxedStrategy<Vec<Entry>> {
    let id = || (0..3_u8).prop_map(container_id);
    let entry = prop_oneof![
        pod_entry(),
        progress_entry(),
        container_entry(),
        (id(), select(states())).prop_map(|(id, state)| Entry::State { id, state }),
        id().prop_map(|id| Entry::Gone { id }),
    ];
    vec(entry, 0..8).boxed()
}
