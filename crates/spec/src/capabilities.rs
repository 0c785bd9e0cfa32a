//! Which capabilities(7) a container's processes have.

use std::collections::BTreeSet;
use std::str::FromStr;

use crisp_model::{Field, SecurityContext};
use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::{Error, HostFacts, Result};

/// The capabilities of containers that ask for no others: the set that users of containerd and
/// Docker know.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities of a container.
#[derive(Debug)]
pub(crate) struct Granted {
    /// As `CAP_SYS_ADMIN`.
    pub(crate) names: BTreeSet<String>,
    ambient: BTreeSet<String>,
}

/// `ALL` among the adds or drops makes the set that the others change: `drop: [ALL], add: [X]`
/// leaves X alone, `add: [ALL], drop: [X]` all but X. Of one that is both added and dropped,
/// the drop counts, as with containerd.
pub(crate) fn grant(context: &SecurityContext, host: &HostFacts) -> Result<Granted> {
    let changes = &context.capabilities;
    let (add, all_added) = parse(Field::AddedCapabilities, &changes.add)?;
    let (drop, all_dropped) = parse(Field::DroppedCapabilities, &changes.drop)?;
    let (ambient, all_ambient) = parse(Field::AmbientCapabilities, &changes.add_ambient)?;
    if context.privileged {
        let names = host.capabilities.clone();
        return Ok(Granted { names, ambient });
    }
    let mut names = match (all_added, all_dropped) {
        (_, true) => BTreeSet::new(),
        (true, false) => host.capabilities.clone(),
        (false, false) => DEFAULT.iter().map(|name| (*name).to_owned()).collect(),
    };
    names.extend(add);
    let mut ambient = if all_ambient { names.clone() } else { ambient };
    // The kernel takes as ambient only what is permitted as well (capabilities(7)).
    names.extend(ambient.iter().cloned());
    for set in [&mut names, &mut ambient] {
        set.retain(|name| !drop.contains(name));
    }
    Ok(Granted { names, ambient })
}

/// Names with or without their prefix, in any case; and whether `ALL` is among them.
fn parse(list: Field, names: &[String]) -> Result<(BTreeSet<String>, bool)> {
    let mut known = BTreeSet::new();
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            all = true;
        } else if Capability::from_str(bare).is_ok() {
            known.insert(format!("CAP_{bare}"));
        } else {
            let why = format!("{name:?} is not a capability that capabilities(7) lists");
            return Err(Error::invalid(list, why));
        }
    }
    Ok((known, all))
}

impl Granted {
    /// The sets of a process. Inheritable holds nothing but what is ambient: files with
    /// inheritable capabilities must not hand out more.
    pub(crate) fn sets(&self) -> LinuxCapabilities {
        let set = |names: &BTreeSet<String>| {
            let bare = names.iter().filter_map(|name| name.strip_prefix("CAP_"));
            Some(
                bare.filter_map(|name| Capability::from_str(name).ok())
                    .collect(),
            )
        };
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(set(&self.names));
        sets.set_permitted(set(&self.names));
        sets.set_effective(set(&self.names));
        sets.set_inheritable(set(&self.ambient));
        sets.set_ambient(set(&self.ambient));
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisp_model::Capabilities;

    fn granted(change: fn(&mut SecurityContext)) -> Result<Granted> {
        let host = crate::compose::tests::host();
        let mut context = SecurityContext::default();
        change(&mut context);
        grant(&context, &host)
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The capabilities that `add` and `drop` lead to.
    fn changed(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let host = crate::compose::tests::host();
        let context = SecurityContext {
            capabilities: Capabilities {
                add: texts(add),
                drop: texts(drop),
                ..Capabilities::default()
            },
            ..SecurityContext::default()
        };
        grant(&context, &host).unwrap().names
    }

    #[test]
    fn drops_win_over_adds_and_all_is_where_both_begin() {
        let table: [(&[&str], &[&str], &[&str]); 7] = [
            (
                &["net_admin", "CAP_CHOWN"],
                &["ALL"],
                &["CAP_CHOWN", "CAP_NET_ADMIN"],
            ),
            (&[], &["all"], &[]),
            (&["ALL"], &["ALL"], &[]),
            (&["ALL", "CHOWN"], &["all"], &["CAP_CHOWN"]),
            (&["CHOWN"], &["ALL", "CHOWN"], &[]),
            (&["NET_ADMIN"], &["NET_ADMIN"], &DEFAULT),
            (&["CHOWN"], &[], &DEFAULT),
        ];
        for (add, drop, expected) in table {
            let names = changed(add, drop);
            assert!(names.iter().eq(expected), "+{add:?} -{drop:?}: {names:?}");
        }
        let all = changed(&["ALL"], &[]);
        let mut but_one = changed(&["ALL", "SYS_ADMIN"], &["SYS_ADMIN"]);
        assert!(!but_one.contains("CAP_SYS_ADMIN"));
        but_one.insert("CAP_SYS_ADMIN".to_owned());
        assert_eq!(all, but_one);
        assert!(!changed(&["CHOWN"], &["CHOWN"]).contains("CAP_CHOWN"));
        assert_eq!(granted(|c| c.privileged = true).unwrap().names.len(), 41);
    }

    #[test]
    fn what_is_dropped_is_not_ambient_either() {
        let granted = granted(|c| {
            c.capabilities.add_ambient = texts(&["NET_ADMIN", "CHOWN"]);
            c.capabilities.drop = texts(&["CHOWN"]);
        });
        let granted = granted.unwrap();
        assert_eq!(Vec::from_iter(&granted.ambient), ["CAP_NET_ADMIN"]);
        assert!(!granted.names.contains("CAP_CHOWN"));
    }

    #[test]
    fn nothing_is_inherited_but_what_is_ambient() {
        let sets = granted(|_| {}).unwrap().sets();
        assert!(sets.inheritable().as_ref().unwrap().is_empty());
        let ambient = granted(|c| c.capabilities.add_ambient = texts(&["NET_ADMIN"])).unwrap();
        let sets = ambient.sets();
        assert_eq!(sets.inheritable(), sets.ambient());
        assert!(
            sets.permitted()
                .as_ref()
                .unwrap()
                .contains(&Capability::NetAdmin)
        );
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["", "CAP_", "CAP_WHAT", "CAP_CAP_CHOWN", "CHOWN "] {
            let mut context = SecurityContext::default();
            context.capabilities.add = vec![name.to_owned()];
            let refused = grant(&context, &crate::compose::tests::host());
            assert!(refused.is_err(), "{name:?}");
        }
    }
}
