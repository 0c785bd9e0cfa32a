//! Where requests go for which `hosts.toml`.
#![allow(
    clippy::disallowed_methods,
    reason = "test fixtures need no atomic write"
)]

use super::*;

fn show(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints
        .iter()
        .map(|e| {
            let mut text = e.base.to_string();
            for (mark, set) in [
                (" proxy", e.proxied.is_some()),
                (" fallback", e.http_fallback),
                (" insecure", e.tls.skip_verify),
            ] {
                if set {
                    text.push_str(mark);
                }
            }
            text
        })
        .collect()
}

fn check(host: &str, file: Option<(&str, &str)>, capability: Capability, expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    if let Some((name, content)) = file {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("hosts.toml"), content).unwrap();
    }
    let found = endpoints(dir.path(), host, capability).map(|e| show(&e));
    assert_eq!(found.unwrap(), expected, "{host} {file:?}");
}

#[test]
fn hosts_without_a_file() {
    use Capability::Resolve;
    let docker = "https://registry-1.docker.io/v2";
    check("docker.io", None, Resolve, &[docker]);
    check("r.io:5000", None, Resolve, &["https://r.io:5000/v2"]);
    check("localhost", None, Resolve, &["https://localhost/v2"]);
    let loopback = "https://127.0.0.1:5000/v2 fallback insecure";
    check("127.0.0.1:5000", None, Resolve, &[loopback]);
    let loopback = "https://[::1]:5000/v2 fallback insecure";
    check("[::1]:5000", None, Resolve, &[loopback]);
}

#[test]
fn mirrors_keep_the_order_of_the_file() {
    let text = r#"
        server = "https://up.io"
        capabilities = ["pull"]
        unknown_key = 1
        [host."http://z.io:81"]
        capabilities = ["pull", "resolve"]
        [host."https://a.io/proxy/hub"]
        capabilities = ["pull"]
        skip_verify = true
        [host."https://m.io/own/"]
        override_path = true
        [host."http://z.io:81".header]
        x-one = "1"
        x-two = ["2", "3"]
    "#;
    let (z, a, m) = (
        "http://z.io:81/v2 proxy",
        "https://a.io/proxy/hub/v2 proxy insecure",
        "https://m.io/own proxy",
    );
    let up = "https://up.io/v2 proxy";
    check(
        "r.io",
        Some(("r.io", text)),
        Capability::Pull,
        &[z, a, m, up],
    );
    check("r.io", Some(("r.io", text)), Capability::Resolve, &[z, m]);
    check(
        "r.io",
        Some(("_default", text)),
        Capability::Resolve,
        &[z, m],
    );
    check(
        "r.io",
        Some(("other", text)),
        Capability::Pull,
        &["https://r.io/v2"],
    );
}

#[test]
fn directories_of_hosts_with_ports() {
    let text = "[host.\"https://m.io\"]";
    let expected = ["https://m.io/v2 proxy", "https://r.io:5000/v2"];
    for name in ["r.io_5000_", "r.io:5000"] {
        check("r.io:5000", Some((name, text)), Capability::Pull, &expected);
    }
}

#[test]
fn headers_and_trust_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("r.io");
    std::fs::create_dir(&own).unwrap();
    let text = r#"
        ca = "ca.pem"
        client = [["c.pem", "c.key"], ["both.pem", ""]]
        dial_timeout = "250ms"
        [header]
        x-token = ["a", "b"]
    "#;
    std::fs::write(own.join("hosts.toml"), text).unwrap();
    let found = endpoints(dir.path(), "r.io", Capability::Pull).unwrap();
    assert_eq!(found[0].tls.ca, [own.join("ca.pem")]);
    assert_eq!(
        found[0].tls.clients,
        [
            (own.join("c.pem"), own.join("c.key")),
            (own.join("both.pem"), own.join("both.pem"))
        ]
    );
    assert_eq!(found[0].headers.get_all("x-token").iter().count(), 2);
    assert_eq!(found[0].dial_timeout, Some(Duration::from_millis(250)));
}

#[test]
fn broken_files_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("r.io");
    std::fs::create_dir(&own).unwrap();
    for (text, part) in [
        ("server = 5", "server"),
        ("[host.\"ftp://x\"]", "ftp://x"),
        ("capabilities = [\"pul\"]", "pul"),
        ("[header]\n\"a b\" = \"x\"", "a b"),
        ("dial_timeout = \"fast\"", "dial_timeout"),
        ("[host.\"https://x\"]\nca = 5", "hosts.toml"),
    ] {
        std::fs::write(own.join("hosts.toml"), text).unwrap();
        let error = endpoints(dir.path(), "r.io", Capability::Pull).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(part) && error.contains("hosts.toml"),
            "{error}"
        );
    }
}

#[test]
fn client_certificates_are_read_as_the_manual_says() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("r.io");
    std::fs::create_dir(&own).unwrap();
    for (text, expected) in [
        ("\"a\"", &[("a", "a")] as &[(&str, &str)]),
        ("[\"a\"]", &[("a", "a")]),
        ("[\"a\", \"b\"]", &[("a", "a"), ("b", "b")]),
        (
            "[\"a\", \"b\", \"c\"]",
            &[("a", "a"), ("b", "b"), ("c", "c")],
        ),
        ("[[\"a\", \"b\"]]", &[("a", "b")]),
        ("[[\"a\"]]", &[("a", "a")]),
        ("[[\"a\", \"\"]]", &[("a", "a")]),
        ("[\"a\", [\"b\", \"c\"]]", &[("a", "a"), ("b", "c")]),
    ] {
        std::fs::write(own.join("hosts.toml"), format!("client = {text}")).unwrap();
        let found = endpoints(dir.path(), "r.io", Capability::Pull).unwrap();
        let expected: Vec<_> = expected
            .iter()
            .map(|(c, k)| (own.join(c), own.join(k)))
            .collect();
        assert_eq!(found[0].tls.clients, expected, "{text}");
    }
}

fn read(text: &str) -> Result<Vec<Endpoint>> {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("r.io");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("hosts.toml"), text).unwrap();
    endpoints(dir.path(), "r.io", Capability::Pull)
}

fn host(text: &str) -> String {
    format!("[host.\"https://m.io\"]\n{text}\n")
}

/// Spellings of keys.
fn keys() -> Vec<(String, &'static str)> {
    vec![
        // Keys have any case.
        (
            "Server = \"https://up.io\"".to_owned(),
            "https://up.io/v2 proxy",
        ),
        ("SKIP_VERIFY = true".to_owned(), "https://r.io/v2 insecure"),
        (host("Skip_Verify = true"), "https://m.io/v2 proxy insecure"),
        (
            host("Override_Path = true\nCA = \"ca.pem\""),
            "https://m.io/ proxy",
        ),
        // containerd passes this host over, for it looks for `host` once more by itself.
        (
            "[Host.\"https://m.io\"]".to_owned(),
            "https://m.io/v2 proxy",
        ),
        // An underscore is no case.
        (host("skipVerify = true"), "https://m.io/v2 proxy"),
        // The name of a host is data.
        (
            "[host.\"https://m.io/Proj\"]".to_owned(),
            "https://m.io/Proj/v2 proxy",
        ),
        (
            "\"host\".\"https://m.io\".skip_verify = true".to_owned(),
            "https://m.io/v2 proxy insecure",
        ),
        (
            "host = { \"https://m.io\" = { skip_verify = true } }".to_owned(),
            "https://m.io/v2 proxy insecure",
        ),
    ]
}

/// The first host of each file. containerd reads them the same, except where said.
#[test]
fn odd_but_common_forms() {
    for (text, expected) in [
        (host(""), "https://m.io/v2 proxy"),
        (host("skip_verify = true"), "https://m.io/v2 proxy insecure"),
        (
            host("capabilities = [\"pull\", \"resolve\", \"push\"]"),
            "https://m.io/v2 proxy",
        ),
        (host("capabilities = []"), "https://m.io/v2 proxy"),
        // containerd knows lower case alone.
        (host("capabilities = [\"Pull\"]"), "https://m.io/v2 proxy"),
        ("[host.\"m.io\"]".to_owned(), "https://m.io/v2 proxy"),
        ("[host.\"http://m.io/\"]".to_owned(), "http://m.io/v2 proxy"),
        (
            "[host.\"https://m.io/v2\"]".to_owned(),
            "https://m.io/v2 proxy",
        ),
        (
            "[host.\"https://m.io/v2/\"]".to_owned(),
            "https://m.io/v2 proxy",
        ),
        (
            "[host.\"https://m.io/v2/proj\"]\noverride_path = true".to_owned(),
            "https://m.io/v2/proj proxy",
        ),
        (
            "server = \"https://up.io\"".to_owned(),
            "https://up.io/v2 proxy",
        ),
        ("server = \"up.io\"".to_owned(), "https://up.io/v2 proxy"),
        (String::new(), "https://r.io/v2"),
        ("# nothing".to_owned(), "https://r.io/v2"),
        ("future = [1, 2]".to_owned(), "https://r.io/v2"),
    ]
    .into_iter()
    .chain(keys())
    {
        let found = read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(show(&found)[0], expected, "{text}");
    }
    for broken in [
        "server = \"a\"\nserver = \"b\"",
        // containerd takes one of the two.
        "server = \"a\"\nServer = \"b\"",
        "Skip_Verify = \"yes\"",
    ] {
        assert!(read(broken).is_err(), "{broken}");
    }
}

#[test]
fn durations_are_those_of_go() {
    for (text, expected) in [
        ("5s", Some(5000)),
        ("1m30s", Some(90_000)),
        ("1.5s", Some(1500)),
        ("250ms", Some(250)),
        ("1h", Some(3_600_000)),
        ("5", None),
        ("", None),
        ("-5s", None),
        ("5 s", None),
        ("s", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("r.io");
        std::fs::create_dir(&own).unwrap();
        let file = format!("[host.\"https://m.io\"]\ndial_timeout = \"{text}\"\n");
        std::fs::write(own.join("hosts.toml"), file).unwrap();
        let found = endpoints(dir.path(), "r.io", Capability::Pull);
        let found = found.ok().and_then(|found| found[0].dial_timeout);
        assert_eq!(found, expected.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn a_directory_without_the_file_hides_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("r.io");
    let default = dir.path().join("_default");
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&default).unwrap();
    assert!(!hides_default(dir.path(), &own));
    std::fs::write(default.join("hosts.toml"), "").unwrap();
    assert!(hides_default(dir.path(), &own));
    assert!(!hides_default(dir.path(), &default));
    std::fs::write(own.join("hosts.toml"), "").unwrap();
    assert!(!hides_default(dir.path(), &own));
}
