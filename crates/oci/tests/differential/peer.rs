//! A bench for one runtime after the other: the same directory and the same id, so that paths
//! compare as they are.

use std::cell::Cell;
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::case::{Case, Story};
use crate::cgroups;
use crate::sight::{Sight, note_tree};
use crate::text::text;

/// The runc that `hack/tools differential` builds; another version would be another table.
pub fn runc() -> Option<PathBuf> {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let base = env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    let path = base.join("crisp/tools/bin/runc");
    path.is_file().then_some(path)
}

/// Tells that a test was left out.
pub fn skipped(test: &str) {
    say(&format!(
        "SKIPPED: {test}: no runc to compare with: hack/tools differential builds it"
    ));
}

/// Says a line past the test runner, which keeps what a passing test prints.
pub fn say(line: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Both runtimes and a place for their bundles.
pub struct Bench {
    pub runc: PathBuf,
    pub ours: PathBuf,
    dir: tempfile::TempDir,
    serial: Cell<u32>,
}

/// One bundle under one runtime.
struct Turn<'a> {
    bench: &'a Bench,
    program: &'a Path,
    id: String,
    flags: String,
    /// Complaints of the commands, for the reader of a failure.
    complaints: String,
    sight: Sight,
}

/// The sight, and the complaints beside it.
pub struct Seen {
    pub sight: Sight,
    pub complaints: String,
}

impl Bench {
    pub fn new(runc: PathBuf) -> Self {
        let bench = Self {
            runc,
            ours: env!("CARGO_BIN_EXE_crisp-oci").into(),
            dir: tempfile::tempdir().unwrap(),
            serial: Cell::new(0),
        };
        make_rootfs(&bench.dir.path().join("template"));
        bench
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    /// A new id for the next case, which both runtimes use.
    pub fn next_id(&self) -> String {
        self.serial.set(self.serial.get() + 1);
        format!(
            "crisp-compared-test-{}-{}",
            std::process::id(),
            self.serial.get()
        )
    }

    /// The case under one of the programs.
    pub fn try_out(&self, program: &Path, case: &Case, id: &str) -> Seen {
        let mut turn = Turn {
            bench: self,
            program,
            id: id.to_owned(),
            flags: case.flags.clone(),
            complaints: String::new(),
            sight: Sight::default(),
        };
        turn.set_up(case);
        match &case.story {
            Story::Run(line) => {
                turn.run(&line.replace("@BUNDLE@", turn.bench.bundle().to_str().unwrap()))
            }
            Story::Live(lines) => turn.live(lines),
        }
        turn.look_back();
        turn.clear();
        Seen {
            sight: turn.sight,
            complaints: turn.complaints,
        }
    }
}

impl Turn<'_> {
    fn set_up(&self, case: &Case) {
        let (template, bundle) = (self.bench.dir.path().join("template"), self.bench.bundle());
        fs::create_dir_all(&bundle).unwrap();
        let config = case.spec.replace("@BUNDLE@", bundle.to_str().unwrap());
        let config = config.replace("@ID@", &self.id);
        fs::write(bundle.join("config.json"), config).unwrap();
        let copy = format!("set -e; umask 022; cp -a {} rootfs", template.display());
        let script = format!("{copy}; {}", case.prepare);
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&bundle)
            .output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "prepare {}: {told}", case.name());
    }

    /// Runs a shell line and returns its exit code and output.
    fn shell(&mut self, line: &str) -> (i32, String) {
        let (out, err) = (
            self.bench.dir.path().join("out"),
            self.bench.dir.path().join("err"),
        );
        let status = self.command(line, &out, &err).status().unwrap();
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        self.complaints.push_str(&read(&err));
        (status.code().unwrap_or(-1), read(&out))
    }

    fn command(&self, line: &str, out: &Path, err: &Path) -> Command {
        let root = self.bench.dir.path().join("root");
        let program = self.program.display();
        // Nothing here takes that long: a runtime that hangs is told by its code, 124.
        let runtime = format!(
            "timeout --foreground -k 1 15 {program} --root {} {}",
            root.display(),
            self.flags
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.bench.bundle())
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap())
            .env("R", runtime)
            .env("ID", &self.id)
            .stdin(Stdio::null())
            .stdout(File::create(out).unwrap())
            .stderr(File::create(err).unwrap());
        command
    }

    /// Notes how a line ended and what it printed.
    fn step(&mut self, name: &str, line: &str) -> i32 {
        let (code, output) = self.shell(line);
        self.sight.note(&format!("{name} code"), &code.to_string());
        self.sight.take(name, &output);
        code
    }

    fn run(&mut self, line: &str) {
        self.step("run", line);
    }

    fn live(&mut self, lines: &[String]) {
        let out = self.bench.dir.path().join("init");
        let create = format!("$R create $ID >{} </dev/null", out.display());
        if self.step("create", &create) != 0 {
            return;
        }
        self.note_state("created");
        cgroups::note(&mut self.sight, "created cgroups", &self.id.clone());
        self.step("start", "$R start $ID");
        self.eventually(|turn| {
            let ended = fs::read(&out).unwrap().ends_with(b"== end\n");
            ended || turn.status() != "running"
        });
        self.sight.take("init", &fs::read_to_string(&out).unwrap());
        for (number, line) in lines.iter().enumerate() {
            self.step(&format!("step{number}"), line);
        }
        cgroups::note(&mut self.sight, "running cgroups", &self.id.clone());
        self.note_state("running");
        self.step("kill", "$R kill $ID KILL");
        self.eventually(|turn| turn.status() != "running");
        self.note_state("killed");
        self.step("delete", "$R delete $ID");
    }

    fn state(&mut self) -> Value {
        let (_, output) = self.shell("$R state $ID");
        serde_json::from_str(&output).unwrap_or_default()
    }

    fn status(&mut self) -> String {
        self.state()["status"].as_str().unwrap_or("gone").to_owned()
    }

    fn note_state(&mut self, when: &str) {
        let state = self.state();
        for (key, value) in state.as_object().into_iter().flatten() {
            let value = match key.as_str() {
                "pid" => format!("{}", value.as_i64().unwrap_or(-1).signum()),
                "created" => "then".to_owned(),
                _ => value.to_string(),
            };
            self.sight
                .note(&format!("{when} state"), &format!("{key}: {value}"));
        }
    }

    fn eventually(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so(self) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Notes what is left when the container is over.
    fn look_back(&mut self) {
        let bundle = self.bench.bundle();
        note_tree(&mut self.sight, "left files", &bundle.join("rootfs"));
        for log in [bundle.join("hooks.log"), bundle.join("rootfs/hooks.log")] {
            self.sight
                .take("hooks", &fs::read_to_string(log).unwrap_or_default());
        }
        let root = self.bench.dir.path().join("root");
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            self.sight
                .note("left state", entry.file_name().to_str().unwrap());
        }
        for cgroup in cgroups::of(&self.id) {
            self.sight
                .note("left cgroups", &cgroup.display().to_string());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.bench.dir.path().to_str().unwrap();
        for line in mounts.lines().filter(|line| line.contains(dir)) {
            let point = line.split(' ').nth(4).unwrap();
            self.sight.note("left mounts", point);
        }
    }

    /// Nothing of this turn is there for the next.
    fn clear(&mut self) {
        self.shell("$R delete --force $ID");
        cgroups::clear(&self.id);
        let dir = self.bench.dir.path();
        let script = "while umount -l bundle 2>/dev/null; do :; done
            awk '{ print $5 }' /proc/self/mountinfo | grep \"^$PWD/\" | sort -r | xargs -r umount -l
            rm -rf bundle root";
        let status = Command::new("sh")
            .args(["-c", script])
            .current_dir(dir)
            .status()
            .unwrap();
        assert!(status.success(), "clear {}: {status}", dir.display());
    }
}

/// Busybox and the probe.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "volume"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("etc/passwd"), text("passwd")).unwrap();
    fs::write(root.join("probe"), text("probe.sh")).unwrap();
    fs::write(root.join("hook"), text("hook.sh")).unwrap();
    let script = "cp /bin/busybox bin/
        for file in $(ldd /bin/busybox | grep -o '/[^ ]*'); do
            mkdir -p .${file%/*}; cp $file .$file
        done
        for tool in awk cat chmod chown chroot find grep head hostname id ionice ip kill ls mkdir \
            mknod mount nice ping pwd readlink rmdir sed sh sleep sort stat stty tr true tty umount \
            unshare env wc touch; do
            ln -s busybox bin/$tool
        done
        chmod 755 probe hook";
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(status.success(), "make a root file system: {status}");
}
