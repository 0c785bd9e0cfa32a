//! Network devices of the host that a container gets, `linux.netDevices`: each is moved into the
//! container's network namespace before anything runs there, renamed on the way, and has its
//! addresses again afterwards.
//!
//! The parent does all of it: over a network that is joined, the container's root may have no say.
//! A device goes where its namespace goes: the kernel gives back a physical one at the end of the
//! container, under its old name or another if that is taken, and removes a virtual one.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_sys::links::{Address, Links};
use crisp_sys::ns::{self, Kind};
use oci_spec::runtime::{LinuxNetDevice, Spec};

use crate::error::{Context, Error, Result};
use crate::namespaces::Namespaces;

const FIELD: &str = "linux.netDevices";

/// The devices that a container is to get.
#[derive(Debug)]
pub(crate) struct NetDevices {
    devices: Vec<Device>,
    /// The network that the container joins; without one it has its own.
    joined: Option<OwnedFd>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    /// Its name on the host.
    name: String,
    /// Its name in the container.
    inside: String,
}

/// Devices that a container has, for as long as its creation can fail.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    network: OwnedFd,
    moved: Vec<Moved<'a>>,
}

#[derive(Debug)]
struct Moved<'a> {
    device: &'a Device,
    /// Its name where it is now.
    inside: &'a str,
    addresses: Vec<Address>,
    was_up: bool,
}

impl NetDevices {
    pub(crate) fn of(spec: &Spec, namespaces: &Namespaces) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let asked = linux.and_then(|linux| linux.net_devices().as_ref());
        let devices = asked.into_iter().flatten().map(Device::of);
        let mut devices: Vec<_> = devices.collect::<Result<_>>()?;
        devices.sort();
        if !devices.is_empty() && namespaces.is_callers(Kind::Net) {
            return Err(Error::invalid(FIELD, "needs a network namespace"));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = devices.iter().find(|device| !names.insert(&device.inside)) {
            let why = format!("two devices with the name {:?}", twice.inside);
            return Err(Error::invalid(FIELD, why));
        }
        let joined = namespaces.joined(Kind::Net);
        let joined = joined.map(|network| network.try_clone_to_owned());
        let joined = joined.transpose().context(|| "copy a descriptor")?;
        Ok(Self { devices, joined })
    }

    /// In the parent: moves them to the network of a container's init, all or none.
    pub(crate) fn give(&self, init: i32) -> Result<Option<Given<'_>>> {
        if self.devices.is_empty() {
            return Ok(None);
        }
        let network = match &self.joined {
            Some(joined) => joined.try_clone(),
            None => File::open(format!("/proc/{init}/ns/net")).map(OwnedFd::from),
        };
        let mut given = Given {
            network: network.context(|| "open the container's network namespace")?,
            moved: Vec::new(),
        };
        for device in &self.devices {
            if let Err(error) = given.give(device) {
                given.take_back();
                return Err(error);
            }
        }
        Ok(Some(given))
    }
}

impl Device {
    fn of((name, asked): (&String, &LinuxNetDevice)) -> Result<Self> {
        let inside = asked.name().as_deref().filter(|inside| !inside.is_empty());
        let inside = inside.unwrap_or(name);
        for name in [name, inside] {
            if !is_name(name) {
                let why = format!("{name:?} is no name of a network device");
                return Err(Error::invalid(FIELD, why));
            }
        }
        Ok(Self {
            name: name.clone(),
            inside: inside.to_owned(),
        })
    }
}

/// As the kernel has it (IFNAMSIZ); a percent sign would make it choose a number.
fn is_name(name: &str) -> bool {
    let is_bad = |letter: char| "/:%".contains(letter) || letter.is_whitespace();
    (1..16).contains(&name.len()) && !matches!(name, "." | "..") && !name.contains(is_bad)
}

impl<'a> Given<'a> {
    fn give(&mut self, device: &'a Device) -> Result<()> {
        let step = |what: &str| format!("{what} the network device {}", device.name);
        let links = Links::open().context(|| "open a socket for network devices")?;
        let link = links.find(&device.name).context(|| step("find"))?;
        // Before it is down, which takes those of IPv6 away.
        let addresses = links.addresses(link);
        let addresses = addresses.context(|| step("read the addresses of"))?;
        links.set_up(link, false).context(|| step("take down"))?;
        let moved = links.move_to(link, self.network.as_fd(), &device.inside);
        let what = format!("move as {} into the container", device.inside);
        let moved = moved.context(|| step(&what));
        self.moved.push(Moved {
            device,
            // Of a device that cannot have its new name the kernel says so once it has moved.
            inside: moved.as_ref().map_or(&device.name, |()| &device.inside),
            addresses,
            was_up: link.is_up,
        });
        moved?;
        let moved = self.moved.last();
        in_network(self.network.as_fd(), |links| {
            moved.map_or(Ok(()), |moved| moved.bring_up(links))
        })
    }

    /// After a failure, which is the one to tell: they are the host's again, as they were.
    pub(crate) fn take_back(&self) {
        let Ok(host) = ns::open_own(Kind::Net) else {
            return;
        };
        for moved in self.moved.iter().rev() {
            let step = || format!("give back the network device {}", moved.device.name);
            // A device that never left is not found there.
            drop(in_network(self.network.as_fd(), |links| {
                let link = links.find(moved.inside).context(step)?;
                links
                    .move_to(link, host.as_fd(), &moved.device.name)
                    .context(step)
            }));
            let links = Links::open().context(step);
            drop(links.and_then(|links| moved.restore(&links)));
        }
    }
}

impl Moved<'_> {
    /// In the container's network.
    fn bring_up(&self, links: &Links) -> Result<()> {
        let inside = self.inside;
        let step = |what: &str| format!("{what} the network device {inside} of the container");
        let link = links.find(inside).context(|| step("find"))?;
        for address in &self.addresses {
            let added = links.add_address(link, address);
            added.context(|| step("give an address to"))?;
        }
        links.set_up(link, true).context(|| step("bring up"))
    }

    /// In the host's network, as it was there. Addresses that it did not lose are no error.
    fn restore(&self, links: &Links) -> Result<()> {
        let step = || format!("restore the network device {}", self.device.name);
        let link = links.find(&self.device.name).context(step)?;
        for address in &self.addresses {
            drop(links.add_address(link, address));
        }
        links.set_up(link, self.was_up).context(step)
    }
}

/// Does something in another network namespace.
fn in_network<T>(network: BorrowedFd<'_>, act: impl FnOnce(&Links) -> Result<T>) -> Result<T> {
    let own = ns::open_own(Kind::Net).context(|| "open the own network namespace")?;
    ns::enter(network, Kind::Net).context(|| "enter the container's network namespace")?;
    let opened = Links::open().context(|| "open a socket for network devices");
    let done = opened.and_then(|links| act(&links));
    ns::enter(own.as_fd(), Kind::Net).context(|| "return to the own network namespace")?;
    done
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(devices: &Value, namespaces: &Value) -> Result<NetDevices> {
        let linux = json!({ "netDevices": devices, "namespaces": namespaces });
        let spec = json!({ "ociVersion": "1.3.0", "linux": linux });
        let spec = serde_json::from_value(spec).unwrap();
        NetDevices::of(&spec, &Namespaces::of(&spec).unwrap())
    }

    #[test]
    fn names_are_the_kernels() {
        let own = json!([{ "type": "network" }]);
        for (name, good) in [
            ("eth0", true),
            ("a", true),
            ("123456789012345", true),
            ("1234567890123456", false),
            (".", false),
            ("a/b", false),
            ("a:1", false),
            ("a b", false),
            ("eth%d", false),
        ] {
            assert_eq!(read(&json!({ name: {} }), &own).is_ok(), good, "{name}");
            let renamed = json!({ "host0": { "name": name } });
            assert_eq!(read(&renamed, &own).is_ok(), good, "{name}");
        }
        let unnamed = read(&json!({ "host0": { "name": "" } }), &own).unwrap();
        assert_eq!(unnamed.devices[0].inside, "host0");
        let twice = json!({ "a": { "name": "c" }, "b": { "name": "c" } });
        let error = read(&twice, &own).unwrap_err().to_string();
        assert!(error.contains("two devices with the name \"c\""), "{error}");
    }

    #[test]
    fn devices_go_into_a_network_of_the_containers() {
        let error = read(&json!({ "a": {} }), &json!([])).unwrap_err();
        assert!(error.to_string().contains("linux.netDevices"), "{error}");
        assert!(read(&json!({}), &json!([])).unwrap().devices.is_empty());
    }
}
