//! Sysctls of a pod: only those whose effect ends at the pod's own namespaces.

use std::io;
use std::path::PathBuf;

use crisp_model::{Field, NamespaceMode, PodConfig};
use crisp_sys::ns::Kind;

use crate::error::{Error, Result};

/// A sysctl that may be set, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) kind: Kind,
    path: PathBuf,
    value: String,
}

/// Checks every sysctl of a pod.
pub(crate) fn check_all(config: &PodConfig) -> Result<Vec<Sysctl>> {
    let each = config.sysctls.iter();
    each.map(|(name, value)| check(config, name, value))
        .collect()
}

fn check(config: &PodConfig, name: &str, value: &str) -> Result<Sysctl> {
    let refuse = |why: &str| Error::invalid(Field::Sysctl(name.to_owned()), why);
    let dotted = dotted(name).ok_or_else(|| refuse("not the name of a sysctl"))?;
    if value.contains(['\n', '\0']) {
        return Err(refuse("the value has more than one line"));
    }
    let kind =
        namespace(&dotted).ok_or_else(|| refuse("not confined to a namespace of the pod"))?;
    let shared = match kind {
        Kind::Ipc => config.namespaces.ipc == NamespaceMode::Node,
        _ => config.namespaces.network == NamespaceMode::Node,
    };
    if shared {
        return Err(refuse("the pod shares that namespace with the node"));
    }
    let parts = dotted.split('.').map(|part| part.replace('/', "."));
    Ok(Sysctl {
        kind,
        path: std::iter::once("/proc/sys".to_owned())
            .chain(parts)
            .collect(),
        value: value.to_owned(),
    })
}

/// The name with dots between its parts and slashes within them, as sysctl(8) has it: whichever
/// separator comes first separates.
fn dotted(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-./@:".contains(c);
    let swapped: String = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => {
            let swap = |c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            };
            name.chars().map(swap).collect()
        }
        _ => name.to_owned(),
    };
    let whole = swapped
        .split('.')
        .all(|part| !part.is_empty() && part != "/" && part != "//");
    (whole && swapped.contains('.') && name.chars().all(allowed)).then_some(swapped)
}

/// The namespace that confines a sysctl (namespaces(7), ipc_namespaces(7)).
fn namespace(dotted: &str) -> Option<Kind> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.") {
        Some(Kind::Ipc)
    } else if dotted.starts_with("net.") {
        Some(Kind::Net)
    } else if dotted == "kernel.domainname" {
        Some(Kind::Uts)
    } else {
        None
    }
}

impl Sysctl {
    /// Sets it for the namespaces of the calling thread.
    pub(crate) fn set(&self) -> io::Result<()> {
        let set = std::fs::OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|mut file| io::Write::write_all(&mut file, self.value.as_bytes()));
        set.map_err(|error| {
            let text = format!("set {} to {:?}: {error}", self.path.display(), self.value);
            io::Error::new(error.kind(), text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_confined_sysctls_pass() {
        let path = |name: &str| dotted(name).filter(|name| namespace(name).is_some());
        for good in [
            "net.ipv4.ip_forward",
            "net/ipv4/ip_forward",
            "net.ipv4.conf.eth0/100.forwarding",
            "kernel.shm_rmid_forced",
            "fs.mqueue.msg_max",
        ] {
            assert!(path(good).is_some(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced=1+kernel.core_pattern",
            "kernel.shm_rmid_forced\nkernel.core_pattern",
            "net.../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.//.x",
            "net",
            "",
            "vm.swappiness",
        ] {
            assert!(path(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn slashes_and_dots_name_the_same_file() {
        assert_eq!(
            dotted("net/ipv4/conf/eth0.100/forwarding").unwrap(),
            "net.ipv4.conf.eth0/100.forwarding"
        );
    }
}
