//! The outer crispd, whose containers the nodes are. It is started when a cluster needs it, goes on
//! without the command that started it, and is ended with the last cluster.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;

use crate::cri::Cri;
use crate::disk::{make_dir, write, write_private};
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::home::Home;
use crate::network::NODES;
use crate::record::Record;

/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when it does not start.
const SHOWN: usize = 5;

/// The outer crispd of a home.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
}

impl Daemon {
    /// The daemon of a home, whether it runs or not.
    pub fn of(home: &Home) -> Self {
        Self { dir: home.daemon() }
    }

    /// Where it reads from which registries to pull.
    pub fn registries(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("crispd.log")
    }

    fn process(&self) -> PathBuf {
        self.dir.join("process.json")
    }

    /// Calls to it.
    pub fn cri(&self, whose: &str) -> Result<Cri> {
        Cri::at(&self.dir.join("crisp.sock"), whose)
    }

    /// Whether it runs and answers.
    pub async fn answers(&self) -> Result<bool> {
        Ok(self.cri("crispd")?.answers().await)
    }

    /// Calls to it, refused where it does not run.
    pub async fn running(&self, whose: &str) -> Result<Cri> {
        let cri = self.cri(whose)?;
        if cri.answers().await {
            return Ok(cri);
        }
        let text = format!("{whose}: the crispd of {} does not run", self.dir.display());
        Err(Failure::new(text).remedy("`crisp cluster up` starts it"))
    }

    /// Starts it where it does not run, from the directory of our programs, and waits until it answers.
    /// Tells whether it was started.
    pub async fn ensure(&self, ours: &Path) -> Result<bool> {
        let cri = self.cri("crispd")?;
        if cri.answers().await {
            return Ok(false);
        }
        make_dir(&self.registries())?;
        write(&self.dir.join("config.toml"), self.config().as_bytes())?;
        let mut child = self.start(ours)?;
        self.remember(&child)?;
        let deadline = Instant::now() + PATIENCE;
        while !cri.answers().await {
            let ended = child
                .try_wait()
                .context(|| "crispd: look whether it runs".to_owned())?;
            if let Some(status) = ended {
                return Err(self.silent(&format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                let text = format!("it does not answer in {} s", PATIENCE.as_secs());
                return Err(self.silent(&text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(true)
    }

    fn start(&self, ours: &Path) -> Result<Child> {
        let log = self.log();
        let opened = File::options().create(true).append(true).open(&log);
        let opened = opened.context(|| format!("crispd: open its log {}", log.display()))?;
        let program = ours.join("crispd");
        let mut command = crisp_sys::process::command(&program);
        command
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(opened)
            // Keys of this terminal are not for it.
            .process_group(0);
        command
            .spawn()
            .context(|| format!("crispd: start {}", program.display()))
    }

    /// Notes which process it is, so that it can be ended.
    fn remember(&self, child: &Child) -> Result<()> {
        let step = || "crispd: note its process".to_owned();
        let pid = i32::try_from(child.id()).context(step)?;
        let id = ProcessId::of(pid).context(step)?;
        let text = serde_json::to_vec(&id).context(step)?;
        write_private(&self.process(), &text)
    }

    fn silent(&self, why: &str) -> Failure {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        Failure::new(format!("crispd: start it: {why}:\n{shown}"))
            .remedy(format!("all of its log is in {}", self.log().display()))
    }

    /// Ends it where it runs, and waits until it is gone.
    pub fn end(&self) -> Result<()> {
        let step = || "crispd: end it".to_owned();
        let text = match std::fs::read(self.process()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(step),
        };
        let id: ProcessId = serde_json::from_slice(&text).context(step)?;
        let Some(process) = PidFd::open_exact(&id).context(step)? else {
            return Ok(());
        };
        process.signal(15).context(step)?;
        match process.ends_within(PATIENCE).context(step)? {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "crispd: process {} does not end in {} s",
                id.pid,
                PATIENCE.as_secs()
            )))
            .remedy(|| format!("kill it, its log is {}", self.log().display())),
        }
    }

    fn config(&self) -> String {
        let dir = self.dir.display();
        let (driver, parent) = match systemd_makes_cgroups() {
            true => ("systemd", "crispclusters.slice"),
            false => ("cgroupfs", "crisp-clusters"),
        };
        format!(
            "# Written by `crisp cluster up`, and again each time that it starts this daemon.\n\
             root = \"{dir}/root\"\n\
             state = \"{dir}/state\"\n\
             listen = \"unix://{dir}/crisp.sock\"\n\
             [cgroup]\n\
             driver = \"{driver}\"\n\
             parent = \"{parent}\"\n\
             [network]\n\
             mode = \"builtin\"\n\
             [network.builtin]\n\
             subnets = [\"{NODES}\"]\n\
             # Nodes have addresses that stay.\n\
             allow_annotations = true\n\
             # Nodes route for their pods.\n\
             allow_foreign_sources = true\n\
             [images]\n\
             registry_config = \"{dir}/certs.d\"\n\
             # A kubelet and a crispd in a container manage what is below its cgroup alone.\n\
             [runtimes.native]\n\
             cgroup_namespaces = \"private\"\n"
        )
    }
}

/// The cgroup parent of a cluster's nodes. A cluster's name may have dashes, which make a slice of systemd
/// another one's child.
pub fn cgroup_parent(cluster: &Record) -> String {
    match systemd_makes_cgroups() {
        true => format!("crispclusters-{}.slice", cluster.number),
        false => format!("/crisp-clusters/{}", cluster.name),
    }
}

/// Whether systemd runs the machine, makes cgroups there for others, and can be asked to.
fn systemd_makes_cgroups() -> bool {
    let runs = Path::new("/run/systemd/system").is_dir();
    let hears = Path::new("/run/dbus/system_bus_socket").exists();
    // On version 1 it delegates nothing safely.
    runs && hears && crisp_sys::cgroup::Layout::detect().is_ok_and(|layout| layout.is_v2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_never_ran_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::of(&Home::at(dir.path()).unwrap());
        assert!(daemon.end().is_ok());
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::of(&Home::at(dir.path()).unwrap());
        make_dir(&dir.path().join("daemon")).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let mut other = ProcessId::of(own).unwrap();
        other.start_time += 1;
        write(&daemon.process(), &serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(daemon.end().is_ok());
    }
}
