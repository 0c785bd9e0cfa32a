//! An import's outcome, in words: how many images came, and which did not for which reason.

use std::collections::{BTreeMap, BTreeSet};

use super::whole::Why;

/// Longest reason that is told: documents of an image's owner may have words of any length.
const LONGEST: usize = 600;

/// An import's outcome.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many crispd has pulled.
    pub pulled: usize,
    /// How many it had.
    pub there: usize,
    /// Tags that lead to other images in crispd, and went on to do so; each with both digests.
    pub kept: BTreeMap<String, String>,
    /// Images that did not come, by name.
    pub left: BTreeMap<String, Why>,
    /// Names that no kubelet uses.
    pub useless: BTreeMap<String, String>,
    /// Names of images that were pinned in containerd, and that crispd has and does not pin.
    pub unpinned: BTreeSet<String>,
}

impl Outcome {
    /// Whether all came that a kubelet could ask for.
    pub fn is_whole(&self) -> bool {
        self.left.is_empty()
    }

    /// All of it. The first line counts, the others name images.
    pub fn told(&self) -> String {
        let (pulled, there) = (self.pulled, self.there);
        let mut text = format!("{pulled} imported, {there} were there already");
        if !self.left.is_empty() {
            let count = self.left.len();
            text.push_str(&format!(
                ", {count} not imported; those are pulled from their registries when a pod needs them:"
            ));
            add(
                &mut text,
                self.left.iter().map(|(name, why)| (name, why.to_string())),
            );
        }
        if self
            .left
            .values()
            .any(|why| matches!(why, Why::Layers { .. }))
        {
            line(
                &mut text,
                "containerd keeps no layers that it has unpacked where its configuration says \
                 discard_unpacked_layers = true",
            );
        }
        if !self.kept.is_empty() {
            let text = &mut text;
            line(
                text,
                "crispd has other images of these names, which stay; --move-tags leads them where they \
                 led in containerd:",
            );
            add(
                text,
                self.kept.iter().map(|(name, why)| (name, why.clone())),
            );
        }
        if !self.useless.is_empty() {
            line(
                &mut text,
                "images stay as well that have no name by which a kubelet asks:",
            );
            add(
                &mut text,
                self.useless.iter().map(|(name, why)| (name, why.clone())),
            );
        }
        if !self.unpinned.is_empty() {
            line(
                &mut text,
                "containerd had these pinned, and a kubelet may remove them from crispd, unless \
                 images.pinned of its configuration names them:",
            );
            self.unpinned
                .iter()
                .for_each(|name| line(&mut text, &plain(name)));
        }
        text
    }
}

fn add<'n>(text: &mut String, names: impl Iterator<Item = (&'n String, String)>) {
    for (name, why) in names {
        line(text, &format!("{}: {}", plain(name), plain(&why)));
    }
}

/// A further line, below the words of the first.
fn line(text: &mut String, more: &str) {
    text.push_str("\n          ");
    text.push_str(more);
}

/// Words of others as one line that no terminal takes for commands.
pub fn plain(words: &str) -> String {
    let mut text = String::new();
    for letter in words.chars() {
        if text.len() > LONGEST {
            text.push('…');
            break;
        }
        match letter.is_control() {
            true => text.extend(letter.escape_default()),
            false => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, why: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), why.to_owned())])
    }

    #[test]
    fn an_import_of_all_is_one_line() {
        let outcome = Outcome {
            pulled: 3,
            there: 1,
            ..Outcome::default()
        };
        assert_eq!(outcome.told(), "3 imported, 1 were there already");
        assert!(outcome.is_whole());
    }

    #[test]
    fn all_that_is_otherwise_than_in_containerd_is_told_by_name() {
        let layers = Why::Layers { missing: 2, all: 3 };
        let outcome = Outcome {
            pulled: 2,
            left: BTreeMap::from([("a.example/gone:1".to_owned(), layers)]),
            kept: one("a.example/x:1", "it leads to new, and led to old there"),
            useless: one("x:1", "a kubelet never finds it"),
            unpinned: BTreeSet::from(["a.example/pinned:1".to_owned()]),
            ..Outcome::default()
        };
        assert!(!outcome.is_whole());
        let told = outcome.told();
        for part in [
            "2 imported, 0 were there already, 1 not imported",
            "a.example/gone:1: containerd's store has 2 of its 3",
            "discard_unpacked_layers",
            "a.example/x:1: it leads to new",
            "--move-tags",
            "x:1: a kubelet never finds it",
            "a.example/pinned:1",
            "images.pinned",
        ] {
            assert!(told.contains(part), "{part} of {told}");
        }
        let (kept, useless) = (outcome.kept, outcome.useless);
        let outcome = Outcome {
            kept,
            useless,
            ..Outcome::default()
        };
        assert!(outcome.is_whole(), "no kubelet misses anything");
    }

    /// Else a name could move the cursor, and write lines that this program never wrote.
    #[test]
    fn words_of_others_are_one_line_without_commands() {
        let outcome = Outcome {
            useless: one("x\n0 imported\u{1b}[2J", "\u{9b}31m"),
            ..Outcome::default()
        };
        let told = outcome.told();
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(
            told.chars()
                .all(|letter| letter == '\n' || !letter.is_control())
        );
        let long = plain(&"é".repeat(LONGEST * 2));
        assert!(long.len() < LONGEST + 10 && long.ends_with('…'));
    }
}
