//! Mount options of the spec, sorted by who understands them.

use std::borrow::Cow;

use crisp_model::MAPPED_WHERE_POSSIBLE;
use crisp_sys::mount::{Depth, MountAttributes, Propagation};
use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::rootfs::Follows;

/// The options of one mount.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// For a bind: one mount or the tree.
    pub bind: Option<Depth>,
    /// Attributes of the mount alone.
    pub attributes: MountAttributes,
    /// Attributes of the mount and all below it (`rro` and the like).
    pub recursive: MountAttributes,
    /// Propagation.
    pub propagation: Option<(Propagation, Depth)>,
    /// Parameters of the file system: `key` or `key=value`.
    pub parameters: Vec<(String, Option<String>)>,
    /// Whether its files have other owners, and which mounts' files.
    pub id_map: Option<Reach>,
    /// Copy what the image has at the target into the tmpfs.
    pub copy_up: bool,
}

/// The mounts of a bind whose owners are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The mount itself.
    One,
    /// All mounts of the tree.
    Tree,
    /// All mounts of the tree, or where one below cannot be mapped the mount itself.
    TreeOrOne,
}

impl Options {
    pub(crate) fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            parsed.take(option)?;
        }
        Ok(parsed)
    }

    /// Parameters as the kernel takes them, one by one.
    pub(crate) fn one_by_one(&self) -> Vec<(String, Option<String>)> {
        let options = self.parameters.iter().map(|(key, value)| match value {
            Some(value) => Cow::Owned(format!("{key}={value}")),
            None => Cow::Borrowed(key),
        });
        options.flat_map(|option| parameters(&option)).collect()
    }

    /// Whether mounts of the host are to come in.
    pub(crate) fn follows_host(&self) -> bool {
        let spread = self.propagation.map(|(kind, _)| kind);
        matches!(spread, Some(Propagation::Slave | Propagation::Shared))
    }

    /// Whether mounts go either way.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.propagation, Some((Propagation::Shared, _)))
    }

    /// A tmpfs without a mode of its own has that of the directory that it covers, as with other
    /// runtimes: an image's `/run` stays closed to its users. Where there was none, the kernel's
    /// default opens it to everybody.
    pub(crate) fn take_mode_of(&mut self, kind: &str, covered: Option<u32>) {
        let is_given = self.one_by_one().iter().any(|(key, _)| key == "mode");
        if let (Some(mode), "tmpfs", false) = (covered, kind, is_given) {
            let mode = format!("{mode:o}");
            self.parameters.push(("mode".to_owned(), Some(mode)));
        }
    }

    fn take(&mut self, option: &str) -> Result<()> {
        if let Some(attributes) = self.attributes.with_option(option) {
            self.attributes = attributes;
            return Ok(());
        }
        let recursive = option
            .strip_prefix('r')
            .and_then(|o| self.recursive.with_option(o));
        if let Some(recursive) = recursive {
            self.recursive = recursive;
            return Ok(());
        }
        match option {
            "bind" => self.bind = Some(Depth::Single),
            "rbind" => self.bind = Some(Depth::Recursive),
            "defaults" | "async" | "nomand" | "silent" | "loud" | "noiversion" => {}
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(Reach::One),
            "ridmap" => self.id_map = Some(Reach::Tree),
            MAPPED_WHERE_POSSIBLE => self.id_map = Some(Reach::TreeOrOne),
            _ => match propagation(option) {
                Some(propagation) => self.propagation = Some(propagation),
                None => self.parameters.push(parameter(option)),
            },
        }
        Ok(())
    }
}

/// Parameters in one option: several, where its writer joined them by commas as for mount(8). As in
/// the kernel's own reading, a comma belongs to a value before a digit (the list of nodes of a tmpfs),
/// behind a backslash (an overlay's directory) and between quotes (a label).
fn parameters(option: &str) -> Vec<(String, Option<String>)> {
    let (mut parts, mut is_quoted, mut last) = (vec![String::new()], false, ' ');
    let mut letters = option.chars().peekable();
    while let Some(letter) = letters.next() {
        is_quoted ^= letter == '"';
        let before_digit = letters.peek().is_some_and(char::is_ascii_digit);
        if letter == ',' && !is_quoted && last != '\\' && !before_digit {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
        last = letter;
    }
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.map(|part| parameter(part)).collect()
}

fn parameter(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn propagation(option: &str) -> Option<(Propagation, Depth)> {
    let (kind, depth) = match option.strip_prefix('r') {
        Some(kind) => (kind, Depth::Recursive),
        None => (option, Depth::Single),
    };
    let kind = match kind {
        "private" => Propagation::Private,
        "slave" => Propagation::Slave,
        "shared" => Propagation::Shared,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, depth))
}

/// Whether `linux.rootfsPropagation` lets mounts of the host come into the root.
pub(crate) fn root_follows_host(spec: &Spec) -> Follows {
    let linux = spec.linux().as_ref();
    let text = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    match text.and_then(propagation) {
        Some((Propagation::Slave | Propagation::Shared, _)) => Follows::Host,
        _ => Follows::Nobody,
    }
}

/// Whether `linux.rootfsPropagation` lets mounts of the container go out to the host: without that,
/// a mount that is to be shared is shared within the container alone.
pub(crate) fn root_is_shared(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let text = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    matches!(text.and_then(propagation), Some((Propagation::Shared, _)))
}

/// The propagation that `linux.rootfsPropagation` names.
pub(crate) fn rootfs_propagation(text: &str) -> Result<(Propagation, Depth)> {
    propagation(text).ok_or_else(|| Error::invalid("linux.rootfsPropagation", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_where_they_belong() {
        let list = [
            "rbind",
            "ro",
            "rro",
            "rprivate",
            "size=64k",
            "newinstance",
            "noexec",
        ];
        let options = Options::parse(&list.map(str::to_owned)).unwrap();
        assert_eq!(options.bind, Some(Depth::Recursive));
        assert_eq!(
            options.propagation,
            Some((Propagation::Private, Depth::Recursive))
        );
        assert!(!options.recursive.is_empty() && !options.attributes.is_empty());
        let parameters = options.parameters.iter().map(|(key, _)| key.as_str());
        assert_eq!(parameters.collect::<Vec<_>>(), ["size", "newinstance"]);
        let id_map = |option: &str| Options::parse(&[option.to_owned()]).unwrap().id_map;
        assert_eq!(id_map("idmap"), Some(Reach::One));
        assert_eq!(id_map("ridmap"), Some(Reach::Tree));
        assert_eq!(id_map(MAPPED_WHERE_POSSIBLE), Some(Reach::TreeOrOne));
    }

    #[test]
    fn one_option_may_hold_several_for_the_file_system() {
        for (option, parts) in [
            ("size=1m", &[("size", "1m")][..]),
            ("size=1m,mode=1750", &[("size", "1m"), ("mode", "1750")]),
            ("newinstance,ro", &[("newinstance", ""), ("ro", "")]),
            (
                "mpol=bind:0,2,size=1m",
                &[("mpol", "bind:0,2"), ("size", "1m")],
            ),
            (
                r"upperdir=/a\,b,index=on",
                &[("upperdir", r"/a\,b"), ("index", "on")],
            ),
            (
                r#"context="u:r:t:s0:c1,c2",ro"#,
                &[("context", r#""u:r:t:s0:c1,c2""#), ("ro", "")],
            ),
            (r#"context="u:c1,a""#, &[("context", r#""u:c1,a""#)]),
            (",,", &[]),
            ("", &[]),
        ] {
            let found = parameters(option);
            let found = found.iter().map(|(key, value)| {
                let value = value.as_deref().unwrap_or_default();
                (key.as_str(), value)
            });
            assert_eq!(found.collect::<Vec<_>>(), parts, "{option}");
        }
    }
}
