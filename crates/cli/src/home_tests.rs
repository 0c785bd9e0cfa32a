//! A directory of clusters is ours from the first to the last, and one of others stays as it is.

use super::*;

#[test]
fn sockets_fit_or_are_refused_before_anything_is_made() {
    let name: ClusterName = "a".repeat(20).parse().unwrap();
    let home = Home::at(Path::new("/var/lib/crisp-clusters")).unwrap();
    assert!(home.cluster(&name).check("node-100").is_ok());
    let home = Home::at(&Path::new("/tmp").join("x".repeat(60))).unwrap();
    let refused = home.cluster(&name).check("node-100").unwrap_err();
    assert!(refused.to_string().contains("--dir"), "{refused}");
}

#[test]
fn a_home_that_is_not_there_has_no_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("no")).unwrap();
    assert_eq!(home.names().unwrap(), []);
    assert!(!dir.path().join("no").exists());
}

#[test]
fn paths_that_others_would_read_as_something_else_are_refused() {
    for wrong in ["/srv/a b", "/srv/a\"b", "/srv/100%", "/srv/a#b", "/srv/ä"] {
        let refused = Home::at(Path::new(wrong)).unwrap_err().to_string();
        assert!(refused.contains("no plain path"), "{refused}");
    }
    assert!(Home::at(Path::new("relative/dir-1.x_y")).is_ok());
}

#[test]
fn a_home_has_one_path_whichever_way_leads_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("a")).unwrap();
    std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
    for (way, expected) in [
        ("a", "a"),
        ("a/", "a"),
        ("a/.", "a"),
        ("a/../a", "a"),
        ("link", "a"),
        ("link/new/x/", "a/new/x"),
        ("a/../new", "new"),
    ] {
        let home = Home::at(&root.join(way)).unwrap();
        assert_eq!(home.path().as_os_str(), root.join(expected).as_os_str());
    }
    let refused = Home::at(&root.join("no/../new")).unwrap_err().to_string();
    assert!(refused.contains("`..`"), "{refused}");
}

#[test]
fn a_removal_that_is_cut_short_leaves_nothing_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    let cluster = home.cluster(&"x".parse().unwrap());
    home.claim().unwrap();
    let rest = home.rest();
    let make = |path: &Path| fs::create_dir_all(path.join("nodes/node-1")).unwrap();
    for path in [cluster.path(), &home.daemon(), &rest] {
        make(path);
    }
    assert!(home.has_rest());
    home.remove_cluster(&cluster).unwrap();
    assert!(!cluster.path().exists() && !home.has_rest() && home.daemon().exists());
    make(&rest);
    home.remove_cluster(&cluster).unwrap();
    assert!(!home.has_rest(), "it goes also where the cluster has gone");
    make(&rest);
    home.remove().unwrap();
    assert!(!home.path().exists());
}

#[test]
fn a_home_stays_for_who_is_about_to_make_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    let name = "x".parse().unwrap();
    home.claim().unwrap();
    let held = home.lock_cluster(&name).unwrap();
    let decides = home.lock().unwrap();
    home.remove().unwrap();
    drop(decides);
    assert!(home.lock_of(&name).exists());
    drop(held);
    fs::create_dir_all(home.daemon()).unwrap();
    home.tidy(&name);
    assert!(home.daemon().exists() && !home.lock_of(&name).exists());
    fs::remove_dir(home.daemon()).unwrap();
    home.tidy(&name);
    assert!(!dir.path().join("home").exists());
}

#[test]
fn a_home_goes_whole_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    home.claim().unwrap();
    drop(home.lock().unwrap());
    fs::create_dir_all(home.cluster(&"x".parse().unwrap()).path()).unwrap();
    assert_eq!(home.names().unwrap().len(), 1);
    fs::remove_dir(home.cluster(&"x".parse().unwrap()).path()).unwrap();
    home.remove().unwrap();
    assert!(!dir.path().join("home").exists());
    home.claim().unwrap();
    drop(home.lock().unwrap());
    fs::create_dir(dir.path().join("home/strangers")).unwrap();
    home.remove().unwrap();
    assert!(dir.path().join("home/strangers").exists());
}

/// All files below a directory, with their contents.
fn all_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => all.push((path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_directory_of_others_stays_as_it_is() {
    for file in [
        "daemon/mine",
        "clusters/My_Cluster/data",
        "clusters/x/record.json",
        "network.json",
        "lock",
        "locks/x",
        "crisp-home",
        "anything",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        disk::write(&path, b"mine").unwrap();
        let before = all_below(dir.path());
        let home = Home::at(dir.path()).unwrap();
        let name = "x".parse().unwrap();
        let refused = home.claim().unwrap_err().to_string();
        assert!(refused.contains("no directory of clusters"), "{refused}");
        assert!(home.lock_cluster(&name).is_err(), "{file}");
        assert!(home.remove().is_err(), "{file}");
        assert_eq!(all_below(dir.path()), before, "{file}");
    }
}

#[test]
fn what_others_put_into_a_home_stays_when_that_goes() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path()).unwrap();
    home.claim().unwrap();
    let all = ["clusters/My_Cluster/data", "locks/Mine", "mine"].map(|file| dir.path().join(file));
    for path in &all {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        disk::write(path, b"mine").unwrap();
    }
    home.tidy(&"x".parse().unwrap());
    assert!(all.iter().all(|path| path.exists()));
}

#[test]
fn a_home_that_was_removed_meanwhile_is_claimed_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    let name = "x".parse().unwrap();
    home.claim().unwrap();
    home.remove().unwrap();
    assert!(!home.path().exists());
    // As of a command that found it and waited for its lock.
    let held = lock::take(&home.lock_of(&name), "x").unwrap();
    let decides = home.lock().unwrap();
    home.claim_again().unwrap();
    assert!(home.is_ours().unwrap());
    drop((held, decides));
    // Killed between the mark and the lock.
    home.tidy(&name);
    drop(home.lock().unwrap());
    home.claim().unwrap();
    assert!(home.is_ours().unwrap());
}

#[test]
fn a_directory_that_others_can_fill_is_refused() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| Home::at(path).map(drop).unwrap_err().to_string();
    let set_mode = |mode| {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o755);
    Home::at(dir.path()).unwrap().claim().unwrap();
    set_mode(0o757);
    let told = refused(dir.path());
    assert!(
        told.contains("all users") && told.contains("--dir"),
        "{told}"
    );
    set_mode(0o755);
    // Root alone can give files away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    chown(dir.path(), None, Some(4711)).unwrap();
    assert!(Home::at(dir.path()).is_ok());
    set_mode(0o775);
    assert!(refused(dir.path()).contains("group 4711"));
    chown(dir.path(), Some(4711), None).unwrap();
    let told = refused(dir.path());
    assert!(told.contains("user 4711"), "{told}");
    // Of a place that is not there yet nobody has filled anything.
    assert!(Home::at(&dir.path().join("new")).is_ok());
}
