//! Settings of this machine that kubelets in nodes change: a kernel has one value of each for all that
//! runs on it. Their values are noted before the first node of any home, and come back after the last one.
//!
//! ```text
//! /run/crisp-clusters/lock          held while the rest is read and changed
//! /run/crisp-clusters/sysctls.json  the boot, and the values before the first node
//! /run/crisp-clusters/homes/HASH    the path of a home that has, or had, nodes since then
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::disk::{entries, make_dir, put, write};
use crate::failure::{Context as _, Result};
use crate::home::Home;
use crate::lock::{self, Lock};

/// The values that a kubelet sets, by the path below `/proc/sys` (setupKernelTunables).
const KUBELETS: [(&str, &str); 6] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

type Values = BTreeMap<String, String>;

/// The values of before, and the boot that they are of: another boot begins with those of its own.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    boot: String,
    values: Values,
}

/// The one note of a machine.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    sysctls: PathBuf,
    boot: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let boot = crisp_sys::boot::boot_id();
        Ok(Self {
            dir: "/run/crisp-clusters".into(),
            sysctls: "/proc/sys".into(),
            boot: boot.context(|| "this machine: learn which boot it is".to_owned())?,
        })
    }

    /// Notes the settings for a home that is about to have nodes, unless nodes may have changed them already.
    pub fn note(&self, home: &Home) -> Result<()> {
        let _alone = self.lock()?;
        let noted = self.read()?;
        if noted.is_none() {
            // These are of another boot, whose nodes are gone.
            let homes = self.dir.join("homes");
            crisp_sys::file::remove_tree_if_there(&homes)
                .context(|| format!("{}: remove it", homes.display()))?;
        }
        let is_first = noted.is_none() || self.homes()?.is_empty();
        if is_first {
            let note = Note {
                boot: self.boot.clone(),
                values: self.now(),
            };
            let path = self.path();
            let text = serde_json::to_vec(&note)
                .context(|| format!("{}: note settings of the machine", path.display()))?;
            write(&path, &text)?;
        }
        make_dir(&self.dir.join("homes"))?;
        write(&self.entry(home.path()), home.path().as_os_str().as_bytes())
    }

    /// Whether a home has nodes for the first time since this boot.
    pub fn is_new(&self, home: &Home) -> Result<bool> {
        if !self.dir.exists() {
            return Ok(true);
        }
        let _alone = self.lock()?;
        Ok(self.read()?.is_none() || !self.entry(home.path()).exists())
    }

    /// Other homes that have nodes, or had, since this boot.
    pub fn others(&self, home: &Home) -> Result<Vec<PathBuf>> {
        // Without one the lock would be all that is there, and stay.
        if !self.path().exists() {
            return Ok(Vec::new());
        }
        let _alone = self.lock()?;
        if self.read()?.is_none() {
            return Ok(Vec::new());
        }
        let mut homes = self.homes()?;
        homes.retain(|other| other != home.path());
        Ok(homes)
    }

    /// Gives those back that kubelets changed, where no other home is left, and tells how many.
    pub fn give_back(&self, home: &Home) -> Result<usize> {
        if !self.dir.exists() {
            return Ok(0);
        }
        let _alone = self.lock()?;
        let note = self.read()?;
        let is_last = self.homes()?.iter().all(|other| other == home.path());
        let mut count = 0;
        if is_last {
            let noted = note.map(|note| note.values).unwrap_or_default();
            let changed = changed(&noted, &self.now());
            for (name, value) in &changed {
                put(&self.sysctls.join(name), value)?;
            }
            count = changed.len();
            remove(&self.path())?;
        }
        // Last, so that one that was killed does it again.
        remove(&self.entry(home.path()))?;
        if is_last {
            fs::remove_dir(self.dir.join("homes")).ok();
            remove(&self.dir.join("lock"))?;
            fs::remove_dir(&self.dir).ok();
        }
        Ok(count)
    }

    fn lock(&self) -> Result<Lock> {
        lock::take(&self.dir.join("lock"), "the note of the machine's settings")
    }

    fn path(&self) -> PathBuf {
        self.dir.join("sysctls.json")
    }

    fn entry(&self, home: &Path) -> PathBuf {
        let hash = Sha256::digest(home.as_os_str().as_bytes());
        let digits = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
        self.dir.join("homes").join(digits.collect::<String>())
    }

    /// The note of this boot.
    fn read(&self) -> Result<Option<Note>> {
        let path = self.path();
        let step = || format!("{}: read settings of the machine", path.display());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context(step),
        };
        let note: Note = serde_json::from_slice(&text).context(step)?;
        // `/run` of a container may outlive a boot.
        Ok(Some(note).filter(|note| note.boot == self.boot))
    }

    /// Homes that have noted them and are there yet: the directory of one may have been removed by hand.
    fn homes(&self) -> Result<Vec<PathBuf>> {
        let mut homes = Vec::new();
        for path in entries(&self.dir.join("homes"))? {
            let step = || format!("{}: read it", path.display());
            let home = PathBuf::from(fs::read_to_string(&path).context(step)?);
            match home.is_dir() {
                true => homes.push(home),
                false => remove(&path)?,
            }
        }
        Ok(homes)
    }

    fn now(&self) -> Values {
        let values = KUBELETS.iter().filter_map(|(name, _)| {
            let value = fs::read_to_string(self.sysctls.join(name)).ok()?;
            Some(((*name).to_owned(), value.trim().to_owned()))
        });
        values.collect()
    }
}

fn remove(path: &Path) -> Result<()> {
    crisp_sys::file::remove_if_there(path).context(|| format!("{}: remove it", path.display()))
}

/// The settings that have a kubelet's value now and had another before. Any third value is somebody
/// else's.
fn changed(noted: &Values, now: &Values) -> Vec<(&'static str, String)> {
    let changed = KUBELETS.iter().filter_map(|(name, kubelets)| {
        let before = noted.get(*name)?;
        let is_kubelets = now.get(*name).is_some_and(|value| value == kubelets);
        (is_kubelets && before != kubelets).then(|| (*name, before.clone()))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(all: &[(&str, &str)]) -> Values {
        let all = all.iter();
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_kubelet_changed_comes_back_and_nothing_else() {
        let noted = values(&[
            ("kernel/panic", "0"),
            ("kernel/panic_on_oops", "1"),
            ("vm/overcommit_memory", "0"),
        ]);
        let now = values(&[
            ("kernel/panic", "10"),
            ("kernel/panic_on_oops", "1"),
            ("vm/overcommit_memory", "2"),
            ("vm/panic_on_oom", "0"),
        ]);
        assert_eq!(changed(&noted, &now), [("kernel/panic", "0".to_owned())]);
        assert!(changed(&noted, &noted).is_empty());
    }

    /// A machine with files for its settings, and homes on it.
    fn machine(dir: &Path, homes: [&str; 2]) -> (Machine, [Home; 2]) {
        let machine = Machine {
            dir: dir.join("run"),
            sysctls: dir.join("sys"),
            boot: "one".to_owned(),
        };
        for (name, _) in KUBELETS {
            make_dir(machine.sysctls.join(name).parent().unwrap()).unwrap();
            write(&machine.sysctls.join(name), b"7").unwrap();
        }
        let homes = homes.map(|name| {
            make_dir(&dir.join(name)).unwrap();
            Home::at(&dir.join(name)).unwrap()
        });
        (machine, homes)
    }

    fn kubelet_starts(machine: &Machine) {
        for (name, value) in KUBELETS {
            put(&machine.sysctls.join(name), value).unwrap();
        }
    }

    fn is_as_before(machine: &Machine) -> bool {
        machine.now().values().all(|value| value == "7")
    }

    #[test]
    fn the_last_home_gives_back_what_was_before_the_first() {
        for first in [0, 1] {
            let dir = tempfile::tempdir().unwrap();
            let (machine, homes) = machine(dir.path(), ["a", "b"]);
            assert_eq!(machine.give_back(&homes[0]).unwrap(), 0, "there is no note");
            for home in &homes {
                machine.note(home).unwrap();
                kubelet_starts(&machine);
                machine.note(home).unwrap();
            }
            assert_eq!(machine.others(&homes[0]).unwrap(), [homes[1].path()]);
            assert_eq!(machine.give_back(&homes[first]).unwrap(), 0);
            assert!(!is_as_before(&machine), "the other one has nodes");
            assert_eq!(
                machine.give_back(&homes[1 - first]).unwrap(),
                KUBELETS.len()
            );
            assert!(is_as_before(&machine));
            assert!(!machine.dir.exists());
        }
    }

    #[test]
    fn a_home_that_was_removed_by_hand_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (machine, [gone, home]) = machine(dir.path(), ["a", "b"]);
        machine.note(&gone).unwrap();
        machine.note(&home).unwrap();
        kubelet_starts(&machine);
        fs::remove_dir_all(gone.path()).unwrap();
        assert_eq!(machine.give_back(&home).unwrap(), KUBELETS.len());
        assert!(is_as_before(&machine));
    }

    #[test]
    fn settings_of_another_boot_do_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut machine, [home, other]) = machine(dir.path(), ["a", "b"]);
        assert!(machine.is_new(&home).unwrap());
        machine.note(&home).unwrap();
        assert!(machine.is_new(&other).unwrap() && !machine.is_new(&home).unwrap());
        machine.note(&other).unwrap();
        machine.boot = "two".to_owned();
        assert!(machine.others(&home).unwrap().is_empty());
        assert!(machine.is_new(&home).unwrap());
        for (name, _) in KUBELETS {
            write(&machine.sysctls.join(name), b"8").unwrap();
        }
        machine.note(&home).unwrap();
        kubelet_starts(&machine);
        machine.give_back(&home).unwrap();
        assert!(machine.now().values().all(|value| value == "8"));
    }
}
