//! A containerd of its own, which pulls images as a kubelet has it do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crisp_e2e::crictl::Crictl;
use crisp_e2e::netns::Net;
use crisp_e2e::patience::eventually;
use crisp_e2e::tools;
use rustix::process::{Pid, Signal, kill_process};

/// A containerd that runs.
pub struct Containerd {
    dir: PathBuf,
    process: Child,
}

impl Containerd {
    /// Starts one below a directory. With `certs` it finds registries as crispd does. It keeps the
    /// compressed layers of images or, as an option of its own says, does not.
    pub fn start(net: &Net, dir: &Path, certs: &Path, keeps_layers: bool) -> Self {
        fs::create_dir_all(dir).unwrap();
        let place = dir.display();
        let text = format!(
            "version = 3\n\
             root = \"{place}/root\"\n\
             state = \"{place}/state\"\n\
             disabled_plugins = [\n\
                \"io.containerd.nri.v1.nri\",\n\
                \"io.containerd.snapshotter.v1.blockfile\",\n\
                \"io.containerd.snapshotter.v1.devmapper\",\n\
                \"io.containerd.snapshotter.v1.erofs\",\n\
                \"io.containerd.snapshotter.v1.zfs\",\n\
             ]\n\
             [grpc]\n\
             address = \"{place}/containerd.sock\"\n\
             [plugins.\"io.containerd.cri.v1.images\"]\n\
             discard_unpacked_layers = {}\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\n\
             config_path = \"{}\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\n\
             restrict_oom_score_adj = true\n\
             cni = {{bin_dirs = [\"{place}/bin\"], conf_dir = \"{place}/net.d\"}}\n",
            !keeps_layers,
            certs.display(),
        );
        fs::write(dir.join("config.toml"), text).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let mut command = Command::new(tools::tool("containerd"));
        command.arg("--config").arg(dir.join("config.toml"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = net.run(|| command.spawn().unwrap());
        let containerd = Self {
            dir: dir.to_owned(),
            process,
        };
        eventually("containerd answers", || {
            containerd.crictl().output(&["version"]).status.success()
        });
        containerd
    }

    /// crictl for it.
    pub fn crictl(&self) -> Crictl {
        Crictl::at(&self.dir.join("containerd.sock"))
    }

    /// Runs `ctr` in the namespace of kubelets.
    pub fn ctr(&self, words: &[&str]) -> String {
        let mut command = Command::new(tools::tool("ctr"));
        command
            .arg("--address")
            .arg(self.dir.join("containerd.sock"));
        command.args(["--namespace", "k8s.io"]).args(words);
        tools::succeeded("ctr", &command.output().unwrap())
    }

    /// Ends it, as systemd does.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.process.try_wait().unwrap().is_some() {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        eventually("containerd has ended", || {
            self.process.try_wait().unwrap().is_some()
        });
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            eprintln!("--- containerd's log\n{log}\n---");
        }
        self.end();
    }
}
