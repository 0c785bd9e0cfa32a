//! Records on disk of which owner has which address.
//!
//! An address in use is a symbolic link named after it whose target is its owner
//! (`CONTAINER/IFNAME`). One system call takes the address exclusively and writes the owner's name:
//! an address without an owner cannot exist, whenever a daemon is killed. Nothing is cached, so
//! daemon and plugin program may share a directory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::owner::spread;
use crate::error::{Context, Error, Result};
use crate::subnet::Subnet;

/// The addresses of one bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Addresses {
    dir: PathBuf,
}

impl Addresses {
    /// Opens, or makes, the directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        crisp_sys::file::make_private_dirs(dir)
            .context(|| format!("make address directory {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Takes one address; true when the owner has it now.
    fn claim(&self, address: IpAddr, owner: &str) -> Result<bool> {
        let path = self.dir.join(address.to_string());
        match std::os::unix::fs::symlink(owner, &path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.owner_at(&path).as_deref() == Some(owner))
            }
            failed => failed
                .map(|()| false)
                .context(|| format!("record address {}", path.display())),
        }
    }

    fn owner_at(&self, path: &Path) -> Option<String> {
        let target = fs::read_link(path).ok()?;
        target.into_os_string().into_string().ok()
    }

    /// Takes one address of a subnet for an owner: the wanted one, or any.
    pub(crate) fn take(
        &self,
        subnet: Subnet,
        owner: &str,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr> {
        if let Some(address) = wanted {
            if !subnet.is_for_pods(address) {
                let why = format!("not a pod address of {subnet}");
                return Err(Error::invalid(format!("address {address}"), why));
            }
            if self.claim(address, owner)? {
                return Ok(address);
            }
            let holder = self.owner_at(&self.dir.join(address.to_string()));
            let why = format!("taken by {}", holder.unwrap_or_default());
            return Err(Error::invalid(format!("address {address}"), why));
        }
        for address in subnet.candidates(spread(owner)) {
            if self.claim(address, owner)? {
                return Ok(address);
            }
        }
        Err(Error::Exhausted {
            subnet: subnet.to_string(),
        })
    }

    /// Every address in use with its owner.
    pub(crate) fn all(&self) -> Result<Vec<(IpAddr, String)>> {
        let step = || format!("list addresses in {}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).context(step)? {
            let entry = entry.context(step)?;
            let address = entry.file_name().to_str().and_then(|n| n.parse().ok());
            if let (Some(address), Some(owner)) = (address, self.owner_at(&entry.path())) {
                found.push((address, owner));
            }
        }
        Ok(found)
    }

    /// The addresses of an owner.
    pub(crate) fn of(&self, owner: &str) -> Result<Vec<IpAddr>> {
        let mut all = self.all()?;
        all.retain(|(_, o)| o == owner);
        Ok(all.into_iter().map(|(address, _)| address).collect())
    }

    /// All owners.
    pub(crate) fn owners(&self) -> Result<BTreeSet<String>> {
        Ok(self.all()?.into_iter().map(|(_, owner)| owner).collect())
    }

    /// Releases all addresses of an owner.
    pub(crate) fn release(&self, owner: &str) -> Result<()> {
        for address in self.of(owner)? {
            let path = self.dir.join(address.to_string());
            crisp_sys::file::remove_if_there(&path)
                .context(|| format!("release address {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (tempfile::TempDir, Addresses) {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses::open(&dir.path().join("a")).unwrap();
        (dir, addresses)
    }

    #[test]
    fn a_subnet_is_given_out_once_and_whole() {
        let (_dir, addresses) = addresses();
        let subnet = Subnet::parse("10.0.0.0/28").unwrap();
        let mut taken = BTreeSet::new();
        for pod in 0..13 {
            let owner = format!("pod{pod}/eth0");
            let address = addresses.take(subnet, &owner, None).unwrap();
            assert!(taken.insert(address), "{address} twice");
            assert_eq!(addresses.take(subnet, &owner, None).unwrap(), address);
        }
        let full = addresses.take(subnet, "one-more/eth0", None).unwrap_err();
        assert!(matches!(full, Error::Exhausted { .. }), "{full}");
        addresses.release("pod7/eth0").unwrap();
        addresses.release("pod7/eth0").unwrap();
        assert_eq!(addresses.owners().unwrap().len(), 12);
        addresses.take(subnet, "one-more/eth0", None).unwrap();
    }

    #[test]
    fn a_wanted_address_is_given_or_refused() {
        let (_dir, addresses) = addresses();
        let subnet = Subnet::parse("fd00::/64").unwrap();
        let wanted: IpAddr = "fd00::7".parse().unwrap();
        assert_eq!(
            addresses.take(subnet, "a/eth0", Some(wanted)).unwrap(),
            wanted
        );
        let taken = addresses.take(subnet, "b/eth0", Some(wanted)).unwrap_err();
        assert!(taken.to_string().contains("taken by a/eth0"), "{taken}");
        let foreign = "fd01::7".parse().unwrap();
        assert!(addresses.take(subnet, "b/eth0", Some(foreign)).is_err());
        assert_eq!(addresses.of("a/eth0").unwrap(), [wanted]);
    }
}
