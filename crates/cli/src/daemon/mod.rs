//! The outer crispd, whose containers the nodes are. It is started when a cluster needs it, goes on
//! without the command that started it, and is ended with the last cluster.

mod launch;
mod process;
mod state;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use launch::Place;
use process::Process;

use crate::cri::Cri;
use crate::disk::{keep_changed, make_dir};
use crate::failure::{Context as _, Failure, Result};
use crate::home::Home;
use crate::init;
use crate::machine::Machine;
use crate::network::Network;
use crate::progress::say;
use crate::record::Record;

/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when it does not start.
const SHOWN: usize = 5;
/// Between two looks whether it answers.
const PAUSE: Duration = Duration::from_millis(20);

/// The outer crispd of a home.
#[derive(Debug)]
pub struct Daemon {
    home: Home,
    dir: PathBuf,
    process: Process,
}

impl Daemon {
    /// The daemon of a home, whether it runs or not.
    pub fn of(home: &Home) -> Self {
        Self {
            home: home.clone(),
            dir: home.daemon(),
            process: Process::of(&home.daemon()),
        }
    }

    /// Where it reads from which registries to pull.
    pub fn registries(&self) -> PathBuf {
        self.dir.join("certs.d")
    }

    /// Begins its log anew where it has become too large.
    fn bound_log(&self) {
        if let Err(failure) = init::bound(&self.log(), init::LARGEST) {
            say(format_args!("crisp: {failure}"));
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("crispd.log")
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
        Err(Failure::new(text))
    }

    /// Starts it where it does not run, from the directory of our programs, and waits until it answers.
    /// Tells whether it was started.
    pub async fn ensure(&self, ours: &Path, network: &Network) -> Result<bool> {
        self.bound_log();
        if self.awaits_living().await? {
            self.note_holder();
            self.tell_older(ours);
            return Ok(false);
        }
        let machine = Machine::this()?;
        if machine.is_new(&self.home)? {
            state::begin_anew(&self.dir.join("state"), self.process.noted_in())?;
        }
        machine.note(&self.home)?;
        make_dir(&self.registries())?;
        // On a full disk a `delete` comes here as well.
        keep_changed(&self.config_file(), self.config(network).as_bytes())?;
        let place = Place::of_machine();
        if let Some(status) = self.starts(&place, ours).await? {
            if place == Place::Here {
                return Err(self.silent(&format!("it ended with {status}")));
            }
            say(format_args!(
                "crisp: crispd for nodes did not start in a scope of systemd's: it is started beside this command, and \
                 ends with its unit"
            ));
            if let Some(status) = self.starts(&Place::Here, ours).await? {
                return Err(self.silent(&format!("it ended with {status}")));
            }
        }
        self.note_holder();
        Ok(true)
    }

    /// Starts it and waits until it answers. Tells how it ended where it did.
    async fn starts(&self, place: &Place, ours: &Path) -> Result<Option<ExitStatus>> {
        let program = ours.join("crispd");
        let mut child = place.start(&program, &self.config_file(), &self.log())?;
        let pid = i32::try_from(child.id()).context(|| "crispd: note its process".to_owned())?;
        warned(self.process.note(pid));
        let cri = self.cri("crispd")?;
        let deadline = Instant::now() + PATIENCE;
        while !cri.answers().await {
            let ended = child
                .try_wait()
                .context(|| "crispd: look whether it runs".to_owned())?;
            // It ends at once beside one that was started before and had told nobody yet.
            if ended.is_some() && !matches!(self.process.living(), Ok(Some(_))) {
                return Ok(ended);
            }
            if Instant::now() > deadline {
                let text = format!("it does not answer in {} s", PATIENCE.as_secs());
                return Err(self.silent(&text));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(None)
    }

    /// Its lock names it as well, also where a full disk takes no note.
    fn note_holder(&self) {
        warned(self.process.note_holder());
    }

    /// Tells of one that goes on with the program of before an upgrade.
    fn tell_older(&self, ours: &Path) {
        let Ok(Some(living)) = self.process.living() else {
            return;
        };
        let program = ours.join("crispd");
        if launch::runs_another(living.pid, &program) {
            let up = self.home.command("up");
            say(format_args!(
                "crisp: warning: crispd for nodes runs another program than {} has now; `kill {}` ends it, {up} \
                 starts that one, and nodes go on meanwhile",
                program.display(),
                living.pid
            ));
        }
    }

    /// Whether a daemon lives and answers. The answer of a living one is waited for: a second daemon would
    /// end at its lock, and its process would be noted in the place of the first.
    async fn awaits_living(&self) -> Result<bool> {
        let cri = self.cri("crispd")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if cri.answers().await {
                return Ok(true);
            }
            let Some(living) = self.process.living()? else {
                return Ok(false);
            };
            if Instant::now() > deadline {
                let text = format!(
                    "process {} does not answer in {} s",
                    living.pid,
                    PATIENCE.as_secs()
                );
                let remedy = format!("kill -9 {} lets another take its place", living.pid);
                return Err(self.silent(&text).remedy(remedy));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn silent(&self, why: &str) -> Failure {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        Failure::new(format!("crispd: start it: {why}:\n{shown}"))
            .remedy(format!("all of its log is in {}", self.log().display()))
    }

    /// Ends it where it runs, and waits until it is gone. Gives back what nodes changed on this machine, and
    /// tells how much that was.
    pub fn end(&self) -> Result<usize> {
        self.process.end(PATIENCE)?;
        Machine::this()?.give_back(&self.home)
    }

    /// The cgroup parent of a cluster's nodes, which is no other home's: its crispd removes it. A cluster's name may
    /// have dashes, which make a slice of systemd another one's child.
    pub fn cgroup_parent(&self, cluster: &Record, network: &Network) -> String {
        let home = network.bridge.trim_start_matches("crisp-");
        match self.has_systemd_make_cgroups() {
            true => format!("crispclusters-{home}_{}.slice", cluster.number),
            false => format!("/crisp-clusters/{home}-{}", cluster.name),
        }
    }

    /// Whether this daemon has systemd make its cgroups. That is decided at its first start: the machine may
    /// be another one later, and the nodes' cgroups stay where they are.
    fn has_systemd_make_cgroups(&self) -> bool {
        let text = std::fs::read_to_string(self.config_file()).unwrap_or_default();
        let table: toml::Table = text.parse().unwrap_or_default();
        let driver = table.get("cgroup").and_then(|cgroup| cgroup.get("driver"));
        match driver.and_then(toml::Value::as_str) {
            Some(driver) => driver == "systemd",
            None => systemd_makes_cgroups(),
        }
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    fn config(&self, network: &Network) -> String {
        let dir = self.dir.display();
        let Network { bridge, ranges } = network;
        let nodes = ranges.nodes;
        let (driver, parent) = match self.has_systemd_make_cgroups() {
            true => ("systemd", "crispclusters.slice"),
            false => ("cgroupfs", "crisp-clusters"),
        };
        format!(
            "# Written by `crisp cluster`, and again each time that it starts this daemon.\n\
             root = \"{dir}/root\"\n\
             state = \"{dir}/state\"\n\
             listen = \"unix://{dir}/crisp.sock\"\n\
             [cgroup]\n\
             driver = \"{driver}\"\n\
             parent = \"{parent}\"\n\
             [network]\n\
             mode = \"builtin\"\n\
             [network.builtin]\n\
             # Of this directory alone, see network.json.\n\
             bridge = \"{bridge}\"\n\
             subnets = [\"{nodes}\"]\n\
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

/// A failure that holds nothing up is told.
fn warned(outcome: Result<()>) {
    if let Err(failure) = outcome {
        say(format_args!("crisp: {failure}"));
    }
}

/// Whether systemd runs the machine, makes cgroups there for others, and can be asked to.
fn systemd_makes_cgroups() -> bool {
    // On version 1 it delegates nothing safely.
    launch::systemd_answers()
        && crisp_sys::cgroup::Layout::detect().is_ok_and(|layout| layout.is_v2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    #[test]
    fn its_bridge_and_addresses_are_those_of_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::of(&Home::at(dir.path()).unwrap());
        let network = crate::network::tests::usual();
        let config: toml::Table = toml::from_str(&daemon.config(&network)).unwrap();
        let builtin = &config["network"]["builtin"];
        assert_eq!(builtin["bridge"].as_str(), Some("crisp-x"));
        assert_eq!(builtin["subnets"][0].as_str(), Some("10.213.0.0/16"));
    }

    #[test]
    fn who_makes_cgroups_is_decided_once() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::of(&Home::at(dir.path()).unwrap());
        let cluster = Record::new("a-b".parse().unwrap(), 1, 7, "/k".into());
        make_dir(&daemon.dir).unwrap();
        for (driver, parent) in [
            ("systemd", "crispclusters-x_7.slice"),
            ("cgroupfs", "/crisp-clusters/x-a-b"),
        ] {
            let text = format!("[cgroup]\ndriver = \"{driver}\"\n");
            write(&daemon.config_file(), text.as_bytes()).unwrap();
            let network = crate::network::tests::usual();
            assert_eq!(daemon.cgroup_parent(&cluster, &network), parent);
            assert!(daemon.config(&network).contains(&text));
        }
    }
}
