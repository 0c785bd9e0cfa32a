//! Settings of this machine that kubelets in nodes change: a kernel has one value of each for all that
//! runs on it. Their values are noted before the first node, and come back after the last one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{make_dir, put, write};
use crate::failure::{Context as _, Result};
use crate::home::Home;

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

fn path_of(home: &Home) -> PathBuf {
    home.daemon().join("sysctls.json")
}

/// Notes them, unless nodes may have changed them already.
pub fn note(home: &Home) -> Result<()> {
    let path = path_of(home);
    if path.exists() {
        return Ok(());
    }
    let step = || format!("{}: note settings of the machine", path.display());
    let text = serde_json::to_vec(&now()).context(step)?;
    make_dir(&home.daemon())?;
    write(&path, &text)
}

/// Gives those back that kubelets changed, and tells how many.
pub fn give_back(home: &Home) -> Result<usize> {
    let path = path_of(home);
    let step = || format!("{}: give settings of the machine back", path.display());
    let noted: Values = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).context(step)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context(step),
    };
    let changed = changed(&noted, &now());
    for (name, value) in &changed {
        put(&Path::new("/proc/sys").join(name), value)?;
    }
    Ok(changed.len())
}

fn now() -> Values {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let values = KUBELETS.iter().filter_map(|(name, _)| {
        let value = read(name)?.trim().to_owned();
        Some(((*name).to_owned(), value))
    });
    values.collect()
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

    #[test]
    fn the_first_note_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        assert_eq!(give_back(&home).unwrap(), 0, "there is no note");
        note(&home).unwrap();
        write(&path_of(&home), b"{}").unwrap();
        note(&home).unwrap();
        assert_eq!(fs::read(path_of(&home)).unwrap(), b"{}");
        assert_eq!(give_back(&home).unwrap(), 0);
    }
}
