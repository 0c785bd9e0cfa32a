//! The owner's settings are there again, whatever becomes of an import.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::disk::write;

const OWNERS: &str = "server = \"https://mirror.example\"\n";

/// A directory with settings of three hosts: with a file, with other files, and by port.
fn settings() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let path = dir.path().join(path);
        make_dir(path.parent().unwrap()).unwrap();
        write(&path, text.as_bytes()).unwrap();
    };
    file("a.example/hosts.toml", OWNERS);
    file("b.example/ca.crt", "x");
    file("c.example_5000_/hosts.toml", OWNERS);
    file("_default/hosts.toml", OWNERS);
    dir
}

const HOSTS: [&str; 4] = ["a.example", "b.example", "c.example:5000", "d.example"];

/// All paths below a directory with what is in them.
fn picture(dir: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.clone(), fs::read_to_string(&path).ok()));
        if path.is_dir() {
            found.extend(picture(&path));
        }
    }
    found.sort();
    found
}

fn way() -> Way {
    Way {
        hosts: "server = \"ours\"\n".to_owned(),
        certificate: "c".to_owned(),
    }
}

fn lead(dir: &Path) -> Detour {
    let detour = Detour::begin(dir).unwrap();
    for host in HOSTS {
        detour.lead(host, &way()).unwrap();
    }
    let leads = |path: &str| {
        let text = fs::read_to_string(dir.join(path).join("hosts.toml"));
        let is_ours = text.is_ok_and(|text| text.contains("ours"));
        is_ours && dir.join(path).join(CERTIFICATE).exists()
    };
    let places = ["a.example", "b.example", "c.example_5000_", "d.example"];
    assert!(places.iter().all(|place| leads(place)));
    assert!(!leads("_default") && !dir.join("c.example:5000").exists());
    detour
}

#[test]
fn settings_are_the_owners_again_whether_it_ends_or_is_killed() {
    let dir = settings();
    let before = picture(dir.path());
    drop(lead(dir.path()));
    assert_eq!(picture(dir.path()), before);
    let killed = lead(dir.path());
    // A killed one leaves its files; its lock goes with it.
    let Detour { _lock: lock, .. } = &killed;
    flock(lock, FlockOperation::Unlock).unwrap();
    std::mem::forget(killed);
    assert_ne!(picture(dir.path()), before);
    drop(Detour::begin(dir.path()).unwrap());
    assert_eq!(picture(dir.path()), before);
}

#[test]
fn a_kill_between_any_two_steps_is_put_back() {
    let dir = settings();
    let before = picture(dir.path());
    let place = dir.path().join("a.example");
    // The owner's file is kept aside, and ours not written yet.
    fs::hard_link(place.join("hosts.toml"), place.join(KEPT)).unwrap();
    // A new host's directory has no name yet.
    make_dir(&dir.path().join(NEW)).unwrap();
    write(&dir.path().join(NEW).join("hosts.toml"), b"x").unwrap();
    drop(Detour::begin(dir.path()).unwrap());
    assert_eq!(picture(dir.path()), before);
}

#[test]
fn a_file_that_the_owner_changes_meanwhile_wins() {
    let dir = settings();
    let detour = lead(dir.path());
    let [changed, removed] = ["a.example", "c.example_5000_"];
    let file = |host: &str| dir.path().join(host).join("hosts.toml");
    write(&file(changed), b"newer").unwrap();
    fs::remove_file(file(removed)).unwrap();
    write(&dir.path().join("d.example/ca.crt"), b"x").unwrap();
    drop(detour);
    assert_eq!(fs::read(file(changed)).unwrap(), b"newer");
    assert!(!file(removed).exists());
    assert!(dir.path().join("d.example/ca.crt").exists() && !file("d.example").exists());
    assert!(
        picture(dir.path())
            .iter()
            .all(|(path, _)| !path.ends_with(KEPT))
    );
}

#[test]
fn links_of_the_owner_stay_links() {
    let dir = settings();
    let file = dir.path().join("a.example/hosts.toml");
    fs::rename(&file, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &file).unwrap();
    drop(lead(dir.path()));
    assert_eq!(fs::read_link(&file).unwrap(), Path::new("../elsewhere"));
    assert_eq!(fs::read_to_string(&file).unwrap(), OWNERS);
}

#[test]
fn two_imports_do_not_mix_and_nothing_is_left_of_a_directory_that_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs.d");
    let detour = Detour::begin(&certs).unwrap();
    detour.lead("a.example", &way()).unwrap();
    let told = Detour::begin(&certs).unwrap_err().to_string();
    assert!(told.contains("another import"), "{told}");
    assert!(certs.join("a.example/hosts.toml").exists());
    drop(detour);
    assert!(!certs.exists());
}

/// Its content tells the way to images of the node.
#[test]
fn ours_are_for_crispd_alone_and_the_owners_keep_their_mode() {
    let dir = settings();
    let mode = |host: &str| {
        let file = dir.path().join(host).join("hosts.toml");
        file.metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("a.example"), 0o644);
    let detour = lead(dir.path());
    assert_eq!([mode("a.example"), mode("d.example")], [0o600; 2]);
    detour.end().unwrap();
    assert_eq!(mode("a.example"), 0o644);
}

/// Others would be led here for ever, where nobody answers any more.
#[test]
fn a_host_that_cannot_be_put_back_is_told_and_does_not_keep_others() {
    let dir = settings();
    let detour = lead(dir.path());
    // A directory does not take the place of a file.
    let place = dir.path().join("a.example");
    fs::remove_file(place.join(KEPT)).unwrap();
    make_dir(&place.join(KEPT)).unwrap();
    let told = detour.end().unwrap_err().to_string();
    assert!(
        told.contains("a.example: put its settings back") && told.contains("the next `crisp"),
        "{told}"
    );
    let text = |host: &str| fs::read_to_string(dir.path().join(host).join("hosts.toml"));
    assert_eq!(text("c.example_5000_").unwrap(), OWNERS);
    assert!(!dir.path().join("d.example").exists());
    assert!(!dir.path().join("b.example/hosts.toml").exists());
}

#[test]
fn oddities_of_the_owner_are_no_hindrance() {
    let dir = settings();
    make_dir(&dir.path().join("odd.example/hosts.toml")).unwrap();
    let pipe = dir.path().join("pipe.example");
    make_dir(&pipe).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, pipe.join("hosts.toml"), kind, mode, 0).unwrap();
    lead(dir.path()).end().unwrap();
    assert!(pipe.join("hosts.toml").exists());
}
