//! The start of the outer crispd, apart from the command that it was needed by: with a session of its own, and where
//! systemd runs the machine in a scope of its own. The end of an ssh session, a job or a unit from which `up` was
//! typed ends all that is in its cgroup.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::failure::{Context as _, Result};
use crate::programs;

/// Where the outer crispd is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the cgroup of this program.
    Here,
    /// In a scope of systemd's, by systemd-run(1), which then becomes the program.
    Scope(PathBuf),
}

impl Place {
    /// The place that this machine has.
    pub fn of_machine() -> Self {
        let asked = systemd_answers().then(|| programs::of_machine("systemd-run").ok());
        asked.flatten().map_or(Self::Here, Self::Scope)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Here => crisp_sys::process::command(program),
            Self::Scope(launcher) => {
                let mut command = crisp_sys::process::command(launcher);
                command
                    .args(["--scope", "--quiet", "--collect", "--slice=system.slice"])
                    .arg("--property=TasksMax=infinity")
                    .arg("--description=crispd for the nodes of crisp cluster")
                    .arg("--")
                    .arg(program);
                command
            }
        };
        // The file system of the caller's directory could not be unmounted while it runs.
        command.current_dir("/");
        command
    }

    /// Starts a crispd with its configuration; it writes to its log. All paths are absolute, since it works in `/`.
    pub fn start(&self, program: &Path, config: &Path, log: &Path) -> Result<Child> {
        let opened = File::options().create(true).append(true).open(log);
        let opened = opened.context(|| format!("crispd: open its log {}", log.display()))?;
        let mut command = self.command(program);
        command
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(opened);
        // Keys of this terminal are not for it, nor is its end.
        crisp_sys::session::lead_session(&mut command);
        command
            .spawn()
            .context(|| format!("crispd: start {}", program.display()))
    }
}

/// Whether systemd runs the machine and can be asked.
pub fn systemd_answers() -> bool {
    Path::new("/run/systemd/system").is_dir() && Path::new("/run/dbus/system_bus_socket").exists()
}

/// Whether a process runs another program than this file has now, as after an upgrade.
pub fn runs_another(pid: i32, program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    // Also a file that was replaced can be read there.
    let own = PathBuf::from(format!("/proc/{pid}/exe"));
    let [running, now] = [own.as_path(), program].map(|path| fs::metadata(path).ok());
    let Some((running, now)) = running.zip(now) else {
        return false;
    };
    if (running.dev(), running.ino()) == (now.dev(), now.ino()) {
        return false;
    }
    // A build that changed nothing makes the same file once more.
    running.len() != now.len() || fs::read(own).ok() != fs::read(program).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(place: &Place) -> Vec<String> {
        let command = place.command(Path::new("/o/crispd"));
        assert_eq!(command.get_current_dir(), Some(Path::new("/")), "{place:?}");
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_scope_has_the_program_with_its_words() {
        assert_eq!(words(&Place::Here), ["/o/crispd"]);
        let scope = words(&Place::Scope("/usr/bin/systemd-run".into()));
        assert_eq!(scope[..2], ["/usr/bin/systemd-run", "--scope"]);
        assert_eq!(scope[scope.len() - 2..], ["--", "/o/crispd"]);
    }

    #[test]
    fn a_program_that_was_replaced_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = crisp_sys::process::command(&program)
            .arg("20")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let runs_another = || runs_another(pid, &program);
        assert!(!runs_another());
        fs::remove_file(&program).unwrap();
        assert!(!runs_another(), "there is nothing to compare with");
        fs::copy("/bin/sleep", &program).unwrap();
        assert!(!runs_another(), "the same once more");
        fs::copy("/bin/cat", dir.path().join("other")).unwrap();
        fs::rename(dir.path().join("other"), &program).unwrap();
        assert!(runs_another());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
