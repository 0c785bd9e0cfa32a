//! Settings that the owner of a cluster gives to the crispd in its nodes: parts of its configuration, and
//! how registries are reached. Both are copied into the cluster's directory, so that the files that were
//! named may go.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use toml::{Table, Value};

use crate::arguments::Up;
use crate::disk::{keep, make_dir};
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::home::ClusterDir;
use crate::manifests;
use crate::record::Record;

/// Settings that `up` was given, read and judged.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The configuration of the crispd in each node, where some of it was given.
    runtime: Option<String>,
    /// A directory of `HOST/hosts.toml`.
    registries: Option<&'a Path>,
}

impl<'a> Settings<'a> {
    /// Reads what was named; nothing is changed. The configuration is judged by crispd itself.
    pub fn read(up: &'a Up, ours: &Path) -> Result<Self> {
        let runtime = up.runtime_config.as_deref();
        let runtime = runtime.map(|file| runtime_config(file, ours)).transpose()?;
        let registries = up.registry_config.as_deref();
        if let Some(dir) = registries.filter(|dir| !dir.is_dir()) {
            let text = format!("--registry-config {}: it is no directory", dir.display());
            let remedy = "name one with HOST/hosts.toml, as crispd's flag of the same name takes";
            return Err(Failure::new(text).remedy(remedy));
        }
        Ok(Self {
            runtime,
            registries,
        })
    }

    /// Refuses another configuration for the crispd in nodes that are there.
    pub fn fit(&self, dir: &ClusterDir) -> Result<()> {
        let Some(wish) = &self.runtime else {
            return Ok(());
        };
        let path = dir.runtime();
        if *wish == runtime(dir)? {
            return Ok(());
        }
        let text = format!("{}: the cluster was made with this one", path.display());
        let delete = dir.command("delete");
        Err(Failure::new(text).remedy(format!(
            "leave --runtime-config out, or delete the cluster first with {delete}"
        )))
    }

    /// Keeps them in the cluster's directory, and brings what is about registries to its nodes.
    pub fn keep(&self, dir: &ClusterDir, record: &Record) -> Result<()> {
        if let Some(text) = &self.runtime {
            keep(&dir.runtime(), text.as_bytes())?;
        }
        let master = dir.registries();
        if let Some(named) = self.registries {
            replace(named, &master)?;
        }
        make_dir(&master)?;
        for (_, node) in record.workers() {
            // Also a `load` that was killed is over then.
            replace(&master, &dir.node(&node).join("certs.d"))?;
        }
        Ok(())
    }
}

/// The configuration of the crispd in each node of a cluster.
pub fn runtime(dir: &ClusterDir) -> Result<String> {
    let path = dir.runtime();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(manifests::crispd()),
        text => text.context(|| format!("{}: read it", path.display())),
    }
}

/// The configuration that a file and the needs of each node make.
fn runtime_config(file: &Path, ours: &Path) -> Result<String> {
    let step = || format!("--runtime-config {}", file.display());
    let text = fs::read_to_string(file).context(step)?;
    let output = crisp_sys::process::command(ours.join("crispd"))
        .args(["config", "check", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context(step)?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(told.trim().to_owned()).context(step);
    }
    let given: Table = toml::from_str(&text).context(step)?;
    let mut all: Table = toml::from_str(&manifests::crispd()).context(step)?;
    merge(&mut all, given, "")
        .context(step)
        .remedy(|| "leave this out: each node has its own".to_owned())?;
    toml::to_string(&all).context(step)
}

/// Adds tables to tables. A value that is there already is named, and nothing takes its place.
fn merge(all: &mut Table, given: Table, above: &str) -> std::result::Result<(), String> {
    for (key, value) in given {
        let name = format!("{above}{key}");
        match (all.get_mut(&key), value) {
            (None, value) => drop(all.insert(key, value)),
            (Some(Value::Table(there)), Value::Table(given)) => {
                merge(there, given, &format!("{name}."))?;
            }
            _ => return Err(name),
        }
    }
    Ok(())
}

/// Makes a directory have the files of another one, and no others. It may be a part of the other one, or
/// the other one itself. It is there at any moment, with the old files or the new ones, and nothing is
/// touched where they are the same.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let step = || format!("{}: replace it", to.display());
    let remove = |dir: &Path| {
        let removed = crisp_sys::file::remove_tree_if_there(dir);
        removed.context(|| format!("{}: remove it", dir.display()))
    };
    remove(&beside)?;
    if to.is_dir() && is_same(from, to).context(step)? {
        return Ok(());
    }
    copy(from, &beside)?;
    if !to.exists() {
        return fs::rename(&beside, to).context(step);
    }
    renameat_with(CWD, &beside, CWD, to, RenameFlags::EXCHANGE).context(step)?;
    remove(&beside)
}

/// Whether two directories have the same files with the same contents and rights.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let names = |dir: &Path| -> io::Result<BTreeSet<OsString>> {
        let entries = fs::read_dir(dir)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    };
    let all = names(one)?;
    if all != names(other)? {
        return Ok(false);
    }
    for name in all {
        let (one, other) = (one.join(&name), other.join(&name));
        let is_same = match (one.is_dir(), other.is_dir()) {
            (true, true) => is_same(&one, &other)?,
            (false, false) => {
                let rights = |path: &Path| Ok::<_, io::Error>(fs::metadata(path)?.permissions());
                rights(&one)? == rights(&other)? && fs::read(&one)? == fs::read(&other)?
            }
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    let step = || format!("{}: copy it to {}", from.display(), to.display());
    for entry in fs::read_dir(from).context(step)? {
        let name = entry.context(step)?.file_name();
        let (from, to) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy(&from, &to)?,
            false => {
                fs::copy(&from, &to).context(step)?;
                let copied = fs::File::open(&to).and_then(|file| file.sync_all());
                copied.context(step)?;
            }
        }
    }
    crisp_sys::file::sync_dir(to).context(step)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::disk::write;
    use crate::home::Home;

    fn merged(given: &str) -> std::result::Result<Table, String> {
        let mut all = toml::from_str(&manifests::crispd()).unwrap();
        merge(&mut all, toml::from_str(given).unwrap(), "")?;
        Ok(all)
    }

    #[test]
    fn what_is_a_nodes_own_is_refused_and_all_else_is_added() {
        let all = merged("[images]\nparallel_layers = 2\n[runtimes.x]\nkind = \"oci\"").unwrap();
        assert_eq!(all["images"]["parallel_layers"].as_integer(), Some(2));
        assert_eq!(
            all["images"]["registry_config"].as_str(),
            Some("/node/certs.d")
        );
        assert_eq!(all["runtimes"]["x"]["kind"].as_str(), Some("oci"));
        for (wrong, key) in [
            ("root = \"/x\"", "root"),
            ("[network]\nconf_dir = \"/x\"", "network.conf_dir"),
            ("[network]\nmode = \"builtin\"", "network.mode"),
            (
                "[images]\nregistry_config = \"/x\"",
                "images.registry_config",
            ),
        ] {
            assert_eq!(merged(wrong).unwrap_err(), key);
        }
    }

    #[test]
    fn registries_of_a_cluster_come_to_each_node_and_outlast_what_was_named() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(&place.path().join("home")).unwrap();
        let dir = home.cluster(&"x".parse().unwrap());
        let record = Record::new("x".parse().unwrap(), 2, 1, "/k".into());
        let named = place.path().join("certs.d");
        fs::create_dir_all(named.join("a.example:5000")).unwrap();
        write(&named.join("a.example:5000/hosts.toml"), b"a").unwrap();
        let keep = |registries| {
            let settings = Settings {
                runtime: None,
                registries,
            };
            settings.keep(&dir, &record).unwrap();
        };
        let of_node = dir.node("node-2").join("certs.d");
        keep(Some(named.as_path()));
        fs::create_dir(of_node.join("left.example")).unwrap();
        fs::remove_dir_all(&named).unwrap();
        keep(None);
        let kept = fs::read_to_string(of_node.join("a.example:5000/hosts.toml"));
        assert_eq!(kept.unwrap(), "a");
        assert!(!of_node.join("left.example").exists());
        // The cluster's own directory may be named as well.
        keep(Some(dir.registries().as_path()));
        assert!(of_node.join("a.example:5000/hosts.toml").is_file());
    }

    /// A pull of a running node may come at any moment.
    #[test]
    fn a_directory_of_registries_is_there_while_it_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let [one, two, to] = ["one", "two", "to"].map(|name| place.path().join(name));
        for from in [&one, &two] {
            make_dir(&from.join("a.example")).unwrap();
            write(
                &from.join("a.example/hosts.toml"),
                from.as_os_str().as_encoded_bytes(),
            )
            .unwrap();
        }
        replace(&one, &to).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut missed = 0;
                while !is_over.load(Ordering::Relaxed) {
                    missed += usize::from(!to.is_dir());
                }
                missed
            });
            for from in [&two, &one].into_iter().cycle().take(300) {
                replace(from, &to).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(reader.join().unwrap(), 0);
        });
        let inode = || fs::metadata(&to).unwrap().ino();
        let before = inode();
        replace(&two, &to).unwrap();
        let changed = inode();
        assert_ne!(changed, before);
        replace(&two, &to).unwrap();
        assert_eq!(inode(), changed, "nothing differs");
        assert!(!place.path().join("to.new").exists());
    }

    #[test]
    fn nodes_that_are_there_keep_their_configuration() {
        let place = tempfile::tempdir().unwrap();
        let dir = Home::at(place.path())
            .unwrap()
            .cluster(&"x".parse().unwrap());
        let told = |text: &str| Settings {
            runtime: Some(text.to_owned()),
            registries: None,
        };
        assert!(told(&manifests::crispd()).fit(&dir).is_ok());
        let refused = told("other").fit(&dir).unwrap_err().to_string();
        assert!(refused.contains("delete the cluster first"), "{refused}");
    }
}
