//! Tests of the catalog: which image a name stands for, and which images keep which layers.

use super::*;
use crate::image_config::{self, Parsed};
use crate::record::ImageRecord;

fn digest(text: &str) -> Digest {
    Digest::parse(&format!("sha256:{text:0<64}")).unwrap()
}

fn parsed() -> Parsed {
    image_config::parse(br#"{"os":"linux","architecture":"amd64","rootfs":{}}"#).unwrap()
}

fn put(id: &str, manifest: &str, layers: &[&str]) -> Edit {
    let record = ImageRecord {
        manifest: digest(manifest),
        documents: BTreeSet::from([digest(manifest), digest(id)]),
        layers: layers.iter().map(|l| digest(l)).collect(),
        size: 1,
        annotations: BTreeMap::new(),
    };
    let parsed = parsed();
    Edit::PutImage(digest(id), Arc::new(Image { record, parsed }))
}

fn id(chain: &str) -> LayerId {
    LayerId {
        chain: digest(chain),
        generation: 1,
    }
}

fn layer(id: &str) -> Edit {
    let record = LayerRecord {
        generation: 1,
        bytes: 10,
        inodes: 1,
        unsynced_boot: None,
    };
    Edit::PutLayer(digest(id), record)
}

fn name(name: &str, id: &str) -> Edit {
    Edit::PutName(name.to_owned(), digest(id))
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::new(BTreeSet::from(["docker.io/library/a:latest".to_owned()]));
    let with_digest = format!("docker.io/library/a@{}", digest("e1"));
    catalog.apply(&[
        put("abc1", "e1", &["1", "2"]),
        put("abd1", "e2", &["1", "3"]),
        layer("1"),
        layer("2"),
        layer("3"),
        name("docker.io/library/a:latest", "abc1"),
        name(&with_digest, "abc1"),
        name("docker.io/library/abd:latest", "abc1"),
        name("r.io:5000/b:1", "abd1"),
    ]);
    catalog
}

#[test]
fn texts_find_images() {
    let catalog = catalog();
    let e1 = digest("e1");
    let full = digest("abd1");
    let cases = [
        ("a".to_owned(), Ok(Some("abc1"))),
        ("a:latest".to_owned(), Ok(Some("abc1"))),
        ("docker.io/a".to_owned(), Ok(Some("abc1"))),
        ("docker.io/library/a:latest".to_owned(), Ok(Some("abc1"))),
        (format!("a@{e1}"), Ok(Some("abc1"))),
        (format!("a:other@{e1}"), Ok(Some("abc1"))),
        (format!("b@{e1}"), Ok(None)),
        ("r.io:5000/b:1".to_owned(), Ok(Some("abd1"))),
        ("r.io:5000/b".to_owned(), Ok(None)),
        (full.to_string(), Ok(Some("abd1"))),
        (full.hex().to_owned(), Ok(Some("abd1"))),
        ("sha256:abc".to_owned(), Ok(Some("abc1"))),
        ("abc".to_owned(), Ok(Some("abc1"))),
        // A name wins over the beginning of an id.
        ("abd".to_owned(), Ok(Some("abc1"))),
        ("abd1".to_owned(), Ok(Some("abd1"))),
        ("ab".to_owned(), Err(2)),
        ("sha256:ab".to_owned(), Err(2)),
        ("sha256:".to_owned(), Ok(None)),
        (String::new(), Ok(None)),
        ("../x".to_owned(), Ok(None)),
        ("ffff".to_owned(), Ok(None)),
    ];
    for (text, expected) in cases {
        let found = catalog.find(&text);
        let found = found
            .map(|image| image.map(|i| i.id))
            .map_err(|a| a.matches.len());
        assert_eq!(found, expected.map(|id| id.map(digest)), "{text}");
    }
}

#[test]
fn a_name_moves_and_the_old_image_stays() {
    let mut catalog = catalog();
    catalog.apply(&[name("docker.io/library/a:latest", "abd1")]);
    let old = catalog.find("abc1").unwrap().unwrap();
    assert_eq!(old.repo_tags, ["docker.io/library/abd:latest"]);
    assert_eq!(old.repo_digests.len(), 1);
    assert!(!old.pinned);
    let new = catalog.find("a").unwrap().unwrap();
    assert_eq!(new.id, digest("abd1"));
    assert!(new.pinned);
}

#[test]
fn removal_takes_all_names() {
    let mut catalog = catalog();
    let edits = catalog.removal(&digest("abc1"));
    catalog.apply(&edits);
    assert!(catalog.find("a:latest").unwrap().is_none());
    assert!(
        catalog
            .find("abd")
            .unwrap()
            .is_some_and(|i| i.id == digest("abd1"))
    );
    assert_eq!(catalog.list().len(), 1);
    assert_eq!(catalog.idle_layers(), [id("2")]);
}

#[test]
fn layers_stay_while_anybody_needs_them() {
    let mut catalog = catalog();
    let container = ContainerId::parse(&"c".repeat(64)).unwrap();
    let granted = catalog.lease(&container, &[digest("1"), digest("2")]);
    assert_eq!(granted, Some(vec![id("1"), id("2")]));
    assert_eq!(catalog.lease(&container, &[digest("9")]), None);
    for id in ["abc1", "abd1"] {
        let edits = catalog.removal(&digest(id));
        catalog.apply(&edits);
    }
    assert_eq!(catalog.idle_layers(), [id("3")]);
    catalog.claim(&[digest("3"), digest("e7")]);
    catalog.claim(&[digest("3")]);
    catalog.unclaim(&[digest("3")]);
    assert!(catalog.idle_layers().is_empty());
    assert_eq!(
        catalog.needed_blobs(),
        BTreeSet::from([digest("3"), digest("e7")])
    );
    catalog.unclaim(&[digest("3"), digest("e7")]);
    catalog.end_lease(&container);
    assert_eq!(catalog.idle_layers().len(), 3);
    assert!(catalog.needed_blobs().is_empty());
}

#[test]
fn images_are_known_by_their_documents() {
    let catalog = catalog();
    assert_eq!(catalog.by_document(&digest("e1")), Some(digest("abc1")));
    assert_eq!(catalog.by_document(&digest("abc1")), None);
}

#[test]
fn only_leases_keep_what_is_distrusted() {
    let mut catalog = catalog();
    let container = ContainerId::parse(&"c".repeat(64)).unwrap();
    let old = LayerId {
        generation: 7,
        ..id("1")
    };
    catalog.restore_lease(container.clone(), vec![old.clone()]);
    catalog.distrust(
        old.clone(),
        Usage {
            bytes: 1,
            inodes: 1,
        },
    );
    assert_eq!(catalog.layer_usage(), (31, 4));
    assert_eq!(catalog.generations(&[digest("1")]), Some(vec![id("1")]));
    catalog.claim(&[digest("1")]);
    catalog.end_lease(&container);
    assert_eq!(catalog.idle_layers(), std::slice::from_ref(&old));
    catalog.apply(&[Edit::DropLayer(old)]);
    assert!(catalog.idle_layers().is_empty());
    assert!(catalog.layer(&digest("1")).is_some());
}
