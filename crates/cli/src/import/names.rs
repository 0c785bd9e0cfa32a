//! Names of images are any text in a containerd. A kubelet asks for an image by its whole name alone, with
//! host and tag or digest: under others, as `ctr` and builders give them, an image is of no use to it.

use std::collections::{BTreeMap, BTreeSet};

use crisp_model::ImageRef;

use super::store::Named;

/// Names by what can become of them.
#[derive(Debug, Default)]
pub struct Names {
    /// Names that kubelets use.
    pub wanted: Vec<Named>,
    /// Names that promise another image than theirs, each with the reason.
    pub wrong: BTreeMap<String, String>,
    /// Names that no kubelet uses, of images that have no other name, each with the reason.
    pub useless: BTreeMap<String, String>,
}

impl Names {
    /// Sorts names. A useless one of an image that comes under another name is passed over.
    pub fn of(all: Vec<Named>) -> Self {
        let mut names = Self::default();
        let mut others = Vec::new();
        for named in all {
            match verdict(&named) {
                Verdict::Wanted => names.wanted.push(named),
                Verdict::Wrong(why) => drop(names.wrong.insert(named.name, why)),
                Verdict::Useless(why) => others.push((named, why)),
            }
        }
        let wanted = names.wanted.iter();
        let wanted: BTreeSet<&str> = wanted.map(|named| named.target.digest.as_str()).collect();
        let useless = others
            .into_iter()
            .filter(|(named, _)| !wanted.contains(named.target.digest.as_str()));
        names.useless = useless.map(|(named, why)| (named.name, why)).collect();
        names
    }
}

enum Verdict {
    Wanted,
    Wrong(String),
    Useless(String),
}

fn verdict(named: &Named) -> Verdict {
    if named.name.starts_with("sha256:") {
        return Verdict::Useless("it has no name but its id".to_owned());
    }
    let name = match ImageRef::parse(&named.name) {
        Ok(name) => name,
        Err(error) => return Verdict::Useless(error.to_string()),
    };
    if name.to_string() != named.name {
        return Verdict::Useless(format!("a kubelet never finds it: it asks for {name}"));
    }
    let leads = &named.target.digest;
    match name.digest() {
        Some(digest) if digest.as_str() != leads => {
            Verdict::Wrong(format!("it leads to {leads}, which is not of its digest"))
        }
        _ => Verdict::Wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Target;
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
    fn names_that_kubelets_use_are_wanted_and_others_come_with_them() {
        let [ours, other] = ["0", "1"].map(|digit| format!("sha256:{}", digit.repeat(64)));
        let by_digest = format!("a.example/x@{ours}");
        let wrong = format!("a.example/y@{other}");
        let loaded = format!("import-2024-01-02@{ours}");
        let alone = format!("import-2024-01-02@{other}");
        let names = Names::of(vec![
            named("a.example/x:1", &ours),
            named(&by_digest, &ours),
            named(&wrong, &ours),
            named(&loaded, &ours),
            named("x:1", &ours),
            named("sha256:1", &ours),
            named(&alone, &other),
            named("sha256:2", &other),
            named("x:2", &other),
            named("no name\n", &other),
        ]);
        let wanted: Vec<&str> = names
            .wanted
            .iter()
            .map(|named| named.name.as_str())
            .collect();
        assert_eq!(wanted, ["a.example/x:1", &by_digest]);
        assert_eq!(names.wrong.len(), 1);
        assert!(names.wrong[&wrong].contains(&ours), "{names:?}");
        assert_eq!(names.useless.len(), 4, "{names:?}");
        for (name, why) in [
            (
                &alone[..],
                "it asks for docker.io/library/import-2024-01-02@",
            ),
            ("sha256:2", "no name but its id"),
            ("x:2", "it asks for docker.io/library/x:2"),
            ("no name\n", "invalid image reference"),
        ] {
            assert!(names.useless[name].contains(why), "{names:?}");
        }
    }
}
