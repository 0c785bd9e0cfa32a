//! Sysctls of a spec: only those of a namespace that the container does not share with the host.

use crisp_sys::ns::Kind;
use oci_spec::runtime::Spec;

use crate::error::{Context, Error, Result};
use crate::namespaces::Namespaces;
use crate::procfs::Procfs;

/// Refuses sysctls that would change the host.
pub(crate) fn check(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for (key, value) in all(spec) {
        let field = || field_of(key);
        let path = checked_path(key)?;
        if value.contains(['\0', '\n']) {
            return Err(Error::invalid(
                field(),
                "the value holds a NUL or a newline",
            ));
        }
        let Some(kind) = namespace(&path) else {
            return Err(Error::invalid(field(), "belongs to no namespace"));
        };
        if let Some(field) = named_beside(spec, &path, value) {
            let why = format!("the spec sets {field} already");
            return Err(Error::invalid(field_of(key), why));
        }
        if namespaces.is_callers(kind) {
            let why = format!("the container has the host's {kind:?} namespace");
            return Err(Error::invalid(field(), why));
        }
    }
    Ok(())
}

/// The path of a sysctl below `/proc/sys`, from which no part of it leads away.
pub(crate) fn checked_path(key: &str) -> Result<String> {
    let path = path(key);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::invalid(field_of(key), "is no name of a sysctl"));
    }
    Ok(path)
}

fn field_of(key: &str) -> String {
    format!("linux.sysctl[{key:?}]")
}

/// The field of the spec that sets what a sysctl sets, to something else.
fn named_beside(spec: &Spec, path: &str, value: &str) -> Option<&'static str> {
    let (field, name) = match path {
        "kernel/hostname" => ("hostname", spec.hostname()),
        "kernel/domainname" => ("domainname", spec.domainname()),
        _ => return None,
    };
    name.as_ref()
        .filter(|name| !name.is_empty() && *name != value)
        .map(|_| field)
}

/// In the child: writes them, through a procfs of our own.
pub(crate) fn set(spec: &Spec) -> Result<()> {
    let mut procfs = None;
    for (key, value) in all(spec) {
        let procfs = match &mut procfs {
            Some(procfs) => procfs,
            None => procfs.insert(Procfs::open().context(|| "mount a procfs")?),
        };
        procfs
            .write(&format!("sys/{}", path(key)), value)
            .context(|| format!("set the sysctl {key}={value}"))?;
    }
    Ok(())
}

fn all(spec: &Spec) -> impl Iterator<Item = (&String, &String)> {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.sysctl().as_ref())
        .into_iter()
        .flatten()
}

/// The namespace that a sysctl belongs to.
fn namespace(path: &str) -> Option<Kind> {
    match path {
        "kernel/hostname" | "kernel/domainname" => Some(Kind::Uts),
        "kernel/msgmax"
        | "kernel/msgmnb"
        | "kernel/msgmni"
        | "kernel/sem"
        | "kernel/shmall"
        | "kernel/shmmax"
        | "kernel/shmmni"
        | "kernel/shm_rmid_forced" => Some(Kind::Ipc),
        _ if path.starts_with("fs/mqueue/") => Some(Kind::Ipc),
        _ if path.starts_with("net/") => Some(Kind::Net),
        _ => None,
    }
}

/// `a.b` and `a/b` name the same; with dots as separators a `/` is a dot within a part.
fn path(key: &str) -> String {
    let dots = key
        .find(['.', '/'])
        .is_some_and(|at| key[at..].starts_with('.'));
    if !dots {
        return key.to_owned();
    }
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_two_spellings() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/x"), "net/ipv4/conf/eth0.1/x");
        assert_eq!(path("net.ipv4.conf.eth0/1.x"), "net/ipv4/conf/eth0.1/x");
    }

    #[test]
    fn only_what_has_a_namespace_is_known() {
        assert_eq!(namespace("net/core/somaxconn"), Some(Kind::Net));
        assert_eq!(namespace("kernel/shmmax"), Some(Kind::Ipc));
        assert_eq!(namespace("fs/mqueue/msg_max"), Some(Kind::Ipc));
        for host in [
            "kernel/core_pattern",
            "vm/swappiness",
            "kernel/shmmaxx",
            "network/x",
        ] {
            assert_eq!(namespace(host), None, "{host}");
        }
    }
}
