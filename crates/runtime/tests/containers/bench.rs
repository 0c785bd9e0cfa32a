//! The bench that the cases share: a root file system, a spec to change, a container to look at.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crisp_runtime::{
    Ahead, CreateRequest, Created, Error, ExecRequest, Execed, Gate, Rootfs, Stdio,
};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::mount;
use crisp_sys::process::WaitStatus;
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

/// The name of a case and what it does.
pub type Case = (&'static str, fn());

/// A bundle, an image of busybox below an overlay, and a cgroup.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub cgroup: Cgroup,
    pub spec: Value,
    /// Controllers that the machine's version 2 tree had enabled for children, beside version 1.
    enabled: String,
}

/// How a process ended and what it wrote to either stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: WaitStatus,
    pub output: String,
}

/// One image for all cases; the kernel takes it as a layer, which nothing ever writes to.
fn image() -> &'static Path {
    static IMAGE: OnceLock<tempfile::TempDir> = OnceLock::new();
    IMAGE.get_or_init(make_image).path()
}

fn make_image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    let root = image.path();
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "lib64"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    let output = crisp_sys::process::command("ldd")
        .arg("/bin/busybox")
        .output()
        .unwrap();
    let libraries = String::from_utf8(output.stdout).unwrap();
    let files = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in files.chain(["/bin/busybox"]) {
        let place = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(file, place).unwrap();
    }
    for tool in [
        "sh", "cat", "ls", "id", "sleep", "stat", "mount", "hostname", "pwd", "tty",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    for tool in [
        "echo", "grep", "env", "mkdir", "touch", "test", "true", "readlink", "head",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    image
}

const CONTROL: &str = "cgroup.subtree_control";

fn enabled(layout: &Layout) -> String {
    let root = layout.unified().filter(|_| !layout.is_v2());
    let text = root.and_then(|root| fs::read_to_string(root.join(CONTROL)).ok());
    text.unwrap_or_default()
}

impl Bench {
    /// A spec as a CRI runtime writes it, that runs `script`.
    pub fn new(script: &str) -> Self {
        static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let layout = Arc::new(Layout::detect().unwrap());
        let path = format!("crisp-runtime-test-{}-{serial}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        for name in ["bundle", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let enabled = enabled(&layout);
        Self {
            dir,
            cgroup: Cgroup::new(layout, &path),
            spec: spec(script),
            enabled,
        }
    }

    /// Disables what a limit of huge pages has enabled for all cgroups of the machine.
    fn put_back(&self) {
        let layout = self.cgroup.layout();
        let is_new = |name| enabled(layout).contains(name) && !self.enabled.contains(name);
        if is_new("hugetlb") {
            let root = Cgroup::new(Arc::clone(layout), "");
            // It stays while a cgroup of another program needs it.
            drop(root.write("hugetlb", CONTROL, "-hugetlb"));
        }
    }

    pub fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    /// Adds a mount to the spec.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &Path, options: &[&str]) {
        let mount = json!({
            "destination": destination, "type": kind, "source": source, "options": options
        });
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub fn parsed(&self) -> Spec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    pub fn create(&self, stdio: Stdio, gate: Gate) -> Result<Created, Error> {
        self.create_after(Ahead::default(), stdio, gate)
    }

    pub fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay {
            lower: vec![image().to_owned()],
            upper: self.upper(),
            work: self.dir.path().join("work"),
        }
    }

    /// As [`Self::create`], of which some was done ahead.
    pub fn create_after(&self, ahead: Ahead, stdio: Stdio, gate: Gate) -> Result<Created, Error> {
        crisp_runtime::create(CreateRequest {
            root_by: crisp_runtime::RootBy::Pivot,
            tenant: None,
            ahead,
            raw_environment: Vec::new(),
            id: "test",
            bundle: &self.dir.path().join("bundle"),
            spec: &self.parsed(),
            rootfs: self.rootfs(),
            cgroup: &self.cgroup,
            stdio,
            gate,
            keyring: crisp_runtime::Keyring::New,
            preserved_fds: 0,
        })
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Result<Outcome, Error> {
        let (read, stdio) = piped();
        let mut created = self.create(stdio, Gate::Socket)?;
        let started = created.start();
        let outcome = finish(created.pid, read);
        started.map(|()| outcome)
    }

    /// Runs it and returns what it wrote; it must succeed.
    pub fn output(&self) -> String {
        let outcome = self.run().unwrap();
        assert_eq!(outcome.status, WaitStatus::Code(0), "{}", outcome.output);
        outcome.output
    }

    /// Runs a process in the container to its end.
    pub fn exec(&self, container: &Created, process: Value) -> Result<Outcome, Error> {
        let (read, stdio) = piped();
        let execed = self.start_exec(container, process, stdio)?;
        let outcome = finish(execed.pid, read);
        self.exec_cgroup().remove().unwrap();
        Ok(outcome)
    }

    pub fn exec_cgroup(&self) -> Cgroup {
        crisp_runtime::exec_cgroup(&self.cgroup, "one")
    }

    /// Starts a process in the container.
    pub fn start_exec(
        &self,
        container: &Created,
        process: Value,
        stdio: Stdio,
    ) -> Result<Execed, Error> {
        let process: Process = serde_json::from_value(process).unwrap();
        crisp_runtime::exec(ExecRequest {
            raw_environment: Vec::new(),
            container_pid: container.pid,
            container: &container.pidfd,
            filter: crisp_runtime::Filter::of(&self.parsed(), "test", Path::new("/")).unwrap(),
            process: &process,
            linux: None,
            cgroup: &self.cgroup,
            exec_id: Some("one"),
            stdio,
            keyring: crisp_runtime::Keyring::New,
            preserved_fds: 0,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let destroyed = crisp_runtime::destroy(&self.cgroup);
        self.put_back();
        while let Ok(Some(_)) = crisp_sys::process::reap_any() {}
        if !std::thread::panicking() {
            destroyed.unwrap();
            assert!(!self.cgroup.exists());
            let name = self.dir.path().to_str().unwrap();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(name), "a mount was left on the host");
        }
    }
}

/// A pipe for both output streams, and its read end.
pub fn piped() -> (File, Stdio) {
    let (read, write) = crisp_sys::pipe::pipe().unwrap();
    let stderr = write.try_clone().unwrap();
    (
        read.into(),
        Stdio::Fds {
            stdin: None,
            stdout: write,
            stderr,
        },
    )
}

/// Reads to the end and reaps.
pub fn finish(pid: i32, mut read: File) -> Outcome {
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    Outcome {
        status: crisp_sys::process::wait(pid).unwrap(),
        output,
    }
}

/// Runs a body in a mount namespace of its own, of which the host sees nothing.
pub fn in_private_mounts(body: impl FnOnce()) {
    let inside = || {
        let slash = Path::new("/");
        mount::set_propagation(slash, mount::Propagation::Private, mount::Depth::Recursive)
            .unwrap();
        body();
        0
    };
    let (pid, _) = fork_with(CloneFlags::NEWNS, None, inside).unwrap();
    let status = crisp_sys::process::wait(pid).unwrap();
    assert_eq!(status, WaitStatus::Code(0), "see the panic above");
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process of the spec that runs `script`.
pub fn process(script: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SETUID"]);
    json!({
        "user": { "uid": 0, "gid": 0 },
        "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin", "HOME=/root"],
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities
        }
    })
}

fn spec(script: &str) -> Value {
    json!({
        "ociVersion": "1.2.1",
        "process": process(script),
        "root": { "path": "rootfs" },
        "hostname": "crisp-test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware",
                "/proc/scsi", "/proc/acpi", "/proc/not-there"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                "/proc/sysrq-trigger"]
        }
    })
}
