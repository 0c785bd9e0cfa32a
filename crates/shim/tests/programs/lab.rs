//! A daemon for one test: a root file system, a shim, a connection to it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crisp_model::{CgroupPath, ContainerId, PodId};
use crisp_shim_api::exit::SLOT_SIZE;
use crisp_shim_api::{
    Adoption, Ahead, Event, ExitRecord, FromShim, Launch, MAX_FRAME, Reply, Request, RootfsSpec,
    Stdin, StreamEnd, ToShim, VERSION,
};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::socket::Conn;
use crisp_sys::{file, rand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Nothing that a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub cgroup: Cgroup,
    pub spec: Value,
    pub launch: Launch,
    pub program: PathBuf,
    pub shim: Option<Child>,
    pub conn: Option<Conn>,
    pub events: Vec<Event>,
    seq: u64,
}

/// The answer to a launch.
#[derive(Debug)]
pub struct Started {
    pub pid: i32,
    pub start_time: u64,
    pub fds: Vec<OwnedFd>,
}

impl Lab {
    /// A container that shall run this script.
    pub fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bundle", "logs", "rootfs"] {
            fs::create_dir(path(name)).unwrap();
        }
        make_rootfs(&path("rootfs"));
        file::make_slot(&path("exit"), SLOT_SIZE).unwrap();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("crisp-shim-test-{}-{serial}", std::process::id());
        let launch = Launch {
            version: VERSION,
            container_id: ContainerId::from_entropy(rand::entropy32().unwrap()),
            pod_id: PodId::from_entropy(rand::entropy32().unwrap()),
            bundle: path("bundle"),
            rootfs: RootfsSpec::Dir(path("rootfs")),
            cgroup_path: CgroupPath::parse(&name).unwrap().child("c"),
            socket: path("socket"),
            log: Some(path("logs/0.log")),
            exit_file: path("exit"),
            stdin: Stdin::Null,
            open_files: None,
            shims_cgroup: Some(CgroupPath::parse(&format!("{name}-shims")).unwrap()),
        };
        let layout = Arc::new(Layout::detect().unwrap());
        Self {
            cgroup: Cgroup::new(layout, &name),
            spec: spec(script),
            dir,
            launch,
            program: env!("CARGO_BIN_EXE_crisp-shim").into(),
            shim: None,
            conn: None,
            events: Vec::new(),
            seq: 0,
        }
    }

    /// The container sees the host's processes.
    pub fn in_host_pid_namespace(mut self) -> Self {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        self
    }

    /// Starts the shim and sends the launch; returns its answer.
    pub fn send_launch(&mut self) -> (Reply, Vec<OwnedFd>) {
        self.begin_launch();
        self.reply_to(0)
    }

    /// Sends the launch, and starts the shim first if it waits for none.
    pub fn begin_launch(&mut self) {
        self.write_spec();
        let ours = self.conn.take().unwrap_or_else(|| self.load());
        ours.send(&self.launch.encode().unwrap(), &[]).unwrap();
        self.conn = Some(ours);
    }

    /// Starts the shim and tells it of the container as the daemon does while it makes it; returns
    /// the worker that waits for the launch.
    pub fn foretell(&mut self) -> i32 {
        self.write_spec();
        let ours = self.load();
        for bundle in [None, Some(self.launch.bundle.clone())] {
            let ahead = Ahead {
                ahead_of: self.launch.container_id.clone(),
                rootfs: self.launch.rootfs.clone(),
                bundle,
                shims_cgroup: self.launch.shims_cgroup.clone(),
            };
            ours.send(&ahead.encode().unwrap(), &[]).unwrap();
        }
        self.conn = Some(ours);
        let last_words = self.launch.bundle.join(crisp_shim_api::LAST_WORDS);
        until("the steps ahead", || last_words.exists());
        let [worker] = self.children()[..] else {
            panic!("{:?}", self.children());
        };
        worker
    }

    /// The shim's own children.
    pub fn children(&self) -> Vec<i32> {
        let shim = self.shim.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
        let pids = children.split_whitespace();
        pids.map(|pid| pid.parse().unwrap()).collect()
    }

    fn write_spec(&self) {
        let config = self.launch.bundle.join("config.json");
        fs::write(config, serde_json::to_vec(&self.spec).unwrap()).unwrap();
    }

    /// Kills the shim as the OOM killer would.
    pub fn kill_shim(&mut self) {
        let mut shim = self.shim.take().unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
        fs::remove_file(&self.launch.socket).unwrap();
    }

    /// Has another shim take the container over; returns its answer.
    pub fn adopt(&mut self, streams: &[StreamEnd], container: Started) -> (Reply, Vec<OwnedFd>) {
        let adoption = Adoption {
            launch: self.launch.clone(),
            pid: container.pid,
            start_time: container.start_time,
            streams: streams.to_vec(),
        };
        let ours = self.load();
        let log = File::open("/dev/null").unwrap();
        let mut fds = vec![OwnedFd::from(log)];
        fds.extend(container.fds);
        ours.send(&adoption.encode().unwrap(), &borrow(&fds))
            .unwrap();
        self.conn = Some(ours);
        self.reply_to(0)
    }

    fn load(&mut self) -> Conn {
        let (ours, theirs) = Conn::pair().unwrap();
        let child = Command::new(&self.program)
            .arg(self.launch.container_id.as_str())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        self.shim = Some(child);
        ours
    }

    pub fn start(&mut self) -> Started {
        match self.send_launch() {
            (
                Reply::Started {
                    pid, start_time, ..
                },
                fds,
            ) => Started {
                pid,
                start_time,
                fds,
            },
            (other, _) => panic!("{other:?}"),
        }
    }

    /// As after the daemon's death: another connection, to the socket.
    pub fn reconnect(&mut self) {
        self.conn = None;
        self.conn = Some(Conn::connect(&self.launch.socket).unwrap());
    }

    fn receive(&mut self) -> (FromShim, Vec<OwnedFd>) {
        let conn = self.conn.as_ref().unwrap();
        wait_for(conn, "the shim is silent");
        let (bytes, fds) = conn.recv(MAX_FRAME).unwrap().expect("the shim is gone");
        (FromShim::decode(&bytes).unwrap(), fds)
    }

    /// Waits for the answer to a request that was sent.
    pub fn reply_to(&mut self, wanted: u64) -> (Reply, Vec<OwnedFd>) {
        loop {
            match self.receive() {
                (FromShim::Reply { seq, reply }, fds) if seq == wanted => return (reply, fds),
                (FromShim::Reply { .. }, _) => {}
                (FromShim::Event(event), _) => self.events.push(event),
            }
        }
    }

    /// Sends a request and returns its number.
    pub fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> u64 {
        self.seq += 1;
        let frame = ToShim {
            seq: self.seq,
            request,
        };
        self.conn
            .as_ref()
            .unwrap()
            .send(&frame.encode().unwrap(), fds)
            .unwrap();
        self.seq
    }

    pub fn ask(&mut self, request: Request) -> Reply {
        self.ask_with(request, &[]).0
    }

    /// Sends a frame of number 0 as another version may write it.
    pub fn ask_raw(&mut self, frame: &[u8]) -> Reply {
        self.conn.as_ref().unwrap().send(frame, &[]).unwrap();
        self.reply_to(0).0
    }

    pub fn ask_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> (Reply, Vec<OwnedFd>) {
        let seq = self.send(request, fds);
        self.reply_to(seq)
    }

    /// Waits for an event.
    pub fn event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(index) = self.events.iter().position(|event| pick(event).is_some()) {
                return pick(&self.events.remove(index)).unwrap();
            }
            if let (FromShim::Event(event), _) = self.receive() {
                self.events.push(event);
            }
        }
    }

    pub fn exited(&mut self) -> ExitRecord {
        self.event(|event| match event {
            Event::Exited(record) => Some(*record),
            _ => None,
        })
    }

    pub fn exit_slot(&self) -> Option<ExitRecord> {
        ExitRecord::from_slot(&fs::read(&self.launch.exit_file).unwrap())
    }

    /// Texts of the log: `stdout F hello`.
    pub fn log(&self) -> Vec<String> {
        texts(self.launch.log.as_ref().unwrap())
    }

    /// Sends the shim away and checks that nothing is left.
    pub fn shut_down(mut self) {
        assert_eq!(self.ask(Request::Shutdown), Reply::Done);
        self.is_gone();
    }

    /// The cgroup that the shim lives in.
    fn shims(&self) -> Cgroup {
        let path = self.launch.shims_cgroup.as_ref().unwrap().as_str();
        Cgroup::new(Arc::clone(self.cgroup.layout()), path)
    }

    /// The shim has left by itself.
    pub fn is_gone(&mut self) {
        let status = self.shim.take().unwrap().wait().unwrap();
        assert!(status.code().is_some(), "{status}");
        assert!(!self.launch.socket.exists());
        assert!(!self.cgroup.child("c").exists());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            drop(shim.kill());
            drop(shim.wait());
        }
        if self.cgroup.exists() {
            drop(self.cgroup.kill());
            drop(self.cgroup.remove());
        }
        drop(self.shims().remove());
    }
}

/// Stream, tag and text of each line of a log, whose stamps are checked. A line that a shim is just
/// writing is none yet.
pub fn texts(path: &Path) -> Vec<String> {
    let log = String::from_utf8(fs::read(path).unwrap()).unwrap();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let mut texts = Vec::new();
    for line in whole.split_terminator('\n') {
        let (stamp, text) = line.split_once(' ').unwrap();
        assert!(
            stamp.len() == 30 && stamp.starts_with("20") && stamp.ends_with('Z'),
            "{line}"
        );
        texts.push(text.to_owned());
    }
    texts
}

/// Waits until something is so.
pub fn until(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All that a pipe brings until its end.
pub fn read_all(fd: OwnedFd) -> String {
    let mut file = File::from(fd);
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        wait_for(&file, "the pipe is silent");
        match file.read(&mut part).unwrap() {
            0 => return String::from_utf8(bytes).unwrap(),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
}

fn wait_for(fd: &impl AsFd, otherwise: &str) {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap(),
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "{otherwise}");
}

pub fn null() -> OwnedFd {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

pub fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// busybox and the libraries that it needs.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "dev", "tmp"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    copy_in(root, "/bin/busybox");
    copy_libraries(root, "/bin/busybox");
    for name in ["sh", "cat", "sleep", "dd", "tail", "seq", "true", "id"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Copies the libraries that a program of the host needs to run in this root.
pub fn copy_libraries(root: &Path, program: &str) {
    let listing = Command::new("ldd").arg(program).output().unwrap().stdout;
    let listing = String::from_utf8(listing).unwrap();
    let libraries = listing.split_whitespace();
    for library in libraries.filter(|word| word.starts_with('/')) {
        copy_in(root, library);
    }
}

fn copy_in(root: &Path, file: &str) {
    let copy = root.join(file.trim_start_matches('/'));
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(file, copy).unwrap();
}

fn spec(script: &str) -> Value {
    let mount = |destination: &str, kind: &str| json!({"destination": destination, "type": kind, "source": kind, "options": ["nosuid"]});
    json!({
        "ociVersion": "1.2.0",
        "process": process(&["sh", "-c", script]),
        "root": {"path": "rootfs", "readonly": false},
        "mounts": [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs"),
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "resources": {},
        },
    })
}

/// A process of a spec.
pub fn process(args: &[&str]) -> Value {
    json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": true,
    })
}

/// Where a test can leave notes that the container reads, and the other way round.
pub fn in_rootfs(lab: &Lab, name: &str) -> PathBuf {
    lab.dir.path().join("rootfs").join(name)
}
