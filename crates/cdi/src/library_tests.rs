//! Tests of directories: precedence, conflicts, files that cannot be read.

use super::*;

/// Two directories with files, `0/NAME` and `1/NAME`.
fn library(files: &[(&str, &str)]) -> (tempfile::TempDir, Library) {
    let root = tempfile::tempdir().unwrap();
    let dirs = ["0", "1", "none"].map(|name| root.path().join(name));
    dirs[..2]
        .iter()
        .for_each(|dir| fs::create_dir(dir).unwrap());
    for (name, text) in files {
        file::write_atomic(&root.path().join(name), text.as_bytes(), 0o600).unwrap();
    }
    (root, Library::new(dirs.to_vec()))
}

/// A file with one device, whose edits tell where it comes from.
fn spec(device: &str, env: &str) -> String {
    format!(
        "cdiVersion: 0.6.0\nkind: v.com/c\ncontainerEdits: {{env: [ALL={env}]}}\n\
         devices:\n- name: {device}\n  containerEdits: {{env: [ONE={env}]}}\n"
    )
}

fn env(library: &Library, names: &[&str]) -> Result<Vec<String>> {
    let names: Vec<Name> = names
        .iter()
        .map(|name| Name::parse(name).unwrap())
        .collect();
    Ok(library.resolve(&names)?.env)
}

#[test]
fn later_directories_win_and_edits_for_all_come_once() {
    let two = spec("a", "low").replace("- name", "- {name: b}\n- name");
    let (_root, library) = library(&[
        ("0/two.yaml", &two),
        ("1/one.yaml", &spec("a", "high")),
        ("1/not-a-spec.txt", "x"),
    ]);
    assert_eq!(
        env(&library, &["v.com/c=a"]).unwrap(),
        ["ALL=high", "ONE=high"]
    );
    let both = env(&library, &["v.com/c=b", "v.com/c=a"]).unwrap();
    assert_eq!(both, ["ALL=low", "ALL=high", "ONE=high"]);
    let json = r#"{"cdiVersion":"0.6.0","kind":"v.com/d","devices":[{"name":"x"}]}"#;
    fs::remove_file(library.dirs()[1].join("one.yaml")).unwrap();
    file::write_atomic(&library.dirs()[1].join("new.json"), json.as_bytes(), 0o600).unwrap();
    assert_eq!(
        env(&library, &["v.com/d=x"]).unwrap(),
        <[String; 0]>::default()
    );
    assert_eq!(
        env(&library, &["v.com/c=a"]).unwrap(),
        ["ALL=low", "ONE=low"]
    );
    let twice = env(&library, &["v.com/c=a", "v.com/c=b"]).unwrap();
    assert_eq!(twice, ["ALL=low", "ONE=low"]);
}

#[test]
fn a_device_in_two_files_of_one_directory_is_a_conflict_unless_a_later_one_has_it() {
    let (root, library) = library(&[
        ("0/x.yaml", &spec("a", "x")),
        ("0/y.yaml", &spec("a", "y")),
        ("0/z.yaml", &spec("b", "z")),
    ]);
    let error = env(&library, &["v.com/c=a"]).unwrap_err().to_string();
    assert!(
        error.contains("x.yaml") && error.contains("y.yaml"),
        "{error}"
    );
    assert_eq!(env(&library, &["v.com/c=b"]).unwrap(), ["ALL=z", "ONE=z"]);
    let later = root.path().join("1/later.yaml");
    file::write_atomic(&later, spec("a", "later").as_bytes(), 0o600).unwrap();
    assert_eq!(
        env(&library, &["v.com/c=a"]).unwrap(),
        ["ALL=later", "ONE=later"]
    );
}

#[test]
fn a_broken_file_keeps_no_device_but_its_own() {
    let (root, library) = library(&[
        (
            "0/broken.yaml",
            "cdiVersion: 9.9.9\nkind: v.com/c\ndevices: [{name: a}]\n",
        ),
        ("1/good.yaml", &spec("b", "good")),
    ]);
    fs::create_dir(root.path().join("0/dir.json")).unwrap();
    assert_eq!(
        env(&library, &["v.com/c=b"]).unwrap(),
        ["ALL=good", "ONE=good"]
    );
    let error = env(&library, &["v.com/c=a"]).unwrap_err().to_string();
    for told in [
        "v.com/c=a",
        "/0 and ",
        "/none",
        "broken.yaml",
        "9.9.9",
        "dir.json",
    ] {
        assert!(error.contains(told), "{told}: {error}");
    }
    assert_eq!(library.told.lock().unwrap().len(), 2);
    let large = root.path().join("1/large.json");
    let blanks = vec![b' '; usize::try_from(MAX_FILE).unwrap() + 1];
    file::write_atomic(&large, &blanks, 0o600).unwrap();
    fs::remove_dir(root.path().join("0/dir.json")).unwrap();
    assert!(env(&library, &["v.com/c=b"]).is_ok());
    assert!(library.told.lock().unwrap().contains_key(&large));
}
