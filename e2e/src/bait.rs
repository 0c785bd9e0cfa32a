//! Bait: what an attack on the machine would change, and what tells that it did.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::node::Node;
use crate::tools;

/// Files that an attack would change, and a directory that one could be led to.
#[derive(Debug)]
pub struct Watched {
    files: Vec<(PathBuf, String)>,
    /// A directory with one file, `file`.
    pub bait: PathBuf,
}

/// Content of a small file; when a large one was last touched.
fn state(path: &Path) -> String {
    let meta = fs::metadata(path).unwrap();
    match path.starts_with("/proc") {
        true => fs::read_to_string(path).unwrap(),
        false => format!("{} {} {}", meta.len(), meta.ctime(), meta.ctime_nsec()),
    }
}

impl Watched {
    /// Lays out the bait in a node's directory, and looks at what there is.
    #[must_use]
    pub fn new(node: &Node) -> Self {
        let bait = node.path("bait");
        fs::create_dir(&bait).unwrap();
        fs::write(bait.join("file"), "bait").unwrap();
        let programs = ["crispd", "crisp-shim", "crisp-holder"].map(tools::ours);
        let system = ["/etc/passwd", "/proc/sys/kernel/core_pattern"].map(PathBuf::from);
        let paths = programs.into_iter().chain(system);
        Self {
            files: paths.map(|path| (path.clone(), state(&path))).collect(),
            bait,
        }
    }

    /// Fails when an attack changed anything.
    #[track_caller]
    pub fn check(&self, attack: &str) {
        for (path, before) in &self.files {
            assert_eq!(
                &state(path),
                before,
                "{attack}: {} was changed",
                path.display()
            );
        }
        let names = fs::read_dir(&self.bait).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{attack}");
        assert_eq!(
            fs::read_to_string(self.bait.join("file")).unwrap(),
            "bait",
            "{attack}"
        );
        let mode = fs::metadata(&self.bait).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{attack}");
    }
}
