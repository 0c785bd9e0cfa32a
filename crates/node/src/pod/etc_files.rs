//! The files that a pod shows to its containers: `/etc/hosts`, `/etc/resolv.conf`,
//! `/etc/hostname`. A kubelet usually mounts a hosts file of its own over the first.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::fchown;
use std::path::Path;

use crisp_model::{DnsConfig, NamespaceMode, PodConfig};
use crisp_sys::{file, selinux};

/// systemd-resolved's list of real servers: its stub at 127.0.0.53 is not there in a pod.
const RESOLVED_LIST: &str = "/run/systemd/resolve/resolv.conf";
const NODE_RESOLV_CONF: &str = "/etc/resolv.conf";
const NODE_HOSTS: &str = "/etc/hosts";
/// No such file of a node is longer.
const MAX_FILE: u64 = 1 << 20;

/// The content of a file, for a pod with these addresses.
type Content = fn(&PodConfig, &[IpAddr]) -> io::Result<Vec<u8>>;

const FILES: [(&str, Content); 3] = [
    ("hosts", hosts_of),
    ("resolv.conf", |config, _| resolv_conf(config)),
    ("hostname", |config, _| Ok(hostname(config).into_bytes())),
];

/// A pod, and the SELinux label of its files.
type Labelled<'a> = (&'a PodConfig, Option<&'a str>);

/// The last step of writing a file.
type Finish<'a> = &'a dyn Fn(&File) -> io::Result<()>;

/// When files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// While the pod boots: a daemon that is killed meanwhile leaves a pod that is undone.
    Boot,
    /// Afterwards: those that are missing.
    Later,
}

/// Writes the three files into the directory of a pod that boots.
pub(crate) fn write(dir: &Path, pod: Labelled<'_>, ips: &[IpAddr]) -> io::Result<()> {
    file::make_private_dirs(dir)?;
    write_some(dir, (pod, ips), When::Boot)
}

/// Writes the files that a disk has lost since: no container of the pod could be started without
/// them. The others keep what containers wrote into them.
pub(crate) fn complete(dir: &Path, pod: Labelled<'_>, ips: &[IpAddr]) -> io::Result<()> {
    file::make_private_dirs(dir)?;
    write_some(dir, (pod, ips), When::Later)
}

fn is_lost(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(found) => !found.is_file(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn write_some(
    dir: &Path,
    ((config, label), ips): (Labelled<'_>, &[IpAddr]),
    when: When,
) -> io::Result<()> {
    let (user, group) = config.root_on_host();
    let finish = |file: &File| {
        fchown(file, Some(user), Some(group))?;
        label.map_or(Ok(()), |label| give_label(file, label))
    };
    for (name, content) in FILES {
        let path = dir.join(name);
        if when == When::Boot || is_lost(&path) {
            write_whole(&path, &content(config, ips)?, (&finish, when))?;
        }
    }
    Ok(())
}

/// Writes a file in the place of whatever has its name.
fn write_whole(path: &Path, content: &[u8], (finish, when): (Finish<'_>, When)) -> io::Result<()> {
    // Readable by every user of the containers; the directories above keep others out.
    let write = || match when {
        When::Boot => file::write_new(path, content, 0o644, finish),
        // It has its name once it has its owner and its label: a file that a crash left without them
        // would be taken for whole ever after.
        When::Later => file::write_finished(path, content, 0o644, finish),
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            file::remove_if_there(path)?;
            write()
        }
        written => written,
    }
}

/// A file system that keeps no labels is passed over: the policy decides about all of it at once.
fn give_label(file: impl AsFd, label: &str) -> io::Result<()> {
    match selinux::set_label(file, label) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        set => set,
    }
}

fn hosts_of(config: &PodConfig, ips: &[IpAddr]) -> io::Result<Vec<u8>> {
    let host_network = config.namespaces.network == NamespaceMode::Node;
    let node_hosts = host_network
        .then(|| read_node(NODE_HOSTS))
        .transpose()?
        .filter(|hosts| !hosts.is_empty());
    Ok(node_hosts.unwrap_or_else(|| hosts(&config.hostname, ips).into_bytes()))
}

fn hosts(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in ips.iter().filter(|_| !hostname.is_empty()) {
        // Writing to a string cannot fail.
        writeln!(text, "{ip}\t{hostname}").ok();
    }
    text
}

fn hostname(config: &PodConfig) -> String {
    if config.hostname.is_empty() {
        node_name() + "\n"
    } else {
        format!("{}\n", config.hostname)
    }
}

fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.unwrap_or_default().trim().to_owned()
}

fn resolv_conf(config: &PodConfig) -> io::Result<Vec<u8>> {
    if config.dns != DnsConfig::default() {
        return Ok(dns_text(&config.dns).into_bytes());
    }
    let text = read_node(NODE_RESOLV_CONF)?;
    let stub_alone = config.namespaces.network != NamespaceMode::Node && only_stub(&text);
    if stub_alone && let Ok(list) = file::read_bounded(Path::new(RESOLVED_LIST), MAX_FILE) {
        return Ok(list);
    }
    Ok(text)
}

fn read_node(path: &str) -> io::Result<Vec<u8>> {
    match file::read_bounded(Path::new(path), MAX_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

fn only_stub(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .peekable();
    servers.peek().is_some() && servers.all(|server| server.trim() == "127.0.0.53")
}

fn dns_text(dns: &DnsConfig) -> String {
    let mut text = String::new();
    let mut line = |key: &str, words: &str| {
        if !words.is_empty() {
            // Writing to a string cannot fail.
            writeln!(text, "{key} {words}").ok();
        }
    };
    line("search", &dns.searches.join(" "));
    for server in &dns.servers {
        line("nameserver", server);
    }
    line("options", &dns.options.join(" "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_files_are_written_again_and_others_left() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::machine::tests::sample::pod_config();
        write(dir.path(), (&config, None), &[]).unwrap();
        let read = |name| std::fs::read(dir.path().join(name)).unwrap();
        let (hosts, hostname) = (read("hosts"), read("hostname"));
        file::write_atomic(&dir.path().join("resolv.conf"), b"changed", 0o644).unwrap();
        file::remove_if_there(&dir.path().join("hosts")).unwrap();
        file::remove_if_there(&dir.path().join("hostname")).unwrap();
        std::fs::create_dir(dir.path().join("hostname")).unwrap();
        complete(dir.path(), (&config, None), &[]).unwrap();
        assert_eq!((read("hosts"), read("hostname")), (hosts, hostname));
        assert_eq!(read("resolv.conf"), b"changed");
    }

    /// A kernel without SELinux keeps the attribute, which is all that is looked at here.
    #[test]
    fn privileged_files_have_the_label_of_their_pod() {
        if selinux::is_on() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = crate::machine::tests::sample::pod_config();
        let label = |name: &str| {
            let file = std::fs::File::open(dir.path().join(name)).unwrap();
            selinux::label(file).unwrap()
        };
        write(dir.path(), (&config, None), &[]).unwrap();
        assert_eq!(label("hosts"), None);
        for wanted in ["system_u:object_r:container_file_t:s0:c1,c2", "other"] {
            write(dir.path(), (&config, Some(wanted)), &[]).unwrap();
            for name in ["hosts", "hostname", "resolv.conf"] {
                assert_eq!(label(name).as_deref(), Some(wanted), "{name}");
            }
        }
    }

    #[test]
    fn a_file_without_its_label_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::machine::tests::sample::pod_config();
        // The kernel takes no attribute of this length (E2BIG).
        let label = "x".repeat(70_000);
        write(dir.path(), (&config, Some(&label)), &[]).unwrap_err();
        assert!(!dir.path().join("hosts").exists());
        write(dir.path(), (&config, None), &[]).unwrap();
        let names = std::fs::read_dir(dir.path()).unwrap();
        assert_eq!(names.count(), FILES.len(), "nothing unfinished is left");
    }

    #[test]
    fn a_file_system_without_labels_is_passed_over() {
        // The kernel's own files take none (ENOTSUP).
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        give_label(&file, "system_u:object_r:container_file_t:s0").unwrap();
    }

    #[test]
    fn dns_settings_become_lines() {
        let dns = DnsConfig {
            servers: vec!["10.10.10.10".into(), "::1".into()],
            searches: vec!["google.com".into(), "b".into()],
            options: vec!["ndots:8".into()],
        };
        let want = "search google.com b\nnameserver 10.10.10.10\nnameserver ::1\noptions ndots:8\n";
        assert_eq!(dns_text(&dns), want);
    }

    #[test]
    fn the_stub_of_the_node_is_recognised() {
        assert!(only_stub(b"# x\nnameserver 127.0.0.53\noptions edns0\n"));
        assert!(!only_stub(b"nameserver 127.0.0.53\nnameserver 9.9.9.9\n"));
        assert!(!only_stub(b""));
    }

    #[test]
    fn hosts_name_the_pod_at_each_address() {
        let text = hosts(
            "web",
            &["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        );
        assert!(text.ends_with("10.88.0.2\tweb\nfd00::2\tweb\n"));
        assert!(!hosts("", &["10.88.0.2".parse().unwrap()]).contains("10.88"));
    }
}
