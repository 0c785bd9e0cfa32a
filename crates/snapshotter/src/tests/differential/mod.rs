//! Random archives, unpacked by us and by GNU tar: the trees are the same.
//!
//! The archives keep to what both promise the same: no names through links, no other kind of file
//! over an earlier one, no whiteouts, which GNU tar does not know: [`whiteouts`] compares them with
//! a model. `CRISP_DIFFERENTIAL` says how many archives are tried, and a failure names the seed of
//! its archive.

mod archive;
mod random;
mod whiteouts;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{lgetxattr, llistxattr};

use super::maker::{Lab, tar};
use archive::Archive;

/// Archives in an ordinary run.
const FEW: u64 = 60;

/// How many archives a test tries.
fn count() -> u64 {
    let asked = std::env::var("CRISP_DIFFERENTIAL");
    asked.ok().and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

/// All that can be seen of a file.
#[derive(Debug, PartialEq, Eq)]
struct Fact {
    mode: u32,
    owner: (u32, u32),
    /// Not of directories: GNU tar sets their times early, and again when it comes back.
    time: Option<(i64, i64)>,
    what: Vec<u8>,
    device: u64,
    /// The first name of the same inode.
    first: PathBuf,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    let pairs = names.map(|name| {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, name, value.as_mut_slice()).unwrap();
        (name.to_vec(), value[..length].to_vec())
    });
    pairs.collect()
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Fact> {
    let mut facts = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    let mut paths = BTreeSet::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                pending.push(path.clone());
            }
            paths.insert(path);
        }
    }
    for path in paths {
        let stat = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let kind = stat.file_type();
        let what = if kind.is_file() {
            fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            target.as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        };
        let is_timed = !kind.is_dir();
        let fact = Fact {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            time: is_timed.then(|| (stat.mtime(), stat.mtime_nsec())),
            what,
            device: stat.rdev(),
            first: first
                .entry(stat.ino())
                .or_insert_with(|| name.clone())
                .clone(),
            attributes: attributes(&path),
        };
        facts.insert(name, fact);
    }
    facts
}

/// Lets GNU tar unpack an archive.
fn by_gnu_tar(archive: &[u8], target: &Path) {
    fs::create_dir(target).unwrap();
    let mut command = crisp_sys::process::command("sh");
    let script = "umask 022; exec tar --extract --file - --preserve-permissions --same-owner \
                  --numeric-owner --delay-directory-restore --xattrs --xattrs-include='user.*' \
                  --directory \"$0\"";
    let command = command.arg("-c").arg(script).arg(target);
    let child = command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(archive).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn privileged_random_archives_unpack_as_with_gnu_tar() {
    let count = count();
    let mut seen = 0;
    for seed in 0..count {
        let archive = tar(Archive::random(seed));
        let lab = Lab::new();
        let theirs = lab.dir.path().join("theirs");
        by_gnu_tar(&archive, &theirs);
        let unpacked = lab.unpack(&archive);
        let unpacked = unpacked.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let ours = lab.commit(unpacked, u8::MAX);
        let (ours, theirs) = (facts(&ours), facts(&theirs));
        let names =
            |facts: &BTreeMap<PathBuf, Fact>| -> Vec<PathBuf> { facts.keys().cloned().collect() };
        assert_eq!(names(&ours), names(&theirs), "seed {seed}");
        for (name, fact) in &ours {
            assert_eq!(fact, &theirs[name], "seed {seed}: {name:?}");
        }
        seen += ours.len() as u64;
    }
    assert!(
        seen > 5 * count,
        "{seen} files in {count} archives are no test"
    );
}
