//! Hooks: when they run, what they find and are told, and how long they may take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bench::{Bench, Case};

pub const CASES: &[Case] = &[
    (
        "privileged_hooks_in_the_container_have_its_environment",
        environment,
    ),
    ("privileged_failing_hooks_say_why", complaint),
    ("privileged_hooks_run_in_their_order", hooks),
    ("privileged_hooks_find_the_bundle", bundle),
    ("privileged_hooks_take_the_time_that_they_are_given", time),
];

fn hooks() {
    let mut bench = Bench::new("echo program");
    let log = bench.dir.path().join("log");
    let hook = |name: &str, path: &str, log: &str| {
        let status = r#"grep -o '"status":"[a-z]*"' | grep -o '[a-z]*"$'"#;
        let script = format!("echo \"{name} $({status})\" >> {log}");
        json!([{ "path": path, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    let outside = log.to_str().unwrap();
    bench.spec["hooks"] = json!({
        "prestart": hook("prestart", "/bin/sh", outside),
        "createRuntime": hook("createRuntime", "/bin/sh", outside),
        "createContainer": hook("createContainer", "/bin/sh", outside),
        "startContainer": hook("startContainer", "/bin/sh", "/dev/stdout"),
    });
    assert_eq!(bench.output(), "startContainer created\"\nprogram\n");
    let text = std::fs::read_to_string(&log).unwrap();
    let expected = ["prestart", "createRuntime", "createContainer"];
    let expected = expected.map(|name| format!("{name} creating\"\n")).concat();
    assert_eq!(text, expected);
    bench.spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("/bin/false"), "{error}");
}

fn environment() {
    let mut bench = Bench::new("true");
    let hook = |env: Option<Value>| {
        let mut hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo [$HOME]"] });
        if let Some(env) = env {
            hook["env"] = env;
        }
        json!({ "startContainer": [hook] })
    };
    bench.spec["hooks"] = hook(None);
    assert_eq!(bench.output(), "[/root]\n");
    bench.spec["hooks"] = hook(Some(json!(["HOME=/own"])));
    assert_eq!(bench.output(), "[/own]\n");
    bench.spec["hooks"] = hook(Some(json!([])));
    assert_eq!(bench.output(), "[]\n");
}

fn complaint() {
    for stage in ["createRuntime", "createContainer", "startContainer"] {
        let mut bench = Bench::new("true");
        let script = "while test ${#x} -lt 9000; do x=x$x$x; done; echo $x first >&2; \
            echo no device >&2; exit 3";
        bench.spec["hooks"] = json!({ stage: shell(script) });
        let error = bench.run().unwrap_err().to_string();
        assert!(error.ends_with("first\nno device"), "{stage}: {error}");
        assert!(error.contains("exit status: 3") && error.len() < 5000);
    }
}

fn shell(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
}

/// Hooks that set up devices read the bundle, and change files of the root beside it.
fn bundle() {
    let mut bench = Bench::new("cat /etc/made");
    let bundle = bench.dir.path().join("bundle");
    std::fs::write(bundle.join("config.json"), "config").unwrap();
    let path = bundle.to_str().unwrap();
    let made = format!("{path}/rootfs/etc/made");
    let script = format!("cat {path}/config.json > {made}; umask >> {made}");
    bench.spec["hooks"] = json!({ "createContainer": shell(&script) });
    let before = crisp_sys::process::set_umask(0o027);
    let output = bench.output();
    crisp_sys::process::set_umask(before);
    assert_eq!(output, "config0027\n");
}

/// The state may be larger than a pipe, and a hook need not read it.
fn time() {
    let mut bench = Bench::new("true");
    bench.spec["annotations"] = json!({ "long": "x".repeat(200_000) });
    for stage in ["createRuntime", "createContainer"] {
        bench.spec["hooks"] = json!({ stage: shell("exec <&-; true") });
        bench.output();
    }
    let mut slow = shell("exec sleep 1000");
    slow[0]["timeout"] = json!(1);
    bench.spec["hooks"] = json!({ "createContainer": slow });
    let begun = Instant::now();
    let error = bench.run().unwrap_err().to_string();
    assert!(error.contains("took too long"), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    for timeout in [0, -1] {
        slow[0]["timeout"] = json!(timeout);
        bench.spec["hooks"] = json!({ "poststop": slow });
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains("timeout of"), "{error}");
    }
}
