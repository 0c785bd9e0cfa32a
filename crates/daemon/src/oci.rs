//! Handlers that another OCI runtime stands behind: that its program is one, and what it can do, by
//! its own word (`PROGRAM features`, the OCI's features document).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crisp_node::{Abilities, Confinement, OciRuntime, Support};
use crisp_sys::process::command;
use futures::future::join_all;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::config;

/// A program that does not tell by then is no OCI runtime.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// More of what a stranger tells is not read.
const MOST_TOLD: u64 = 1024 * 1024;

/// The programs that tell all that is asked.
const REMEDY: &str = "install runc 1.2 or later, or crun 1.8.6 or later";

/// The version of the specs that Crisp writes.
const SPEC: [u64; 3] = [1, 1, 0];

/// The part of a features document that is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: String,
    oci_version_max: String,
    #[serde(default)]
    mount_options: Vec<String>,
    #[serde(default)]
    linux: OnLinux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OnLinux {
    namespaces: Vec<String>,
    mount_extensions: MountExtensions,
    seccomp: Extension,
    apparmor: Extension,
    selinux: Extension,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MountExtensions {
    idmap: Extension,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extension {
    enabled: bool,
}

/// The answer of a program that ended.
struct Told {
    output: Vec<u8>,
    complaint: Vec<u8>,
    status: ExitStatus,
}

/// The handlers as the engine wants them: each program is asked what it can do, all at the same time,
/// since the start waits for the slowest. A program that can start nothing is told in the log, and its
/// pods are refused; those of others are not.
pub async fn handlers(written: &[config::Handler]) -> Vec<crisp_node::Handler> {
    let programs = written
        .iter()
        .filter_map(|handler| handler.program.as_ref());
    // The default handler is there twice.
    let programs: BTreeMap<&String, &PathBuf> =
        programs.map(|(name, program)| (name, program)).collect();
    let asked = programs
        .into_iter()
        .map(|(name, program)| look_at(name, program));
    let asked = join_all(asked).await;
    let of = |name: &String| asked.iter().find(|oci| oci.name == *name).cloned();
    let handler = |handler: &config::Handler| crisp_node::Handler {
        name: handler.name.clone(),
        cgroup_namespaces: handler.cgroup_namespaces,
        oci: handler.program.as_ref().and_then(|(name, _)| of(name)),
    };
    written.iter().map(handler).collect()
}

async fn look_at(name: &str, program: &Path) -> OciRuntime {
    let can = ask(name, program).await;
    match &can {
        Ok(can) => {
            let recursive_read_only = can.recursive_read_only == Support::Yes;
            let user_namespaces = can.user_namespaces.is_ok();
            tracing::info!(handler = name, program = %program.display(), recursive_read_only, user_namespaces, "an OCI runtime is there");
        }
        Err(why) => {
            tracing::warn!(handler = name, %why, "pods of a runtime handler are refused");
        }
    }
    OciRuntime {
        program: program.to_owned(),
        name: name.to_owned(),
        can,
    }
}

/// The abilities of a program, or why it can start nothing and what to do.
async fn ask(name: &str, program: &Path) -> Result<Abilities, String> {
    let why = match features(program).await {
        Ok(features) => {
            return Ok(Abilities {
                recursive_read_only: features.recursive_read_only(),
                user_namespaces: features.user_namespaces(program),
                confinement: features.linux.confinement(),
            });
        }
        Err(Untold::Refused(_)) if is_older_runtime(program).await => {
            tracing::warn!(handler = name, program = %program.display(), "an OCI runtime does not tell its features: what needs them is refused, and so are seccomp profiles, AppArmor profiles and SELinux labels; {REMEDY}");
            return Ok(Abilities {
                recursive_read_only: Support::Untold,
                user_namespaces: Err(format!(
                    "{} does not tell its features: {REMEDY}, or use a handler of kind native",
                    program.display()
                )),
                confinement: Confinement {
                    seccomp: Support::Untold,
                    apparmor: Support::Untold,
                    selinux: Support::Untold,
                },
            });
        }
        Err(Untold::Refused(why) | Untold::Wrong(why)) => why,
    };
    Err(format!(
        "runtimes.{name}.path: {} cannot start containers: {why}; {REMEDY}, write its path there and \
         restart crispd",
        program.display()
    ))
}

/// How it comes that features are not known.
enum Untold {
    /// The program ended with an error: it may be older than the command.
    Refused(String),
    /// It tells none that Crisp can use.
    Wrong(String),
}

async fn features(program: &Path) -> Result<Features, Untold> {
    let told = ask_for(program, "features").await.map_err(Untold::Wrong)?;
    let read: Result<Features, _> = serde_json::from_slice(&told.output);
    let features = read.map_err(|error| match told.status.success() {
        true => {
            let said = beginning(&told.output);
            Untold::Wrong(format!(
                "asked for its features, it says {said:?} ({error})"
            ))
        }
        false => {
            let (status, said) = (told.status, beginning(&told.complaint));
            Untold::Refused(format!(
                "asked for its features, it ends with {status} and says {said:?}"
            ))
        }
    })?;
    if !features.take_our_specs() {
        let (min, max) = (&features.oci_version_min, &features.oci_version_max);
        let [major, minor, patch] = SPEC;
        return Err(Untold::Wrong(format!(
            "it takes specs of the OCI's versions {min} to {max}, and Crisp writes {major}.{minor}.{patch}"
        )));
    }
    Ok(features)
}

/// Whether a program that knows no command for its features is an OCI runtime all the same: then its
/// version tells of which specs.
async fn is_older_runtime(program: &Path) -> bool {
    let Ok(told) = ask_for(program, "--version").await else {
        return false;
    };
    let text = String::from_utf8_lossy(&told.output);
    let spec = text.lines().find_map(|line| line.strip_prefix("spec:"));
    let is_of_ours = |spec: &str| version(spec.trim()).is_some_and(|[major, ..]| major == SPEC[0]);
    told.status.success() && spec.is_some_and(is_of_ours)
}

async fn ask_for(program: &Path, word: &str) -> Result<Told, String> {
    match tokio::time::timeout(TELLS_WITHIN, tell(program, word)).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(format!("it cannot be run: {error}")),
        Err(_) => Err(format!(
            "asked for its {}, it tells nothing within {TELLS_WITHIN:?}",
            word.trim_start_matches('-')
        )),
    }
}

fn beginning(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.trim().chars().take(80).collect()
}

/// Asks the program for something. It is killed when this is dropped.
async fn tell(program: &Path, word: &str) -> std::io::Result<Told> {
    let mut child = Command::from(command(program))
        .arg(word)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let streams = (child.stdout.take(), child.stderr.take());
    if let (Some(output), Some(errors)) = streams {
        let (mut output, mut errors) = (output.take(MOST_TOLD), errors.take(MOST_TOLD));
        let both = (
            output.read_to_end(&mut said),
            errors.read_to_end(&mut complaint),
        );
        tokio::try_join!(both.0, both.1)?;
    }
    Ok(Told {
        output: said,
        complaint,
        status: child.wait().await?,
    })
}

impl OnLinux {
    /// A program that was built without one of them passes over it in a spec, or says nothing of it
    /// in its features.
    fn confinement(&self) -> Confinement {
        let support = |extension: &Extension| match extension.enabled {
            true => Support::Yes,
            false => Support::No,
        };
        Confinement {
            seccomp: support(&self.seccomp),
            apparmor: support(&self.apparmor),
            selinux: support(&self.selinux),
        }
    }
}

impl Features {
    fn recursive_read_only(&self) -> Support {
        match self.mount_options.iter().any(|option| option == "rro") {
            true => Support::Yes,
            false => Support::No,
        }
    }

    /// Whether pods can have user namespaces, or why not. Crisp maps the owners of volumes itself; but
    /// programs that know idmapped mounts are also those that show a user namespace files below
    /// directories that only the host's root enters, as a pod's are.
    fn user_namespaces(&self, program: &Path) -> Result<(), String> {
        let linux = &self.linux;
        let lacks = match linux.namespaces.iter().any(|kind| kind == "user") {
            false => "user namespaces",
            true if linux.mount_extensions.idmap.enabled => return Ok(()),
            true => "idmapped mounts, which user namespaces need",
        };
        let program = program.display();
        Err(format!(
            "{program} says that it has no {lacks}: use a handler of kind native"
        ))
    }

    fn take_our_specs(&self) -> bool {
        let (min, max) = (&self.oci_version_min, &self.oci_version_max);
        version(min).is_some_and(|min| min <= SPEC) && version(max).is_some_and(|max| SPEC <= max)
    }
}

/// The numbers of a version; what follows a dash is left out.
fn version(text: &str) -> Option<[u64; 3]> {
    let numbers = text.split(['-', '+']).next()?.split('.').map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use crisp_model::CgroupNamespaces;

    use super::*;

    fn told(text: &str) -> Features {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let takes = |min: &str, max: &str| {
            let text = format!("{{\"ociVersionMin\": {min:?}, \"ociVersionMax\": {max:?}}}");
            told(&text).take_our_specs()
        };
        assert!(takes("1.0.0", "1.2.1"));
        assert!(takes("1.0.0-rc1", "1.1.0+dev"));
        assert!(!takes("1.1.1", "1.2.0"));
        assert!(!takes("1.0.0", "1.0.1"));
        assert!(!takes("one", "1.2.0"));
    }

    #[test]
    fn confinement_is_there_where_a_program_says_so() {
        let with = |linux: &str| {
            let text = format!(
                "{{\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.2.0\", \"linux\": {linux}}}"
            );
            told(&text).linux.confinement()
        };
        let none = Confinement {
            seccomp: Support::No,
            apparmor: Support::No,
            selinux: Support::No,
        };
        assert_eq!(with("{}"), none);
        let off = "{\"seccomp\": {\"enabled\": false}, \"apparmor\": {\"enabled\": false}}";
        assert_eq!(with(off), none);
        let on = "{\"seccomp\": {\"enabled\": true, \"actions\": []}, \
                  \"apparmor\": {\"enabled\": true}, \"selinux\": {\"enabled\": true}}";
        let all = Confinement {
            seccomp: Support::Yes,
            apparmor: Support::Yes,
            selinux: Support::Yes,
        };
        assert_eq!(with(on), all);
    }

    #[test]
    fn user_namespaces_are_there_where_a_program_has_all_that_they_need() {
        let with = |linux: &str| {
            let text = format!(
                "{{\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.2.0\", \"linux\": {linux}}}"
            );
            told(&text).user_namespaces(Path::new("/x"))
        };
        let idmap = "\"mountExtensions\": {\"idmap\": {\"enabled\": true}}";
        assert_eq!(
            with(&format!("{{\"namespaces\": [\"user\"], {idmap}}}")),
            Ok(())
        );
        let no_users = format!("{{\"namespaces\": [\"pid\"], {idmap}}}");
        for (linux, words) in [
            (&*no_users, "no user namespaces"),
            ("{\"namespaces\": [\"user\"]}", "no idmapped mounts"),
        ] {
            let why = with(linux).unwrap_err();
            assert!(why.contains(words) && why.ends_with("native"), "{why}");
        }
    }

    /// Whether or not they tell anything: the start would take as long as all of them together.
    #[tokio::test]
    async fn programs_are_asked_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let handler = |name: &str| {
            let path = dir.path().join(name);
            // Each waits for the other.
            let other = if name == "one" { "two" } else { "one" };
            let dir = dir.path().display();
            let text = format!(
                "#!/bin/sh\n: >{dir}/{name}.began\n\
                 until [ -e {dir}/{other}.began ]; do sleep 0.05; done\n\
                 echo '{{\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.2.0\"}}'\n"
            );
            crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o700).unwrap();
            config::Handler {
                name: name.to_owned(),
                cgroup_namespaces: CgroupNamespaces::default(),
                program: Some((name.to_owned(), path)),
            }
        };
        let written = [handler("two"), handler("one")];
        let found = handlers(&written).await;
        for (written, found) in written.iter().zip(found) {
            assert_eq!(written.name, found.name);
            let oci = found.oci.unwrap();
            assert_eq!(oci.name, written.name);
            oci.can.unwrap();
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_runtime_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, line: &str| {
            let path = dir.path().join(name);
            let text = format!("#!/bin/sh\n{line}\n");
            crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o700).unwrap();
            path
        };
        let tells = |range: &str| format!("echo '{{{range}, \"mountOptions\": [\"rro\"]}}'");
        let ours = tells("\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.2.0\"");
        let good = ask("x", &script("good", &ours)).await.unwrap();
        assert_eq!(good.recursive_read_only, Support::Yes);
        let why = good.user_namespaces.unwrap_err();
        assert!(why.contains("has no user namespaces"), "{why}");
        let late = tells("\"ociVersionMin\": \"1.3.0\", \"ociVersionMax\": \"1.4.0\"");
        let old = "echo unknown command features >&2; exit 1";
        let tells_version = |spec: &str| {
            format!(
                "case $1 in --version) echo 'x version 9'; echo 'spec: {spec}';; *) {old};; esac"
            )
        };
        let later = tells_version("2.0.0");
        let older = script("older", &tells_version("1.0.2-dev"));
        let untold = ask("x", &older).await.unwrap();
        assert_eq!(untold.recursive_read_only, Support::Untold);
        assert_eq!(untold.confinement.seccomp, Support::Untold);
        let why = untold.user_namespaces.unwrap_err();
        assert!(why.contains("does not tell its features"), "{why}");
        for (path, word) in [
            (script("late", &late), "versions 1.3.0 to 1.4.0"),
            (script("old", old), "says \"unknown command features\""),
            (script("later", &later), "says \"unknown command features\""),
            (script("silent", "exit 0"), "it says \"\""),
            (script("stuck", "exec sleep 60"), "nothing within 5s"),
            (dir.path().join("missing"), "cannot be run: No such file"),
        ] {
            let why = ask("x", &path).await.unwrap_err();
            assert!(
                why.starts_with("runtimes.x.path: ") && why.contains(word),
                "{why}"
            );
        }
    }
}
