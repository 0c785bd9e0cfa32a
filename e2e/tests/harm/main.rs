//! Every file that the daemon keeps, harmed in every way while it is dead and pods run: it starts,
//! other pods are as they were, nothing is lost without a word, nothing runs that is not listed,
//! and after the pods nothing is left.
//!
//! The table in `files` says what each kind of file decides. A file that no row names fails the
//! test: its row says what its loss costs. `HARM_ONLY` chooses kinds by a part of their name,
//! `HARM_WOUNDS` says in how many ways each is harmed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod files;
mod scene;
mod wounds;

use std::fs;
use std::path::PathBuf;

use crisp_e2e::{Cri, Node, trial};
use files::{FILES, Found, Kind, Owner};
use scene::{Scene, Sight};
use wounds::{Wound, wounds};

/// A pod that loses files of one kind.
struct Victim {
    kind: &'static Kind,
    scene: Scene,
}

/// All pods of a trial.
struct Pods {
    /// One for each kind of files that pods have.
    victims: Vec<Victim>,
    /// It loses nothing of its own, and must not feel what others lose.
    other: Scene,
}

/// A harm that is about to be done, and what was seen before it.
struct Harm<'a> {
    kind: &'static Kind,
    scene: &'a Scene,
    files: Vec<PathBuf>,
    before: Sight,
    /// The host pid of the container that runs.
    pid: i32,
}

impl Pods {
    fn new(node: &Node) -> Self {
        let other = Scene::new(node, "other", 8080);
        let kinds = FILES.iter().filter(|kind| kind.owner == Owner::Pod);
        let victims = kinds.filter(|kind| kind.is_wanted());
        let victims = victims.enumerate().map(|(number, kind)| Victim {
            kind,
            scene: victim(node, number),
        });
        Self {
            victims: victims.collect(),
            other,
        }
    }
}

fn victim(node: &Node, number: usize) -> Scene {
    let port = 8081 + i32::try_from(number).unwrap();
    Scene::new(node, &format!("victim{number}"), port)
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

impl<'a> Harm<'a> {
    fn new(cri: &mut Cri, kind: &'static Kind, scene: &'a Scene, files: Vec<PathBuf>) -> Self {
        assert!(!files.is_empty(), "no file is {}", kind.name);
        Self {
            kind,
            scene,
            files,
            before: scene.look(cri),
            pid: scene.pid(cri),
        }
    }

    /// Tells the consequences that are wrong.
    fn judge(&self, cri: &mut Cri, said: &str, wrong: &mut Vec<String>) {
        let Self { kind, scene, .. } = self;
        let now = scene.look(cri);
        let each = self.before.keys().copied();
        let lost: Vec<&str> = each.filter(|part| self.before[part] != now[part]).collect();
        for part in &lost {
            if !kind.costs.contains(part) {
                let before = &self.before[part];
                wrong.push(format!("{part} was {before}, is {}", now[part]));
            }
        }
        if !lost.is_empty() && !self.is_told(said) {
            wrong.push(format!("{lost:?} lost without a word"));
        }
        if is_alive(self.pid) && !cri.container_ids().contains(&scene.running) {
            wrong.push("it runs and is not listed".to_owned());
        }
        if !lost.contains(&"created") && kind.owner == Owner::Pod {
            match cri.start(&scene.created) {
                Ok(()) => {}
                Err(_) if kind.costs.contains(&"start") => {}
                Err(status) => wrong.push(format!("a start answers {status}")),
            }
        }
    }

    /// Whether the log says something about the pod, one of its containers, or a file.
    fn is_told(&self, said: &str) -> bool {
        let is_about = |line: &str| {
            let mut files = self.files.iter().map(|file| file.to_str().unwrap());
            files.any(|file| line.contains(file))
                || self.scene.ids().iter().any(|id| line.contains(id))
        };
        let lines = said.lines();
        let mut loud = lines.filter(|line| line.contains("WARN") || line.contains("ERROR"));
        loud.any(is_about)
    }
}

/// Kills the daemon, does what has to be done to files, starts it again, and tells what is wrong.
fn harm(node: &mut Node, other: &Scene, harms: &[Harm], (name, wound): Wound) -> Vec<String> {
    let before = other.look(&mut node.cri());
    let logged = node.log().len();
    node.kill();
    harms
        .iter()
        .flat_map(|harm| &harm.files)
        .for_each(|file| wound(file));
    node.restart();
    let mut cri = node.cri();
    let mut wrong = Vec::new();
    for harm in harms {
        let mut of_one = Vec::new();
        let log = node.log();
        harm.judge(&mut cri, &log[logged..], &mut of_one);
        let kind = harm.kind.name;
        of_one
            .iter()
            .for_each(|what| eprintln!("{kind}, {name}: {what}"));
        wrong.extend(
            of_one
                .into_iter()
                .map(|what| format!("{kind}, {name}: {what}")),
        );
    }
    let now = other.look(&mut cri);
    if before != now {
        let kinds: Vec<&str> = harms.iter().map(|harm| harm.kind.name).collect();
        wrong.push(format!(
            "{kinds:?}, {name}: the other pod was {before:?}, is {now:?}"
        ));
    }
    wrong
}

/// Files of all kinds that pods have, each in a pod of its own.
fn harm_pods(node: &mut Node, pods: &mut Pods, wound: Wound) -> Vec<String> {
    let found = files::found(node);
    let mut cri = node.cri();
    let each = pods.victims.iter().map(|Victim { kind, scene }| {
        let files = found.iter().filter(|one| one.kind.name == kind.name);
        let files = files.filter(|one| one.is_of(scene));
        Harm::new(
            &mut cri,
            kind,
            scene,
            files.map(|one| one.path.clone()).collect(),
        )
    });
    let harms: Vec<Harm> = each.collect();
    let wrong = harm(node, &pods.other, &harms, wound);
    let mut cri = node.cri();
    for Victim { scene, .. } in &pods.victims {
        cri.remove_pod(&scene.pod);
        assert!(!cri.pod_ids().contains(&scene.pod));
    }
    files::put_right(node);
    for (number, victim) in pods.victims.iter_mut().enumerate() {
        victim.scene = self::victim(node, number);
    }
    wrong
}

/// A file that all pods share.
fn harm_node(node: &mut Node, pods: &Pods, found: &Found, wound: Wound) -> Vec<String> {
    let scene = &pods.other;
    let of_node = Harm::new(&mut node.cri(), found.kind, scene, vec![found.path.clone()]);
    let was = fs::read(&found.path).unwrap();
    let wrong = harm(node, scene, &[of_node], wound);
    files::put_right(node);
    // A file that no daemon needs is not made again, and the next wound wants it.
    if !found.path.exists() {
        fs::write(&found.path, was).unwrap();
    }
    wrong
}

#[test]
fn privileged_no_file_is_missed_without_a_word() {
    trial(|node| {
        let mut wrong = Vec::new();
        let mut pods = Pods::new(node);
        for wound in wounds() {
            if !pods.victims.is_empty() {
                wrong.extend(harm_pods(node, &mut pods, wound));
            }
            let kinds = FILES.iter().filter(|kind| kind.owner == Owner::Node);
            for kind in kinds.filter(|kind| kind.is_wanted()) {
                let mut found = files::found(node).into_iter();
                let found = found.find(|one| one.kind.name == kind.name).unwrap();
                wrong.extend(harm_node(node, &pods, &found, wound));
            }
            eprintln!("{}: {} wrong so far", wound.0, wrong.len());
        }
        let mut cri = node.cri();
        for Victim { scene, .. } in &pods.victims {
            cri.remove_pod(&scene.pod);
        }
        cri.remove_pod(&pods.other.pod);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
