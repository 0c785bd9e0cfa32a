//! Qualified names of devices, `vendor.com/class=name`, and where a request has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{Error, Result};

/// The beginning of annotations by which device plugins asked before CRI had a field for devices.
const ANNOTATION: &str = "cdi.k8s.io/";

/// A qualified name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `vendor.com/class`.
    pub(crate) kind: String,
    /// The device among those of the kind.
    pub(crate) device: String,
}

impl Name {
    /// Reads a qualified name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why| {
            let text = text.to_owned();
            Err(Error::Name { text, why })
        };
        let Some((kind, device)) = text.split_once('=') else {
            return refuse("it has no \"=\"");
        };
        if let Err(why) = check_kind(kind).and_then(|()| check_device(device)) {
            return refuse(why);
        }
        Ok(Self {
            kind: kind.to_owned(),
            device: device.to_owned(),
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

/// The fault of a `vendor/class`, if there is one.
pub(crate) fn check_kind(kind: &str) -> std::result::Result<(), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("it has no \"/\"")?;
    let is_vendor = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    for part in [vendor, class] {
        if !part.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err("vendor and class begin with a letter");
        }
        if !part.ends_with(|last: char| last.is_ascii_alphanumeric()) {
            return Err("vendor and class end with a letter or a digit");
        }
        if !part.chars().all(is_vendor) {
            return Err("vendor and class are made of letters, digits, \"_\", \"-\" and \".\"");
        }
    }
    Ok(())
}

/// The fault of a device's own name, if there is one.
pub(crate) fn check_device(device: &str) -> std::result::Result<(), &'static str> {
    let is_end = |letter: char| letter.is_ascii_alphanumeric();
    if !device.starts_with(is_end) || !device.ends_with(is_end) {
        return Err("a device's name begins and ends with a letter or a digit");
    }
    let inside = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    match device.chars().all(inside) {
        true => Ok(()),
        false => Err("a device's name is made of letters, digits, \"_\", \"-\", \".\" and \":\""),
    }
}

/// The devices that a container asks for, each once: those of the request's field, then those of
/// its annotations.
///
/// # Errors
/// When one of them is no qualified name.
pub fn asked(field: &[String], annotations: &BTreeMap<String, String>) -> Result<Vec<Name>> {
    let annotated = annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .flat_map(|(_, value)| value.split(','));
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for text in field.iter().map(String::as_str).chain(annotated) {
        let name = Name::parse(text)?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_qualified() {
        for good in [
            "vendor.com/gpu=0",
            "v/c=a:b",
            "nvidia.com/mig-1g.5gb=GPU-1_x.y",
        ] {
            assert_eq!(Name::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "gpu0",
            "vendor.com/gpu",
            "vendor.com=0",
            "vendor.com/gpu=",
            "/gpu=0",
            "vendor.com/=0",
            "1vendor/gpu=0",
            "vendor.com/gpu-=0",
            "vendor.com/a/b=0",
            "vendor.com/gpu=0 ",
            "vendor.com/gpu=-0",
            "vendor.com/gpu=a=b",
            "vendör.com/gpu=0",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn devices_are_asked_for_by_field_and_by_annotation_once() {
        let field = ["v/c=1".to_owned(), "v/c=2".to_owned()];
        let annotations = |value: &str| {
            BTreeMap::from([
                ("cdi.k8s.io/plugin".to_owned(), value.to_owned()),
                ("other/cdi.k8s.io".to_owned(), "nothing".to_owned()),
            ])
        };
        let found = asked(&field, &annotations("v/c=2,v/c=3")).unwrap();
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["v/c=1", "v/c=2", "v/c=3"]);
        assert!(asked(&[], &annotations("")).is_err());
        assert!(asked(&[], &annotations("v/c=1, v/c=2")).is_err());
    }

    /// The annotations of a pod can hold as many: compared each with each, they would take long.
    #[test]
    fn many_names_take_no_longer_than_their_number() {
        let field: Vec<String> = (0..100_000).map(|n| format!("v/c={n}")).collect();
        let begun = std::time::Instant::now();
        let found = asked(&field, &BTreeMap::new()).unwrap();
        let took = begun.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
        assert_eq!(found.len(), 100_000);
    }
}
