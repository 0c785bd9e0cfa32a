//! The configuration as its users meet it.

use std::path::Path;

use crisp_model::CgroupNamespaces;

use super::load::Loaded;
use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn load(&self) -> Result<Loaded, Error> {
        load(Some(&self.0.path().join("config.toml")))
    }
}

#[test]
fn later_files_win_and_nothing_else_changes() {
    let place = Place::new(&[
        (
            "config.toml",
            "state = \"/a\"\n[log]\nlevel = \"debug\"\n[network]\nmode = \"builtin\"\n",
        ),
        (
            "conf.d/10-a.toml",
            "default_runtime = \"extra\"\n[log]\nformat = \"json\"\n\
             [runtimes.extra]\ncgroup_namespaces = \"private\"\n",
        ),
        ("conf.d/20-b.toml", "state = \"/b\"\n"),
        ("conf.d/30-c.conf", "not = toml = at all"),
    ]);
    let loaded = place.load().unwrap();
    assert_eq!(loaded.files.len(), 3);
    let config = resolve(loaded.written).unwrap();
    assert_eq!(config.state, Path::new("/b"));
    assert_eq!(config.socket, Path::new("/b/crisp.sock"));
    assert_eq!(config.root, Path::new("/var/lib/crisp"));
    assert_eq!(config.log_filter.to_string(), "debug");
    assert_eq!(config.log_format, LogFormat::Json);
    assert!(matches!(config.network.source, Source::Builtin { .. }));
    let handlers: Vec<_> = config
        .handlers
        .iter()
        .map(|handler| (handler.name.as_str(), handler.cgroup_namespaces))
        .collect();
    let expected = [
        ("", CgroupNamespaces::Private),
        ("extra", CgroupNamespaces::Private),
        ("native", CgroupNamespaces::Unprivileged),
    ];
    assert_eq!(handlers, expected);
}

#[test]
fn errors_name_file_line_key_and_what_would_be_right() {
    let cases = [
        ("rot = \"/x\"\n", ":1: rot: ", "`root`"),
        ("\n[log]\nlevel = \"loud\"\n", ":3: log.level: ", "trace"),
        (
            "[network]\n# why\nmode = \"host\"\n",
            ":3: network.mode: ",
            "`builtin`",
        ),
        (
            "[network.builtin]\nsubnets = [\"10.0.0.0\"]\n",
            ":2: network.builtin.subnets: ",
            "/16",
        ),
        (
            "[daemon]\nworkers = 0\n",
            ":2: daemon.workers: ",
            "within 1 to 64",
        ),
        (
            "[daemon]\nworkers = -9223372036854775808\n",
            ":2: daemon.workers: ",
            "within 1 to 64",
        ),
        ("root = \"var\"\n", ":1: root: ", "absolute"),
        ("root = 5\n", ":1: root: ", "string"),
        ("listen = \"/run/x.sock\"\n", ":1: listen: ", "unix:///PATH"),
        (
            "[images]\nmirrors = []\n",
            ":2: images.mirrors: ",
            "`pinned`",
        ),
        ("[log\n", ":1: ", "]"),
        (
            "[cgroup]\nparent = \"a/../..\"\n",
            ":2: cgroup.parent: ",
            "\"..\"",
        ),
        (
            "[streaming]\nlisten = \"localhost:0\"\n",
            ":2: streaming.listen: ",
            "127.0.0.1:0",
        ),
        (
            "[streaming]\nbase_url = \"https://a/b\"\n",
            ":2: streaming.base_url: ",
            "https://HOST:PORT",
        ),
    ];
    for (text, place_and_key, right) in cases {
        let place = Place::new(&[("config.toml", text)]);
        let error = place.load().map(|_| ()).unwrap_err().to_string();
        let file = place.0.path().join("config.toml").display().to_string();
        assert!(
            error.starts_with(&format!("{file}{place_and_key}")),
            "{text:?}: {error}"
        );
        assert!(error.contains(right), "{text:?}: {error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}

#[test]
fn an_error_in_a_drop_in_names_the_drop_in() {
    let place = Place::new(&[("config.toml", ""), ("conf.d/1.toml", "\n\nroot = true\n")]);
    let error = place.load().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("conf.d/1.toml:3: root: "), "{error}");
}

#[test]
fn only_the_default_file_may_be_missing() {
    let place = Place::new(&[]);
    let error = place.load().map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("config.toml") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn values_that_do_not_work_are_refused_with_the_alternative() {
    let cases = [
        (
            "[cgroup]\ndriver = \"systemd\"\nparent = \"a/b\"\n",
            "cgroup.parent: ",
            "slice",
        ),
        (
            "[network.builtin]\nbridge = \"much-too-long-a-name\"\n",
            "network.builtin.bridge: ",
            "15",
        ),
        (
            "[streaming]\nlisten = \"0.0.0.0:0\"\n",
            "streaming.listen: ",
            "base_url",
        ),
        (
            "[streaming]\ncertificate = \"/c\"\n",
            "streaming.key: ",
            "certificate",
        ),
        (
            "[streaming]\nkey = \"/k\"\n",
            "streaming.certificate: ",
            "key",
        ),
        (
            "[network.builtin]\nbridge = \"lo\"\n",
            "network.builtin.bridge: ",
            "no bridge",
        ),
    ];
    all_refused(&cases);
}

#[test]
fn handlers_that_can_start_nothing_are_refused_with_the_alternative() {
    all_refused(&[
        (
            "[runtimes.runc]\nkind = \"oci\"\n",
            "runtimes.runc.path: ",
            "/usr/sbin/runc",
        ),
        (
            "[runtimes.runc]\npath = \"/usr/sbin/runc\"\n",
            "runtimes.runc.path: ",
            "set kind",
        ),
        (
            "[runtimes.native]\nkind = \"oci\"\npath = \"/usr/sbin/runc\"\n",
            "runtimes.native.kind: ",
            "default_runtime",
        ),
        ("[runtimes.\"..\"]\n", "runtimes.\"..\": ", "letters"),
        (
            "default_runtime = \"kata\"\n",
            "default_runtime: ",
            "native",
        ),
        ("[runtimes.\"a/b\"]\n", "runtimes.\"a/b\": ", "letters"),
    ]);
}

/// Texts of configurations, how the error begins, and a word of what to do.
fn all_refused(cases: &[(&str, &str, &str)]) {
    for (text, key, right) in cases {
        let place = Place::new(&[("config.toml", text)]);
        let error = resolve(place.load().unwrap().written)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(key) && error.contains(right),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn the_common_parent_is_a_path_or_a_slice() {
    for (table, parent, shims) in [
        ("", "crisp", "crisp-shims"),
        ("parent = \"/a/b\"", "a/b", "a/b-shims"),
        (
            "driver = \"systemd\"",
            "crisp.slice",
            "system.slice/crisp-shims.scope",
        ),
        (
            "driver = \"systemd\"\nparent = \"a-b.slice\"",
            "a.slice/a-b.slice",
            "system.slice/a-b-shims.scope",
        ),
    ] {
        let place = Place::new(&[("config.toml", &format!("[cgroup]\n{table}\n"))]);
        let config = resolve(place.load().unwrap().written).unwrap();
        assert_eq!(config.cgroups.parent, parent, "{table}");
        assert_eq!(config.cgroups.shims, shims, "{table}");
    }
}

#[test]
fn streaming_is_on_loopback_unless_told_otherwise() {
    let resolved = |text: &str| {
        let place = Place::new(&[("config.toml", text)]);
        resolve(place.load().unwrap().written).unwrap().streaming
    };
    let usual = resolved("");
    assert_eq!(usual, crisp_streaming::Config::default());
    assert!(usual.listen.ip().is_loopback());
    assert_eq!(usual.idle.as_secs(), 4 * 60 * 60, "as kubelets have it");
    let other = resolved(
        "[streaming]\nlisten = \"[::]:7\"\nbase_url = \"https://node:7/\"\n\
         certificate = \"/c\"\nkey = \"/k\"\nidle_timeout_seconds = 5\n",
    );
    assert_eq!(other.listen.to_string(), "[::]:7");
    assert_eq!(other.base.as_deref(), Some("https://node:7/"));
    let tls = other.tls.unwrap();
    assert_eq!((tls.certificate, tls.key), ("/c".into(), "/k".into()));
    assert_eq!(other.idle.as_secs(), 5);
}

/// Blocks for another file begin with its name.
#[test]
fn examples_of_the_page_for_operators_are_taken() {
    let page = include_str!("../../../../docs/kubernetes.md");
    let blocks = page.split("\n```toml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .filter_map(|rest| rest.split("\n```").next())
        .filter(|block| !block.starts_with("# /etc/crisp/certs.d/"))
        .collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let loaded = Place::new(&[("config.toml", block)]).load();
        let loaded = loaded.unwrap_or_else(|error| panic!("{block}\n{error}"));
        assert!(resolve(loaded.written).is_ok(), "{block}");
    }
}
