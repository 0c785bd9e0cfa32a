//! Paths as requests and images write them, made plain by their names alone.

use std::path::{Component, Path, PathBuf};

/// The path as seen from `/`, without `.` and `..`: by names alone, and never above `/`.
#[must_use]
pub fn clean_from_root(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths_stay_below_the_root() {
        let cases = [
            ("/../../../etc", "/etc"),
            ("data/./x", "/data/x"),
            ("/a/../../b/", "/b"),
            ("..", "/"),
            ("//a//./b/", "/a/b"),
        ];
        for (written, want) in cases {
            assert_eq!(
                clean_from_root(Path::new(written)),
                Path::new(want),
                "{written}"
            );
        }
    }
}
