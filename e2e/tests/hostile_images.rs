//! Attacks by images that runtimes of our class fell for, against the built binaries. After each the
//! node is as it was: watched files, a directory of bait, and all that the checker sees.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::image::{Image, busybox};
use crisp_e2e::{Cri, Node, Watched, configs, trial};
use serde_json::json;

fn hostile(layer: Layer) -> Image {
    busybox::image().with(layer, Packing::Gzip)
}

/// Pushes and pulls an image.
fn fetch(node: &Node, cri: &mut Cri, name: &str, image: &Image) {
    node.registry.push_as(&node.net, name, &Entry::from(image));
    cri.pull(&configs::image(name)).unwrap();
}

fn of_image(name: &str) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    config.image.as_mut().unwrap().image = configs::image(name);
    config
}

/// Runs a test in a pod of a watched node, with nothing pulled but the base.
fn attacked(test: impl FnOnce(&Node, &mut Cri, &str, &cri::PodSandboxConfig, &Watched)) {
    trial(|node| {
        let watched = Watched::new(node);
        let mut cri = node.cri();
        let pod = node.pod("attacked");
        let id = cri.run_pod(&pod);
        test(node, &mut cri, &id, &pod, &watched);
        cri.remove_pod(&id);
        node.crictl().ok(&["rmi", "--all"]);
        node.pull(&["busybox"]);
        watched.check("at the end");
    });
}

#[test]
fn privileged_links_in_place_of_system_directories_lead_nowhere() {
    // CVE-2023-28642, CVE-2024-5154, CVE-2025-31133, CVE-2025-52565, CVE-2026-41579.
    attacked(|node, cri, id, pod, watched| {
        let bait = watched.bait.to_str().unwrap().to_owned();
        let core = "/proc/sys/kernel/core_pattern";
        let link = |path: &str, target: &str| Layer::new().symlink(path, target);
        let cases = [
            ("link-proc", link("proc", &bait)),
            ("link-sys", link("sys", &bait)),
            ("link-dev", link("dev", &bait)),
            ("link-etc", link("etc", &bait)),
            (
                "link-up",
                link("etc", &format!("../../../../../../..{bait}")),
            ),
            ("link-mtab", link("etc/mtab", &format!("{bait}/mtab"))),
            ("link-hosts", link("etc/hosts", &format!("{bait}/file"))),
            (
                "link-resolv",
                link("etc/resolv.conf", &format!("{bait}/resolv")),
            ),
            ("link-null", link("dev/null", core)),
            ("link-console", link("dev/console", core)),
            ("link-ptmx", link("dev/ptmx", core)),
            ("link-mount", link("m", &bait)),
        ];
        let volume = node.path("volume");
        fs::create_dir(&volume).unwrap();
        for (name, layer) in cases {
            fetch(node, cri, name, &hostile(layer));
            for tty in [false, true] {
                let mut config = of_image(name);
                config.metadata.as_mut().unwrap().attempt = tty.into();
                config.tty = tty;
                config.mounts = vec![configs::mount(volume.to_str().unwrap(), "/m/inner")];
                let security = configs::security(&mut config);
                security.masked_paths = vec!["/proc/kcore".to_owned(), "/etc/shadow".to_owned()];
                // Refused or held within the container's root: both will do.
                let Ok(container) = cri.create(id, pod, &config) else {
                    continue;
                };
                if cri.start(&container).is_ok() {
                    cri.execute(&container, &["sh", "-c", "echo x >/dev/null"])
                        .ok();
                    cri.stop(&container, 0);
                }
                watched.check(name);
            }
        }
    });
}

#[test]
fn privileged_no_descriptor_of_the_node_is_within_reach() {
    // CVE-2024-21626: a working directory in /proc/self/fd was one of the host.
    attacked(|node, cri, id, pod, watched| {
        for number in 0..24 {
            let name = format!("workdir-{number}");
            let there = json!({"WorkingDir": format!("/proc/self/fd/{number}")});
            if number % 8 == 0 {
                fetch(node, cri, &name, &busybox::image().config(there));
            }
            let mut config = match number % 8 {
                0 => of_image(&name),
                _ => configs::idle(&name),
            };
            if number % 8 != 0 {
                // ".." is taken away by names, so this is the descriptor itself.
                config.working_dir = format!("/proc/self/fd/{number}/x/..");
            }
            let container = cri.create(id, pod, &config);
            let started = container.and_then(|id| cri.start(&id));
            assert!(
                started.is_err(),
                "{number}: a working directory outside the root"
            );
        }
        let container = cri.run(id, pod, &configs::idle("descriptors"));
        let line = "for p in 1 self; do ls /proc/$p/fd; done";
        let text = cri.shell(&container, line);
        let mut seen: Vec<&str> = text.split_whitespace().collect();
        seen.sort_unstable();
        seen.dedup();
        // `ls` has the directory open as 3; the shell of process 1 keeps its script at 10 at most.
        let odd: Vec<_> = seen
            .iter()
            .filter(|fd| !["0", "1", "2", "3"].contains(fd))
            .collect();
        assert!(odd.is_empty(), "{text}");
        watched.check("descriptors");
    });
}

#[test]
fn privileged_the_runtimes_own_program_cannot_be_written() {
    // CVE-2019-5736: a container overwrote the runtime through /proc/self/exe.
    attacked(|node, cri, id, pod, watched| {
        let layer = Layer::new().file("entry", "#!/proc/self/exe\n", 0o755);
        fetch(node, cri, "exe", &hostile(layer));
        let mut config = of_image("exe");
        config.command = vec!["/entry".to_owned()];
        let container = cri.create(id, pod, &config).unwrap();
        assert!(cri.start(&container).is_err() || cri.wait_exit(&container).exit_code != 0);
        let line = "while :; do for p in /proc/[0-9]*; do \
                    (echo overwritten >$p/exe) 2>/dev/null; done; done";
        let container = cri.run(id, pod, &configs::shell("writer", line));
        for _ in 0..50 {
            cri.execute(&container, &["/proc/self/exe", "true"]).ok();
            cri.execute(&container, &["true"]).ok();
        }
        watched.check("/proc/PID/exe");
    });
}

#[test]
fn privileged_users_of_images_never_wrap_to_root() {
    // CVE-2024-40635, CVE-2022-4318, and crun's CVE-2026-30892.
    attacked(|node, cri, id, pod, watched| {
        let users = [
            "2147483648",
            "4294967295",
            "4294967296",
            "99999999999:1",
            "-1",
            "1x",
            "1:",
            "a:b:c",
            "x\n0::0:0::/:/bin/sh",
        ];
        for (number, user) in users.into_iter().enumerate() {
            let name = format!("user-{number}");
            fetch(
                node,
                cri,
                &name,
                &busybox::image().config(json!({"User": user})),
            );
            match cri.create(id, pod, &of_image(&name)) {
                Err(error) => assert!(!error.message().is_empty(), "{user:?}"),
                Ok(container) => {
                    cri.start(&container).unwrap();
                    let seen = cri.shell(&container, "id -u");
                    assert_eq!(seen.trim(), user.trim_end_matches(':'), "{user:?}");
                }
            }
        }
        let home = json!({"Env": ["HOME=/x\n0::0:0::/:/bin/sh", "PATH=/bin"], "User": "4711"});
        fetch(node, cri, "home", &busybox::image().config(home));
        let container = cri.run(id, pod, &of_image("home"));
        assert!(!cri.shell(&container, "cat /etc/passwd").contains("0::0"));
        watched.check("users");
    });
}

#[test]
fn privileged_files_of_images_are_read_within_bounds() {
    // CVE-2025-4437, CVE-2026-47262.
    attacked(|node, cri, id, pod, watched| {
        let long = |path: &str| Layer::new().file(path, vec![b'x'; 64 << 20], 0o644);
        let many: String = (0..500_000)
            .map(|n| format!("g{n}:x:{n}:www-data\n"))
            .collect();
        let cases = [
            ("long-passwd", long("etc/passwd")),
            ("long-group", long("etc/group")),
            ("many-groups", Layer::new().file("etc/group", many, 0o644)),
            (
                "link-passwd",
                Layer::new().symlink("etc/passwd", "/dev/zero"),
            ),
        ];
        for (name, layer) in cases {
            fetch(node, cri, name, &hostile(layer));
            let mut config = of_image(name);
            configs::security(&mut config).run_as_username = "www-data".to_owned();
            let begun = std::time::Instant::now();
            let made = cri.create(id, pod, &config);
            let took = begun.elapsed();
            assert!(
                took < std::time::Duration::from_secs(10),
                "{name}: {took:?}"
            );
            if let Err(error) = made {
                assert!(!error.message().is_empty(), "{name}");
            }
            watched.check(name);
        }
        let kib = node.peak_memory();
        assert!(kib < 200 * 1024, "the daemon's peak memory: {kib} KiB");
    });
}

#[test]
fn privileged_volumes_hold_what_the_image_has_and_nothing_else() {
    // CVE-2022-23648: the host's files came into a volume.
    attacked(|node, cri, id, pod, watched| {
        let volumes = json!({"Volumes": {"/../../../../../etc": {}, "/data": {}, "/link": {}}});
        let layer = Layer::new()
            .file("data/own", "own\n", 0o644)
            .symlink("link", watched.bait.to_str().unwrap());
        fetch(node, cri, "volumes", &hostile(layer).config(volumes));
        let made = cri.create(id, pod, &of_image("volumes"));
        let started = made.and_then(|id| cri.start(&id).map(|()| id));
        if let Ok(container) = started {
            assert_eq!(cri.shell(&container, "ls /data"), "own\n");
            let seen = cri.execute(&container, &["cat", "/link/file"]).unwrap();
            assert_eq!(seen.stdout, b"");
            assert!(!cri.shell(&container, "ls /etc").contains("debian_version"));
        }
        watched.check("volumes");
    });
}

#[test]
fn privileged_labels_of_images_are_only_shown() {
    // CVE-2026-53488: labels of an image became the container's, and were obeyed.
    attacked(|node, cri, id, pod, watched| {
        let touch = format!("binary:///usr/bin/touch?{}/touched", watched.bait.display());
        let labels = json!({"Labels": {"crisp/log": touch, "io.kubernetes.cri.log": touch}});
        fetch(node, cri, "labels", &busybox::image().config(labels));
        let container = cri.run(id, pod, &of_image("labels"));
        let status = cri.look(&container);
        assert!(
            status.labels.is_empty() && status.annotations.is_empty(),
            "{status:?}"
        );
        watched.check("labels");
    });
}

#[test]
fn privileged_nobody_else_enters_our_directories() {
    // CVE-2024-25621, CVE-2021-41103, CVE-2020-15257.
    attacked(|node, cri, id, pod, _| {
        cri.run(id, pod, &configs::idle("main"));
        for dir in [node.root(), node.state()] {
            let mode = fs::metadata(&dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{}", dir.display());
        }
        let mode = fs::metadata(node.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let sockets = node
            .net
            .run(|| fs::read_to_string("/proc/thread-self/net/unix").unwrap());
        let abstracts: Vec<&str> = sockets.lines().filter(|line| line.contains('@')).collect();
        assert!(abstracts.is_empty(), "{abstracts:?}");
    });
}
