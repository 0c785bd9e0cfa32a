//! The things that a container takes from the host beside its cgroup, before anything runs in it:
//! network devices, and a share of a processor's cache.

use oci_spec::runtime::Spec;

use crate::error::Result;
use crate::intel_rdt::Group;
use crate::namespaces::Namespaces;
use crate::net_devices::{Given, NetDevices};

/// All that a spec asks for.
pub(crate) struct FromHost {
    net_devices: NetDevices,
    group: Option<Group>,
}

/// All that a container has, for as long as its creation can fail.
pub(crate) struct Taken<'a> {
    net_devices: Option<Given<'a>>,
    group: Option<&'a Group>,
}

impl FromHost {
    pub(crate) fn of(spec: &Spec, namespaces: &Namespaces, id: &str) -> Result<Self> {
        Ok(Self {
            net_devices: NetDevices::of(spec, namespaces)?,
            group: Group::of(spec, id)?,
        })
    }

    /// In the parent: gives it to a container's init, all or nothing.
    pub(crate) fn give(&self, init: i32) -> Result<Taken<'_>> {
        let taken = Taken {
            net_devices: self.net_devices.give(init)?,
            group: self.group.as_ref(),
        };
        let entered = taken.group.map_or(Ok(()), |group| group.enter(init));
        entered.inspect_err(|_| taken.give_back())?;
        Ok(taken)
    }
}

impl Taken<'_> {
    /// After a failure, which is the one to tell.
    pub(crate) fn give_back(&self) {
        if let Some(given) = &self.net_devices {
            given.take_back();
        }
        if let Some(group) = self.group {
            // A delete tries again.
            drop(group.leave());
        }
    }
}
