//! Names of containerd's: which are brought, and what is said of the others.

use super::store::Target;
use super::*;

fn named(name: &str, digest: &str) -> Named {
    Named {
        name: name.to_owned(),
        target: Target {
            digest: digest.to_owned(),
            media_type: String::new(),
        },
        is_pinned: false,
    }
}

#[test]
fn names_that_kubelets_use_are_brought_and_ids_come_with_them() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let by_digest = format!("a.example/x@{digest}");
    let all = vec![
        named("a.example/x:1", &digest),
        named(&by_digest, &digest),
        named("sha256:1", &digest),
        named("sha256:2", "another"),
        named("x:1", &digest),
        named("not a name", &digest),
        named("a.example/gone:1", "gone"),
        named("sha256:3", "gone"),
    ];
    let (whole, left) = sort(all, |named| match named.target.digest == "gone" {
        true => Err(Why::Layers { missing: 2, all: 3 }),
        false => Ok(Vec::new()),
    });
    let names: Vec<&str> = whole.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["a.example/x:1", &by_digest]);
    let why = |name: &str| left[name].to_string();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(why("x:1").contains("docker.io/library/x:1"));
    assert!(why("not a name").contains("invalid image reference"));
    assert!(why("sha256:2").contains("no name but its id"));
    let told = told(2, 0, &left);
    assert!(
        told.contains("a.example/gone:1: containerd's store has 2 of its 3"),
        "{told}"
    );
    assert!(told.contains("discard_unpacked_layers"), "{told}");
}

#[test]
fn an_import_of_all_is_one_line() {
    assert_eq!(told(3, 1, &Left::new()), "3 imported, 1 were there already");
}
