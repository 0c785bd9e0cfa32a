//! The clock speed of processors: a kubelet starts nowhere without one, and user-mode Linux tells none.

use std::fs;
use std::path::Path;

use crate::tools;

/// The file by which a kubelet knows the processors.
const CPUS: &str = "/proc/cpuinfo";

/// A speed that is told; dropped, the file is the kernel's again.
#[derive(Debug)]
pub struct ClockSpeed {
    is_made_up: bool,
}

impl ClockSpeed {
    /// Gives the machine one where it tells none. The directory takes a file.
    #[must_use]
    pub fn tell(dir: &Path) -> Self {
        let told = fs::read_to_string(CPUS).unwrap();
        if told.contains("MHz") {
            return Self { is_made_up: false };
        }
        let file = dir.join("cpuinfo");
        let text = format!("{}\ncpu MHz\t\t: 1000.000\n", told.trim_end());
        fs::write(&file, text).unwrap();
        let words = ["--bind", file.to_str().unwrap(), CPUS];
        drop(tools::run("mount", &words));
        Self { is_made_up: true }
    }
}

impl Drop for ClockSpeed {
    fn drop(&mut self) {
        if self.is_made_up {
            drop(tools::run("umount", &[CPUS]));
        }
    }
}
