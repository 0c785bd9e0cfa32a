//! The database keeps each commit, and a harmed file is set aside.

use std::os::unix::fs::PermissionsExt as _;

use crisp_snapshotter::LayerId;

use super::*;

fn edits(id: &Digest) -> [Edit; 4] {
    let layer = LayerRecord {
        generation: 3,
        bytes: 5,
        inodes: 1,
        unsynced_boot: Some("b".into()),
    };
    [
        Edit::PutName("r.io/a:1".into(), id.clone()),
        Edit::PutName("r.io/b:1".into(), id.clone()),
        Edit::PutLayer(id.clone(), layer),
        Edit::DropName("r.io/b:1".into()),
    ]
}

#[test]
fn edits_outlive_the_process_and_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let id = Digest::sha256([1; 32]);
    let database = Database::open(dir.path()).unwrap();
    database.apply(&edits(&id)).unwrap();
    drop(database);
    let mode = fs::metadata(dir.path().join("images.db")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let database = Database::open(dir.path()).unwrap();
    let saved = database.load();
    let names = BTreeMap::from([("r.io/a:1".to_owned(), id.clone())]);
    assert_eq!(saved.names, names);
    assert_eq!(saved.layers[&id].generation, 3);
    assert!(saved.images.is_empty());
    // Another generation is not the one that was meant.
    let of = |generation| {
        let chain = id.clone();
        [Edit::DropLayer(LayerId { chain, generation })]
    };
    database.apply(&of(2)).unwrap();
    assert_eq!(database.load().layers.len(), 1);
    database.apply(&of(3)).unwrap();
    assert!(database.load().layers.is_empty());
}

#[test]
fn newer_versions_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let body = br#"{"version":9,"other":1}"#;
    let bytes = seal(body);
    let path = dir.path().join("images.db");
    file::write_atomic(&path, &bytes, 0o600).unwrap();
    let error = Database::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("version 9"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let id = Digest::sha256([1; 32]);
    let database = Database::open(dir.path()).unwrap();
    let away = dir.path().with_extension("away");
    fs::rename(dir.path(), &away).unwrap();
    assert!(database.apply(&edits(&id)).is_err());
    assert!(database.load().names.is_empty());
    fs::rename(&away, dir.path()).unwrap();
    database.apply(&edits(&id)).unwrap();
    assert_eq!(database.load().names.len(), 1);
}

#[test]
fn what_lies_in_the_place_of_a_file_gives_way() {
    let dir = tempfile::tempdir().unwrap();
    let id = Digest::sha256([1; 32]);
    let names = ["images.db", "images.next", "images.lock", "images.redb"];
    let block = |names: &[&str]| {
        for name in names {
            let path = dir.path().join(name);
            owned::remove(&path).unwrap();
            fs::create_dir_all(path.join("a/b")).unwrap();
        }
    };
    block(&names);
    fs::create_dir_all(dir.path().join("images.damaged/a")).unwrap();
    let database = Database::open(dir.path()).unwrap();
    database.apply(&edits(&id)).unwrap();
    // While it is open, too.
    block(&names[..2]);
    database.apply(&edits(&id)).unwrap();
    drop(database);
    assert_eq!(Database::open(dir.path()).unwrap().load().names.len(), 1);
}
