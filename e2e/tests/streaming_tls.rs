//! Sessions over TLS, with crictl as the client of both transports, while the certificate is renewed,
//! broken and mended under them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crisp_e2e::streams::{self, TRANSPORTS, fed};
use crisp_e2e::{Cri, Node, Options, configs, tools, trial_with};
use tempfile::TempDir;

/// Said by the daemon when files cannot be used.
const GOES_ON: &str = "goes on with its last certificate";

/// The daemon's certificate and key, and others to put in their place.
struct Files(TempDir);

impl Files {
    /// All certificates are for the name that crictl asks for, and each is its own root.
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for name in ["one", "two", "three"] {
            let [certificate, key] = files.of(name).map(|path| path.display().to_string());
            let subject = format!("/CN=streaming {name}");
            let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                        -addext subjectAltName=DNS:localhost";
            let paths = ["-subj", &subject, "-keyout", &key, "-out", &certificate];
            let words: Vec<&str> = made.split_whitespace().chain(paths).collect();
            drop(tools::run("openssl", &words));
        }
        files.put("one");
        files
    }

    /// A certificate and its key.
    fn of(&self, name: &str) -> [PathBuf; 2] {
        ["crt", "key"].map(|end| self.0.path().join(format!("{name}.{end}")))
    }

    /// Renews both as those do who renew certificates: each file is replaced at once.
    fn put(&self, name: &str) {
        for (from, to) in self.of(name).iter().zip(self.of("served")) {
            replace(&to, &fs::read(from).unwrap());
        }
    }

    fn options(&self) -> Options {
        let [certificate, key] = self.of("served");
        Options {
            config: format!("[streaming]\ncertificate = {certificate:?}\nkey = {key:?}\n"),
            ..Options::default()
        }
    }

    /// A crictl command that trusts the certificate `root` alone. It wants one of its own too, which
    /// nobody asks it for.
    fn crictl(&self, node: &Node, verb: &str, transport: &str, root: &str) -> Words {
        let [certificate, key] = self.of(root).map(|path| path.display().to_string());
        let trust = format!("--tls-ca={certificate}");
        let own = [
            format!("--tls-cert={certificate}"),
            format!("--tls-key={key}"),
        ];
        let mut command = node.crictl().command(&[verb, "--transport", transport]);
        command.arg(trust).args(own);
        Words(command)
    }
}

/// A command that is not whole yet.
struct Words(std::process::Command);

impl Words {
    fn and(mut self, words: &[&str]) -> std::process::Command {
        self.0.args(words);
        self.0.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.0.stderr(Stdio::piped());
        self.0
    }
}

fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

/// A session with a command that answers each line with the same.
struct Talk {
    client: Child,
    says: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Talk {
    fn start(node: &Node, mut command: std::process::Command) -> Self {
        let mut client = node.net.run(|| command.spawn().unwrap());
        let says = client.stdin.take().unwrap();
        let hears = BufReader::new(client.stdout.take().unwrap());
        let mut talk = Self {
            client,
            says,
            hears,
        };
        talk.goes_on("begins");
        talk
    }

    /// Says a line, and hears it.
    #[track_caller]
    fn goes_on(&mut self, line: &str) {
        writeln!(self.says, "{line}").unwrap();
        let mut heard = String::new();
        self.hears.read_line(&mut heard).unwrap();
        if heard.is_empty() {
            let ended = self.client.wait().unwrap();
            let said = std::io::read_to_string(self.client.stderr.take().unwrap());
            panic!("{line}: the session ended with {ended}: {}", said.unwrap());
        }
        assert_eq!(heard, format!("{line}\n"));
    }

    #[track_caller]
    fn ends_well(self) {
        let Self {
            client,
            says,
            hears,
        } = self;
        drop(says);
        drop(hears);
        let ended = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{said}");
    }
}

/// Whether a new session with this root comes about. A session that does not has to say that the
/// certificate is why.
#[track_caller]
fn trusts(node: &Node, files: &Files, (transport, root): (&str, &str), id: &str) -> bool {
    let command = files.crictl(node, "exec", transport, root);
    let ended = fed(node, command.and(&["-i", id, "cat"]), b"through");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    if ended.status.success() {
        assert_eq!(ended.stdout, b"through", "{said}");
        return true;
    }
    assert!(
        said.contains("certificate signed by unknown authority"),
        "{said}"
    );
    false
}

/// How often the daemon told that files cannot be used.
fn told(node: &Node) -> Vec<String> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(GOES_ON));
    lines.map(str::to_owned).collect()
}

/// Runs a test on a node that serves certificate one, with a container that echoes what it is told.
fn with_container(test: impl FnOnce(&Node, &mut Cri, &Files, &str)) {
    let files = Files::new();
    trial_with(&files.options(), |node| {
        let mut cri = node.cri();
        let pod = node.pod("tls");
        let id = cri.run_pod(&pod);
        let mut config = configs::container("main", &["cat"]);
        config.stdin = true;
        let container = cri.run(&id, &pod, &config);
        test(node, &mut cri, &files, &container);
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_sessions_outlive_the_certificate_that_they_began_with() {
    with_container(|node, _, files, id| {
        let begun = |verb, transport, rest: &[&str]| {
            let words = [&["-i", id][..], rest].concat();
            let command = files.crictl(node, verb, transport, "one").and(&words);
            Talk::start(node, command)
        };
        let mut old = Vec::new();
        for transport in TRANSPORTS {
            old.push(begun("exec", transport, &["cat"]));
        }
        let mut attached = begun("attach", TRANSPORTS[0], &[]);
        files.put("two");
        for transport in TRANSPORTS {
            let trusts = |root| trusts(node, files, (transport, root), id);
            assert!(trusts("two") && !trusts("one"), "{transport}");
            old.push({
                let command = files.crictl(node, "exec", transport, "two");
                Talk::start(node, command.and(&["-i", id, "cat"]))
            });
        }
        files.put("three");
        for transport in TRANSPORTS {
            let trusts = |root| trusts(node, files, (transport, root), id);
            assert!(trusts("three") && !trusts("two"), "{transport}");
        }
        for talk in &mut old {
            talk.goes_on("unharmed");
        }
        attached.goes_on("unharmed");
        old.into_iter().for_each(Talk::ends_well);
        attached.client.kill().unwrap();
        attached.client.wait().unwrap();
        assert_eq!(told(node), Vec::<String>::new(), "all were whole");
    });
}

#[test]
fn privileged_files_that_cannot_be_used_leave_the_last_certificate() {
    with_container(|node, _, files, id| {
        let command = files.crictl(node, "exec", TRANSPORTS[0], "one");
        let mut old = Talk::start(node, command.and(&["-i", id, "cat"]));
        let [certificate, key] = files.of("served");
        let others_key = fs::read(&files.of("two")[1]).unwrap();
        // Each harms the files; the log names the file beside it then.
        let harms: [(&dyn Fn(), &Path); 4] = [
            (&|| replace(&certificate, b"no certificate"), &certificate),
            (&|| replace(&certificate, b""), &certificate),
            (&|| replace(&key, &others_key), &certificate),
            (&|| fs::remove_file(&key).unwrap(), &key),
        ];
        for (number, (harm, named)) in harms.into_iter().enumerate() {
            files.put("one");
            assert!(trusts(node, files, (TRANSPORTS[0], "one"), id));
            harm();
            // However many come: it is told once.
            for transport in TRANSPORTS {
                assert!(
                    trusts(node, files, (transport, "one"), id),
                    "{number}, {transport}"
                );
            }
            let told = told(node);
            assert_eq!(told.len(), number + 1, "{told:#?}");
            let last = told.last().unwrap();
            let path = named.display().to_string();
            assert!(last.contains("WARN") && last.contains(&path), "{last}");
        }
        files.put("two");
        for transport in TRANSPORTS {
            let trusts = |root| trusts(node, files, (transport, root), id);
            assert!(trusts("two") && !trusts("one"), "{transport}: mended");
        }
        old.goes_on("unharmed");
        old.ends_well();
        assert_eq!(told(node).len(), 4, "mended files are no news");
    });
}

#[test]
fn privileged_nothing_passes_in_the_clear_where_a_certificate_is_set() {
    with_container(|node, cri, _, id| {
        let request = crisp_api::runtime::v1::ExecRequest {
            container_id: id.to_owned(),
            cmd: vec!["true".to_owned()],
            stdout: true,
            ..Default::default()
        };
        let url = cri.exec(request).unwrap().url;
        let rest = url.strip_prefix("https://127.0.0.1:");
        let clear = format!("http://127.0.0.1:{}", rest.unwrap());
        assert!(streams::try_upgrade(&node.net, &clear).is_err());
    });
}
