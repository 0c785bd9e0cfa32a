//! The pages of `docs/` name the tests that hold what they say. A test that was renamed would leave a statement
//! without one.

use std::collections::BTreeSet;
use std::fs;

use crate::{root, sources};

/// The words of a page's comments that name tests or files of Rust.
fn named(page: &str) -> BTreeSet<&str> {
    let comments = page.split("<!--").skip(1);
    let comments = comments.filter_map(|rest| rest.split("-->").next());
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "_./-".contains(letter);
    comments
        .flat_map(|comment| comment.split(move |letter| !is_of_name(letter)))
        .map(|word| word.trim_matches('.'))
        .filter(|word| word.starts_with("privileged_") || word.ends_with(".rs"))
        .collect()
}

#[test]
fn tests_that_pages_name_are_there() {
    let sources = sources();
    let is_there = |word: &str| match word.strip_suffix(".rs") {
        Some(_) => sources.iter().any(|(path, _)| path.ends_with(word)),
        None => {
            let function = format!("fn {word}(");
            sources.iter().any(|(_, text)| text.contains(&function))
        }
    };
    let mut missing = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let names = named(&page);
        count += names.len();
        missing.extend(
            names
                .into_iter()
                .filter(|word| !is_there(word))
                .map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert!(count > 40, "{count}");
    assert!(
        missing.is_empty(),
        "pages name what is not there: {missing:#?}"
    );
}

#[test]
fn names_are_found_in_comments_alone() {
    let page =
        "privileged_x in a.rs <!-- Proved by e2e/tests/b.rs (privileged_y, on c), d.rs. --> e.rs";
    let expected = ["d.rs", "e2e/tests/b.rs", "privileged_y"];
    assert_eq!(named(page), expected.into());
}
