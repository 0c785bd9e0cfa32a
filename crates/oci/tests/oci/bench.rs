//! The bench that the tests share: a bundle, the command, and a look at what it left.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crisp_sys::cgroup::{Cgroup, Layout};
use serde_json::{Value, json};

/// A bundle with busybox, and a state directory of its own.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub id: String,
    pub spec: Value,
    serial: AtomicU32,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    /// A bundle that runs `script`.
    pub fn new(script: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            id: format!("crisp-oci-test-{}-{serial}", std::process::id()),
            spec: spec(&["sh", "-c", script]),
            serial: AtomicU32::new(0),
        };
        for dir in ["bundle", "out"] {
            fs::create_dir(bench.dir.path().join(dir)).unwrap();
        }
        make_rootfs(&bench.rootfs());
        bench
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// The directory of `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn cgroup(&self) -> Cgroup {
        Cgroup::new(Arc::new(Layout::detect().unwrap()), &self.id)
    }

    /// Writes the spec as it is now.
    pub fn write(&self) {
        fs::write(self.bundle().join("config.json"), self.spec.to_string()).unwrap();
    }

    /// The command, with its output in files: a container may hold them open for longer.
    pub fn command(&self, arguments: &[&str]) -> (Command, PathBuf) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let out = self.dir.path().join(format!("out/{serial}"));
        let mut command = crisp_sys::process::command(env!("CARGO_BIN_EXE_crisp-oci"));
        command
            .current_dir(self.bundle())
            .arg("--root")
            .arg(self.root())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(out.with_extension("err")).unwrap());
        (command, out)
    }

    /// Runs the command; `ID` stands for the container's.
    pub fn crisp(&self, line: &str) -> Outcome {
        let words: Vec<&str> = line.split(' ').collect();
        self.crisp_words(&words)
    }

    /// As [`Self::crisp`], with words that may hold spaces.
    pub fn crisp_words(&self, words: &[&str]) -> Outcome {
        let words: Vec<&str> = words
            .iter()
            .map(|word| if *word == "ID" { &self.id } else { *word })
            .collect();
        let (mut command, out) = self.command(&words);
        let status = command.status().unwrap();
        outcome(status.code().unwrap(), &out)
    }

    /// Runs the command, which must succeed, and returns what it printed.
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.crisp(line);
        assert_eq!(outcome.code, 0, "{line}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Runs a script in the container.
    pub fn exec(&self, script: &str) -> Outcome {
        self.crisp_words(&["exec", "ID", "sh", "-c", script])
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok("state ID")).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Makes it run and waits for the file `/up`, which its script must make.
    pub fn run_detached(&self) {
        self.write();
        self.ok("run -d ID");
        let up = self.rootfs().join("up");
        eventually("the container is up", || up.exists());
    }

    /// Nothing is left of any container.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.root()).into_iter().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.cgroup().exists(), "{} is left", self.id);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(dir), "a mount was left on the host");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let deleted = self.crisp("delete --force ID");
        if !std::thread::panicking() {
            assert_eq!(deleted.code, 0, "{}", deleted.stderr);
            self.assert_nothing_left();
        }
    }
}

/// Reads what a command wrote.
pub fn outcome(code: i32, out: &Path) -> Outcome {
    Outcome {
        code,
        stdout: fs::read_to_string(out).unwrap(),
        stderr: fs::read_to_string(out.with_extension("err")).unwrap(),
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    let ldd = crisp_sys::process::command("ldd")
        .arg("/bin/busybox")
        .output()
        .unwrap();
    let libraries = String::from_utf8(ldd.stdout).unwrap();
    let files = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in files.chain(["/bin/busybox"]) {
        let place = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(file, place).unwrap();
    }
    for tool in [
        "sh", "cat", "ls", "id", "sleep", "tty", "pwd", "grep", "env", "mknod", "stty", "head",
        "true",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
}

fn spec(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            }
        },
        "root": { "path": "rootfs" },
        "annotations": { "a.test": "yes" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" }
            ]
        }
    })
}
