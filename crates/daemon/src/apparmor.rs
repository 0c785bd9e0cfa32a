//! The default AppArmor profile: written here, compiled and loaded by apparmor_parser(8), and
//! enforced on containers that name no profile or ask for `RuntimeDefault`.
//!
//! It is loaded anew at each start of the daemon, so that a new version brings its own. Containers
//! that run keep the profile's name, and the kernel replaces what stands behind it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crisp_node::host::Host;
use crisp_sys::process::command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The profile's name.
pub const NAME: &str = "crisp-default";
/// Where distributions install the parser; a service may have a short `PATH`.
const PARSERS: [&str; 3] = [
    "/usr/sbin/apparmor_parser",
    "/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
];
/// The version of the policy language, where the distribution has its description: without it the
/// parser takes the newest, in which more has to be allowed by name.
const LANGUAGE: &str = "/etc/apparmor.d/abi/3.0";
/// The label of the process itself.
const OWN_LABEL: &str = "/proc/self/attr/current";
/// A slow machine compiles for some seconds.
const WITHIN: Duration = Duration::from_secs(60);
/// More of the parser's complaint is not read.
const MOST_SAID: u64 = 512;

/// The rules: a container may do what its user and capabilities let it do, but not mount, not write
/// to the kernel's own files below `/proc` and `/sys`, and not trace or signal what is outside.
///
/// The kernel matches resolved paths: below `/proc`, what is no number is the kernel's. Of
/// `/proc/sys` only the limits of shared memory, which are the pod's own, can be written.
const RULES: &str = "
  file,
  network,
  capability,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer=crisp-default,
  ptrace (trace, read, tracedby, readby) peer=crisp-default,

  deny /proc/[a-z]* w,
  deny /proc/[a-rt-z]*/** w,
  deny /proc/s[a-xz]*/** w,
  deny /proc/sys[a-z]*/** w,
  deny /proc/sys/[a-jl-z]*/** w,
  deny /proc/sys/kernel/[a-rt-z]** w,
  deny /proc/sys/kernel/s[a-gi-z]** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/{kcore,kmem,mem} rwklx,

  deny /sys/[a-eg-z]*/** wklx,
  deny /sys/f[a-rt-z]*/** wklx,
  deny /sys/fs/[abd-z]*/** wklx,
  deny /sys/fs/c[a-fh-z]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
";

/// Loads the profile where the kernel has `AppArmor`, and notes on the host how that went.
pub async fn set_up(host: &mut Host) {
    if !host.has_apparmor() {
        return;
    }
    let loaded = load().await;
    if let Err(why) = &loaded {
        tracing::warn!(%why, "the default AppArmor profile is not loaded: containers that name none are not confined by AppArmor");
    }
    host.set_apparmor_default(loaded);
}

/// Loads the profile.
///
/// # Errors
/// A text that tells why it is not loaded and what to do.
async fn load() -> Result<&'static str, String> {
    let parser = PARSERS.into_iter().map(PathBuf::from).find(|p| p.is_file());
    let parser = parser.ok_or(
        "apparmor_parser is not installed; install it (the package apparmor) and restart crispd",
    )?;
    let label = std::fs::read_to_string(OWN_LABEL).unwrap_or_default();
    let text = profile(Path::new(LANGUAGE).exists(), &label);
    match tokio::time::timeout(WITHIN, run(&parser, &text)).await {
        Ok(Ok(said)) if said.is_empty() => Ok(NAME),
        Ok(Ok(said)) => Err(format!("{} refused it: {said}", parser.display())),
        Ok(Err(error)) => Err(format!("{} cannot be run: {error}", parser.display())),
        Err(_) => Err(format!(
            "{} did not end within {WITHIN:?}",
            parser.display()
        )),
    }
}

/// The profile's text, for a daemon that runs under `label`: the shims that signal its containers
/// have the same one.
fn profile(has_language: bool, label: &str) -> String {
    let language = match has_language {
        true => "abi <abi/3.0>,\n",
        false => "",
    };
    let own = label.split_whitespace().next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let daemon = match own {
        "" | "unconfined" => String::new(),
        own if own.chars().all(plain) => format!("  signal (receive) peer=\"{own}\",\n"),
        // Nested and stacked labels: whatever they are.
        _ => "  signal (receive),\n".to_owned(),
    };
    format!(
        "{language}profile {NAME} flags=(attach_disconnected, mediate_deleted) {{{RULES}{daemon}}}\n"
    )
}

/// Has the parser replace the profile in the kernel, and returns its complaint.
async fn run(parser: &Path, text: &str) -> std::io::Result<String> {
    let mut child = Command::from(command(parser))
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A parser that ends before it has read says itself what is wrong.
        input.write_all(text.as_bytes()).await.ok();
    }
    let mut said = Vec::new();
    if let Some(errors) = child.stderr.take() {
        errors.take(MOST_SAID).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
    Ok(match (status.success(), said.is_empty()) {
        (true, _) => String::new(),
        (false, true) => status.to_string(),
        (false, false) => said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_under_a_profile_may_signal_its_containers() {
        for (label, wanted) in [
            ("", None),
            ("unconfined\n", None),
            (
                "lxc-node (enforce)\n",
                Some("  signal (receive) peer=\"lxc-node\",\n"),
            ),
            ("a//&:b://c (enforce)\n", Some("  signal (receive),\n")),
        ] {
            let text = profile(true, label);
            assert!(text.starts_with("abi <abi/3.0>,\nprofile crisp-default "));
            let rest = text.split(RULES).nth(1).unwrap();
            assert_eq!(
                rest.strip_suffix("}\n"),
                Some(wanted.unwrap_or_default()),
                "{label}"
            );
        }
        assert!(profile(false, "").starts_with("profile "));
    }

    #[tokio::test]
    async fn a_parser_that_reads_nothing_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let parser = dir.path().join("apparmor_parser");
        let script = "#!/bin/sh\nexec <&-\necho 'no interface' >&2\necho here >&2\nexit 1\n";
        crisp_sys::file::write_atomic(&parser, script.as_bytes(), 0o755).unwrap();
        // More than a pipe holds.
        let said = run(&parser, &"x".repeat(1 << 20)).await.unwrap();
        assert_eq!(said, "no interface; here");
    }
}
