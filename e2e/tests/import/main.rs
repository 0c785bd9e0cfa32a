//! `crisp import`: the images of a real containerd become those of a crispd that reaches no registry.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod containerd;
mod moved;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use containerd::Containerd;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::catalogue::{LAYERS, PAGE};
use crisp_e2e::registry::known;
use crisp_e2e::{Node, configs, eventually, tools, trial};
use rustix::process::{Pid, Signal, kill_process};

/// Another name of the image `web`, of a host that no crispd and no containerd is told of.
const OTHER: &str = "other.test:5000/team/site:2";

fn start(node: &Node, keeps_layers: bool) -> Containerd {
    let dir = node.path("containerd");
    Containerd::start(&node.net, &dir, &node.certs(), keeps_layers)
}

/// `crisp import` of the containerd's store, not started.
fn command(node: &Node) -> Command {
    let mut command = Command::new(tools::ours("crisp"));
    command.args(["import", "--from"]);
    command.arg(node.path("containerd/root"));
    command.arg("--socket");
    command.arg(format!("unix://{}", node.socket().display()));
    command.stdin(Stdio::null());
    command
}

fn with_certs(node: &Node, certs: &Path) -> Command {
    let mut command = command(node);
    command.arg("--registry-config").arg(certs);
    command
}

fn import(node: &Node) -> Output {
    import_with(node, &[])
}

fn import_with(node: &Node, flags: &[&str]) -> Output {
    let mut command = with_certs(node, &node.certs());
    command.args(flags);
    node.net.run(|| command.output().unwrap())
}

/// Its words on success.
#[track_caller]
fn imported(node: &Node) -> String {
    succeeded(&import(node))
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    told
}

/// Its words on failure.
#[track_caller]
fn refused(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

/// All files below a directory with what is in them.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

fn by_digest(name: &str) -> String {
    let image = configs::image(name);
    let host = image.rsplit_once(':').unwrap().0;
    format!("{host}@{}", known()[name].images[0].manifest.digest)
}

/// Removes images that a test has brought, so that the node is as it was.
fn forget(node: &Node, names: &[&str]) {
    let mut cri = node.cri();
    for name in names {
        let image = Some(cri::ImageSpec {
            image: (*name).to_owned(),
            ..Default::default()
        });
        cri.remove_image(cri::RemoveImageRequest { image }).unwrap();
    }
}

#[test]
fn privileged_pods_start_from_containerds_images_without_a_registry() {
    if !tools::has_containerd("import") {
        return;
    }
    trial(|node| {
        for name in ["web", "index", "plain"] {
            node.registry.push(&node.net, name);
        }
        let containerd = start(node, true);
        let (web, index, plain) = (
            configs::image("web"),
            configs::image("index"),
            by_digest("plain"),
        );
        for name in [&web, &index, &plain] {
            containerd.crictl().ok(&["pull", name]);
        }
        containerd.ctr(&["images", "tag", &web, OTHER]);
        let told = refused(&import(node));
        assert!(
            told.contains("containerd runs") && told.contains("systemctl stop"),
            "{told}"
        );
        containerd.stop();
        node.registry.stop();

        let mut cri = node.cri();
        let settings = files(&node.certs());
        let store = files(&node.path("containerd/root"));
        let before = cri.image_names();
        let elsewhere = node.path("no-such-certs");
        let mut wrong = with_certs(node, &elsewhere);
        let told = refused(&node.net.run(|| wrong.output().unwrap()));
        assert!(told.contains("--registry-config has to name"), "{told}");
        assert!(!elsewhere.exists() && cri.image_names() == before);

        let told = imported(node);
        assert!(told.contains(", 0 were there already"), "{told}");
        assert_eq!(files(&node.certs()), settings);
        assert_eq!(
            files(&node.path("containerd/root")),
            store,
            "containerd's own files"
        );
        let names = cri.image_names();
        for name in [&web, &index, &plain, &OTHER.to_owned()] {
            assert!(names.contains(name), "{name} of {names:?}");
        }
        let told = imported(node);
        assert!(
            told.contains("0 imported") && told.contains("0 to import"),
            "{told}"
        );

        let pod = node.pod("imported");
        let pod_id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        config.image.as_mut().unwrap().image = OTHER.to_owned();
        let id = cri.run(&pod_id, &pod, &config);
        assert_eq!(cri.shell(&id, "cat /www/index.html"), PAGE);
        cri.remove_pod(&pod_id);
        forget(node, &[&web, &index, &plain]);
    });
}

#[test]
fn privileged_a_tag_of_crispd_stays_until_it_is_to_lead_where_it_led_in_containerd() {
    if !tools::has_containerd("import of a tag that has moved") {
        return;
    }
    trial(|node| {
        let image = configs::image("moved");
        let id = |name: &str| known()[name].images[0].blobs[0].digest.clone();
        let has = |name: &str| {
            let found = node.crictl().json(&["inspecti", &image]);
            assert_eq!(found["status"]["id"], id(name));
        };
        node.registry.push_as(&node.net, "moved", &known()["web"]);
        node.cri().pull(&image).unwrap();
        has("web");
        node.registry.push_as(&node.net, "moved", &known()["plain"]);
        let containerd = start(node, true);
        containerd.crictl().ok(&["pull", &image]);
        containerd.stop();
        let told = imported(node);
        let reason = format!("{image}: it leads to ");
        assert!(
            told.contains(&reason) && told.contains("--move-tags"),
            "{told}"
        );
        has("web");
        succeeded(&import_with(node, &["--move-tags"]));
        has("plain");
        forget(node, &[&id("web"), &id("plain")]);
    });
}

#[test]
fn privileged_images_whose_layers_containerd_dropped_are_told_and_others_come() {
    if !tools::has_containerd("import of what is left") {
        return;
    }
    trial(|node| {
        for name in ["web", "plain"] {
            node.registry.push(&node.net, name);
        }
        let (web, plain) = (configs::image("web"), configs::image("plain"));
        let containerd = start(node, true);
        containerd.crictl().ok(&["pull", &plain]);
        containerd.stop();
        let containerd = start(node, false);
        containerd.crictl().ok(&["pull", &web]);
        let layer = &known()["web"].images[0].blobs[2].digest;
        eventually("containerd has collected its garbage", || {
            !containerd
                .ctr(&["content", "list", "--quiet"])
                .contains(layer)
        });
        containerd.stop();
        node.registry.stop();
        let told = refused(&import(node));
        let reason = format!("{web}: containerd's store has");
        assert!(told.contains(&reason), "{told}");
        assert!(told.contains("discard_unpacked_layers"), "{told}");
        assert!(told.contains("2 imported"), "{told}");
        let names = node.cri().image_names();
        assert!(names.contains(&plain) && !names.contains(&web), "{names:?}");
        forget(node, &[&plain]);
    });
}

/// An import that has begun to lead crispd elsewhere.
fn under_way(node: &Node, settings: &BTreeMap<PathBuf, Vec<u8>>) -> Child {
    let mut command = with_certs(node, &node.certs());
    command.stderr(Stdio::null());
    let process = node.net.run(|| command.spawn().unwrap());
    let file = node.certs().join("registry.test/hosts.toml");
    eventually("settings give way", || {
        fs::read(&file).ok().as_ref() != settings.get(&file)
    });
    process
}

fn end(process: &mut Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    eventually("the import has ended", || {
        process.try_wait().unwrap().is_some()
    });
}

#[test]
fn privileged_an_import_that_is_ended_in_the_middle_can_be_repeated() {
    if !tools::has_containerd("import that is ended") {
        return;
    }
    trial(|node| {
        node.registry.push(&node.net, "layers");
        let layers = configs::image("layers");
        let containerd = start(node, true);
        containerd.crictl().ok(&["pull", &layers]);
        containerd.stop();
        node.registry.stop();
        let settings = files(&node.certs());
        let mut process = under_way(node, &settings);
        end(&mut process, Signal::INT);
        assert_eq!(files(&node.certs()), settings);
        let mut process = under_way(node, &settings);
        end(&mut process, Signal::KILL);
        assert_ne!(
            files(&node.certs()),
            settings,
            "it was killed in the middle"
        );
        let told = imported(node);
        assert!(told.contains("2 imported"), "{told}");
        assert_eq!(files(&node.certs()), settings);
        let mut cri = node.cri();
        let pod = node.pod("layers");
        let pod_id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        config.image.as_mut().unwrap().image.clone_from(&layers);
        let id = cri.run(&pod_id, &pod, &config);
        assert_eq!(cri.shell(&id, "cat /last").trim(), LAYERS.to_string());
        cri.remove_pod(&pod_id);
        forget(node, &[&layers]);
    });
}
