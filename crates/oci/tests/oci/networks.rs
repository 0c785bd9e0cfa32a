//! Network devices that a container gets. The host of these tests is a network namespace of their
//! own, which `unshare` makes.

use std::fs;

use serde_json::{Value, json};

use crate::bench::{Bench, Outcome, outcome};

/// Two ends of a wire, the first of which has addresses.
const WIRE: &str = "ip link add given0 type veth peer name kept0
    ip addr add 10.99.0.2/24 brd + dev given0; ip -6 addr add fd99::2/64 dev given0 nodad
    ip link set given0 up; ip link set kept0 up";
/// The device `$1` in the words of `ip`, without what differs each time.
const SHOW: &str =
    "ip addr show dev $1 | sed -n 's/^ *inet6* \\([^ ]*\\).*global.*/\\1/p; s/.*[<,]UP[,>].*/up/p'";

/// Runs `script` on such a host, where `$R` is the runtime and `$ID` the container.
fn on_a_host(bench: &Bench, script: &str) -> Outcome {
    let out = bench.dir.path().join("out/host");
    let runtime = format!(
        "{} --root {}",
        env!("CARGO_BIN_EXE_crisp-oci"),
        bench.root().display()
    );
    let show = format!("show() {{ {SHOW}; }}");
    let status = crisp_sys::process::command("unshare")
        .args(["-n", "sh", "-ec", &format!("{show}\n{WIRE}\n{script}")])
        .current_dir(bench.bundle())
        .env("R", runtime)
        .env("ID", &bench.id)
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(out.with_extension("err")).unwrap())
        .status()
        .unwrap();
    outcome(status.code().unwrap(), &out)
}

fn with(devices: Value, script: &str) -> Bench {
    let mut bench = Bench::new(script);
    bench.spec["linux"]["netDevices"] = devices;
    bench.write();
    bench
}

#[test]
fn privileged_a_device_comes_with_its_addresses_and_a_new_name() {
    let script = "busybox ip addr show dev eth7; ls /sys/class/net";
    let mut bench = with(json!({ "given0": { "name": "eth7" } }), script);
    let mounts = bench.spec["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
    );
    bench.write();
    let seen = on_a_host(
        &bench,
        "$R run $ID; ip link show given0 2>/dev/null && echo stayed || :",
    );
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    for text in [
        "inet 10.99.0.2/24 brd 10.99.0.255 scope global",
        "inet6 fd99::2/64 scope global",
        ",UP",
    ] {
        assert!(seen.stdout.contains(text), "{text}: {seen:?}");
    }
    assert!(seen.stdout.ends_with("eth7\nlo\n"), "{seen:?}");
}

#[test]
fn privileged_a_joined_network_gets_devices_too() {
    let bench = with(json!({ "given0": {} }), "busybox ip addr show dev given0");
    let mut spec = bench.spec.clone();
    spec["linux"]["namespaces"][4]["path"] = json!("/proc/self/fd/7");
    fs::write(bench.bundle().join("config.json"), spec.to_string()).unwrap();
    let script = "mkfifo pipe; unshare -n sh -c 'echo > pipe; exec sleep 1000' & other=$!
        read line < pipe; exec 7< /proc/$other/ns/net
        sed -i s,/proc/self/fd/7,/proc/$other/ns/net, config.json
        code=0; $R run $ID || code=$?; kill $other; exit $code";
    let seen = on_a_host(&bench, script);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(seen.stdout.contains("inet 10.99.0.2/24"), "{seen:?}");
}

#[test]
fn privileged_a_container_that_came_to_nothing_gave_its_devices_back() {
    // The second of them is not there; then there is no program.
    for (devices, program) in [
        (json!({ "given0": { "name": "a" }, "none0": {} }), "true"),
        (
            json!({ "given0": { "name": "a" }, "kept0": { "name": "lo" } }),
            "true",
        ),
        (json!({ "given0": { "name": "a" } }), "/no/such/program"),
    ] {
        let mut bench = with(devices, "true");
        bench.spec["process"]["args"] = json!([program]);
        bench.write();
        let seen = on_a_host(
            &bench,
            "! $R create $ID || exit 9; show given0; ! ip link show a",
        );
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        let mut lines: Vec<&str> = seen.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["10.99.0.2/24", "fd99::2/64", "up"],
            "{program}: {seen:?}"
        );
        bench.assert_nothing_left();
    }
}
