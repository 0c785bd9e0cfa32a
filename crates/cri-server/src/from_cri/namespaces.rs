//! From CRI's namespace options to the namespaces that a pod or a container uses.

use cri::NamespaceMode as Wire;
use crisp_api::runtime::v1 as cri;
use crisp_model::{ContainerId, IdMap, NamespaceMode, PodNamespaces};

use super::check::{enumeration, some_text};
use super::{Result, id_map, invalid};

/// Namespaces of a pod; an option that is not set means the pod's own.
pub(crate) fn of_pod(at: &str, options: Option<cri::NamespaceOption>) -> Result<PodNamespaces> {
    let Some(options) = options else {
        return Ok(PodNamespaces::default());
    };
    let users = user_namespace(at, options.userns_options.as_ref())?;
    let namespaces = PodNamespaces {
        network: pod_or_node(&format!("{at}.network"), options.network)?,
        ipc: pod_or_node(&format!("{at}.ipc"), options.ipc)?,
        pid: match enumeration(&format!("{at}.pid"), options.pid)? {
            Wire::Pod => NamespaceMode::Pod,
            Wire::Container => NamespaceMode::Container,
            Wire::Node => NamespaceMode::Node,
            Wire::Target => {
                return invalid(
                    format!("{at}.pid"),
                    "TARGET is for containers, not for pods",
                );
            }
        },
        users,
    };
    let has_users = namespaces.users.is_some();
    for (name, mode) in [("pid", &namespaces.pid), ("ipc", &namespaces.ipc)] {
        refuse_nodes(&format!("{at}.{name}"), mode, has_users)?;
    }
    Ok(namespaces)
}

/// The root of a user namespace may not mount what shows a namespace of the node: procfs, the
/// message queues.
fn refuse_nodes(at: &str, mode: &NamespaceMode, has_users: bool) -> Result<()> {
    match *mode == NamespaceMode::Node && has_users {
        true => invalid(at, "NODE cannot be had with a user namespace of the pod"),
        false => Ok(()),
    }
}

/// Namespaces of a container: those of its pod, but for its PID namespace, which it may choose.
///
/// `find` looks up the container that the caller names as the owner of a PID namespace.
pub(crate) fn of_container(
    at: &str,
    options: Option<cri::NamespaceOption>,
    pod: &PodNamespaces,
    find: impl Fn(&str) -> Result<ContainerId>,
) -> Result<PodNamespaces> {
    let Some(options) = options else {
        return Ok(pod.clone());
    };
    if let Some(asked) = &options.userns_options {
        users_follow(at, asked, pod.users.as_ref())?;
    }
    follows(&format!("{at}.network"), options.network, &pod.network)?;
    follows(&format!("{at}.ipc"), options.ipc, &pod.ipc)?;
    let pid = match enumeration(&format!("{at}.pid"), options.pid)? {
        // POD means the namespace that the pod chose. A pod without one of its own has none to
        // share.
        Wire::Pod => pod.pid.clone(),
        Wire::Container => NamespaceMode::Container,
        Wire::Node => NamespaceMode::Node,
        Wire::Target => {
            let at = format!("{at}.target_id");
            NamespaceMode::Target(find(&some_text(&at, options.target_id)?)?)
        }
    };
    refuse_nodes(&format!("{at}.pid"), &pid, pod.users.is_some())?;
    Ok(PodNamespaces {
        network: pod.network.clone(),
        pid,
        ipc: pod.ipc.clone(),
        users: pod.users.clone(),
    })
}

fn pod_or_node(at: &str, mode: i32) -> Result<NamespaceMode> {
    match enumeration(at, mode)? {
        Wire::Pod => Ok(NamespaceMode::Pod),
        Wire::Node => Ok(NamespaceMode::Node),
        Wire::Container | Wire::Target => invalid(at, "must be POD or NODE"),
    }
}

/// POD is what an unset field says too, so a container of a pod on the node's namespace may say it.
fn follows(at: &str, mode: i32, pod: &NamespaceMode) -> Result<()> {
    let mode = pod_or_node(at, mode)?;
    if mode == NamespaceMode::Node && *pod != NamespaceMode::Node {
        return invalid(at, "NODE needs a pod with NODE");
    }
    Ok(())
}

fn user_namespace(at: &str, options: Option<&cri::UserNamespace>) -> Result<Option<IdMap>> {
    let Some(options) = options else {
        return Ok(None);
    };
    let at = format!("{at}.userns_options");
    let (uids, gids) = (&options.uids, &options.gids);
    match enumeration(&format!("{at}.mode"), options.mode)? {
        Wire::Node if uids.is_empty() && gids.is_empty() => Ok(None),
        Wire::Node => invalid(at, "NODE has no id mappings"),
        Wire::Pod => {
            let map = id_map::id_map((uids, gids)).and_then(IdMap::with_root);
            map.map(Some).or_else(|wrong| {
                let at = format!("{at}.{}", wrong.kind);
                invalid(at, wrong.why)
            })
        }
        Wire::Container | Wire::Target => invalid(format!("{at}.mode"), "must be POD or NODE"),
    }
}

/// A container is in its pod's user namespace, and may say so.
fn users_follow(at: &str, asked: &cri::UserNamespace, pod: Option<&IdMap>) -> Result<()> {
    if user_namespace(at, Some(asked))?.as_ref() == pod {
        return Ok(());
    }
    let at = format!("{at}.userns_options");
    match pod {
        Some(_) => invalid(
            at,
            "is not the pod's user namespace, with the same id mappings",
        ),
        None => invalid(at, "POD needs a pod with a user namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_id: u32, host_id: u32, length: u32) -> cri::IdMapping {
        cri::IdMapping {
            host_id,
            container_id,
            length,
        }
    }

    fn asked(host: u32) -> cri::NamespaceOption {
        cri::NamespaceOption {
            pid: Wire::Container.into(),
            userns_options: Some(cri::UserNamespace {
                mode: Wire::Pod.into(),
                uids: vec![mapping(0, host, 65_536)],
                gids: vec![mapping(0, host, 65_536)],
            }),
            ..Default::default()
        }
    }

    /// The field that is refused.
    fn field<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        let text = outcome.unwrap_err().to_string();
        text.split(':').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_container_has_the_ids_of_its_pod() {
        let none = |_: &str| invalid("target", "there is none");
        let pod = of_pod("at", Some(asked(100_000))).unwrap();
        let map = pod.users.as_ref().unwrap();
        assert_eq!((map.user(1), map.group(65_536)), (Some(100_001), None));
        let silent = cri::NamespaceOption {
            userns_options: None,
            ..asked(0)
        };
        for same in [silent, asked(100_000)] {
            let container = of_container("at", Some(same), &pod, none).unwrap();
            assert_eq!(container.users, pod.users);
        }
        let mut host = asked(100_000);
        host.userns_options = Some(cri::UserNamespace {
            mode: Wire::Node.into(),
            ..Default::default()
        });
        let plain = of_pod("at", Some(host.clone())).unwrap();
        assert_eq!(plain.users, None);
        for other in [asked(100_001), host] {
            let refused = of_container("at", Some(other), &pod, none);
            assert_eq!(field(refused), "at.userns_options");
        }
        let refused = of_container("at", Some(asked(100_000)), &plain, none);
        assert_eq!(field(refused), "at.userns_options");
        let mut nodes = asked(100_000);
        nodes.pid = Wire::Node.into();
        let refused = of_container("at", Some(nodes.clone()), &pod, none);
        assert_eq!(field(refused), "at.pid");
        assert_eq!(field(of_pod("at", Some(nodes))), "at.pid");
    }

    #[test]
    fn odd_mappings_are_named() {
        type Spoil = fn(&mut cri::UserNamespace);
        let cases: [(&str, Spoil); 6] = [
            ("at.userns_options.uids", |users| users.uids.clear()),
            ("at.userns_options.gids", |users| users.gids[0].length = 0),
            ("at.userns_options.gids", |users| {
                users.gids[0].container_id = 1;
            }),
            ("at.userns_options.uids", |users| {
                users.uids.push(mapping(70_000, 100_000, 1));
            }),
            ("at.userns_options.mode", |users| {
                users.mode = Wire::Target.into();
            }),
            ("at.userns_options", |users| users.mode = Wire::Node.into()),
        ];
        for (want, spoil) in cases {
            let mut options = asked(100_000);
            spoil(options.userns_options.as_mut().unwrap());
            assert_eq!(field(of_pod("at", Some(options))), want);
        }
    }
}
