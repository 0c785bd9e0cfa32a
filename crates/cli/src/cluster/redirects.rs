//! While images are loaded, nodes look for them at this program: their settings about registries give way
//! to others, and are the owner's again afterwards.

use std::path::PathBuf;

use crate::disk::write;
use crate::failure::{Context as _, Result};
use crate::home::ClusterDir;
use crate::record::Record;
use crate::settings;

/// Settings of nodes about registries, and those of the cluster's owner.
#[derive(Debug)]
struct Places {
    /// It is there as long as they are not the owner's.
    mark: PathBuf,
    owners: PathBuf,
    nodes: Vec<PathBuf>,
}

impl Places {
    fn of(dir: &ClusterDir, record: &Record) -> Self {
        let nodes = record
            .workers()
            .map(|(_, node)| dir.node(&node).join("certs.d"));
        Self {
            mark: dir.path().join("loading"),
            owners: dir.registries(),
            nodes: nodes.collect(),
        }
    }

    fn put_back(&self) -> Result<()> {
        for node in &self.nodes {
            settings::replace(&self.owners, node)?;
        }
        crisp_sys::file::remove_if_there(&self.mark)
            .context(|| format!("{}: remove it", self.mark.display()))
    }
}

/// Settings of nodes that give way to the owner's with the value.
#[derive(Debug)]
pub struct Redirects(Places);

impl Redirects {
    /// Notes that they are about to give way.
    pub fn begin(dir: &ClusterDir, record: &Record) -> Result<Self> {
        let places = Places::of(dir, record);
        write(&places.mark, b"")?;
        Ok(Self(places))
    }

    /// The directories of nodes with settings about registries.
    pub fn nodes(&self) -> &[PathBuf] {
        &self.0.nodes
    }
}

impl Drop for Redirects {
    fn drop(&mut self) {
        if let Err(failure) = self.0.put_back() {
            crate::progress::say(format_args!(
                "crisp: {failure}; the next command that changes the cluster does it again"
            ));
        }
    }
}

/// Puts back what a `load` that was killed has left.
pub fn end_former(dir: &ClusterDir, record: &Record) -> Result<()> {
    let places = Places::of(dir, record);
    match places.mark.exists() {
        true => places.put_back(),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::make_dir;
    use crate::home::Home;

    #[test]
    fn settings_of_nodes_are_the_owners_again_whether_it_ends_or_is_killed() {
        let place = tempfile::tempdir().unwrap();
        let name = "x".parse().unwrap();
        let dir = Home::at(place.path()).unwrap().cluster(&name);
        let record = Record::new(name, 2, 1, "/k".into());
        make_dir(&dir.registries().join("a.example")).unwrap();
        let hosts = dir.node("node-2").join("certs.d");
        let redirect = || make_dir(&hosts.join("b.example"));
        let begin = || Redirects::begin(&dir, &record).unwrap();
        let is_owners = || hosts.join("a.example").is_dir() && !hosts.join("b.example").exists();
        let ends = begin();
        redirect().unwrap();
        assert!(!is_owners());
        drop(ends);
        assert!(is_owners());
        std::mem::forget(begin());
        redirect().unwrap();
        end_former(&dir, &record).unwrap();
        assert!(is_owners() && !dir.path().join("loading").exists());
        redirect().unwrap();
        end_former(&dir, &record).unwrap();
        assert!(!is_owners(), "no load was under way");
    }
}
