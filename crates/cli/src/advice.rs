//! Advice that can be typed as it stands: a command about a cluster names the cluster and the directory
//! wherever they are not the usual ones, or it would be about another cluster.

use std::path::Path;

use crate::arguments::{USUAL_DIR, USUAL_NAME};
use crate::names::ClusterName;

/// A command about one cluster of a directory, or about all of it, in backquotes.
pub fn command(words: &str, name: Option<&ClusterName>, dir: &Path) -> String {
    let mut command = format!("crisp cluster {words}");
    if let Some(name) = name
        .map(ToString::to_string)
        .filter(|name| name != USUAL_NAME)
    {
        command.push_str(&format!(" --name {}", quoted(&name)));
    }
    if dir != Path::new(USUAL_DIR) {
        command.push_str(&format!(" --dir {}", quoted(&dir.display().to_string())));
    }
    format!("`{command}`")
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@,=".contains(letter);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn what_is_told_can_be_typed() {
        assert_eq!(quoted("/usr/bin/kubectl"), "/usr/bin/kubectl");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        let (usual, other) = (USUAL_NAME.parse().unwrap(), "other".parse().unwrap());
        let dir = Path::new(USUAL_DIR);
        let stop = |name, dir| command("stop node-1", Some(name), dir);
        assert_eq!(stop(&usual, dir), "`crisp cluster stop node-1`");
        assert_eq!(
            stop(&other, Path::new("/srv")),
            "`crisp cluster stop node-1 --name other --dir /srv`"
        );
        assert_eq!(command("list", None, dir), "`crisp cluster list`");
    }

    /// A command that is written out is about the usual cluster, whichever had the failure.
    #[test]
    fn no_command_is_written_out() {
        let mut found = Vec::new();
        let mut dirs = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut files = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let is_advice = path.ends_with("advice.rs");
                found.extend(
                    written_out(&text)
                        .filter(|_| !is_advice)
                        .map(|line| format!("{}: {line}", path.display())),
                );
            }
        }
        assert!(files > 40, "{files}");
        assert!(found.is_empty(), "say these by advice::command: {found:#?}");
        let bad = ["    \"`crisp cluster up` makes it\"", "x `start {name}` y"];
        for bad in bad {
            assert_eq!(written_out(bad).count(), 1, "{bad}");
        }
    }

    fn written_out(text: &str) -> impl Iterator<Item = &str> {
        const VERBS: [&str; 9] = [
            "up",
            "list",
            "load",
            "kubeconfig",
            "logs",
            "exec",
            "stop",
            "start",
            "delete",
        ];
        let is_one = |line: &&str| {
            let begins = |before: &str| {
                let mut after = line.split(before).skip(1);
                after.any(|after| {
                    let word = after.split([' ', '`', '"']).next().unwrap_or_default();
                    VERBS.contains(&word)
                })
            };
            !line.trim_start().starts_with("//") && (begins("crisp cluster ") || begins("`"))
        };
        text.lines().filter(is_one)
    }
}
