//! A target is the part of Crisp that an event comes from, by a name that stays when files move.
//!
//! An event may name its target, as `crisp::pod`. Else `tracing` takes the path of the module: of
//! that only the crate is kept, as `crisp::cni` for `crisp_cni::client::call`.

use std::borrow::Cow;

/// The crate of the program, and its name in logs.
const PROGRAM: (&str, &str) = ("crispd", "crisp::daemon");

/// The name of a target in log lines.
pub(crate) fn stable(target: &str) -> Cow<'_, str> {
    let krate = target.split("::").next().unwrap_or(target);
    match spelled(krate) {
        Cow::Borrowed(_) => Cow::Borrowed(target),
        renamed => renamed,
    }
}

/// The same path with its crate spelled as in logs: `crisp::node::pod` for `crisp_node::pod`.
pub(crate) fn spelled(path: &str) -> Cow<'_, str> {
    let (krate, rest) = match path.find("::") {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    match krate.strip_prefix("crisp_") {
        Some(name) => Cow::Owned(format!("crisp::{name}{rest}")),
        None if krate == PROGRAM.0 => Cow::Owned(format!("{}{rest}", PROGRAM.1)),
        None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_have_names_and_files_have_none() {
        for (target, name) in [
            ("crisp::pod", "crisp::pod"),
            ("crisp_cni::client::call", "crisp::cni"),
            ("crisp_node", "crisp::node"),
            ("crispd::daemon", "crisp::daemon"),
            ("h2::client", "h2::client"),
        ] {
            assert_eq!(stable(target), name);
        }
        assert_eq!(spelled("crisp_node::pod"), "crisp::node::pod");
    }
}
