//! Names of systemd's slices and where they are (systemd.slice(5)).

/// The path of a slice below the cgroup root: `a-b.slice` lies in `a.slice`.
///
/// # Errors
/// Says that it is not the name of a slice.
pub(crate) fn path_of(slice: &str) -> Result<String, String> {
    let bad = || {
        let why = "is not the name of a slice, such as \"kubepods-pod1.slice\"";
        format!("{slice:?} {why}; does the caller use the cgroup driver \"cgroupfs\"?")
    };
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    // systemd.unit(5): what else is in a name is written as \xHH.
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if name == "-" {
        return Ok(String::new());
    }
    if slice.len() > 255 || name.split('-').any(str::is_empty) || !name.chars().all(fits) {
        return Err(bad());
    }
    let ends = name.match_indices('-').map(|(at, _)| at);
    let parts: Vec<String> = ends
        .chain(std::iter::once(name.len()))
        .map(|end| format!("{}.slice", &name[..end]))
        .collect();
    Ok(parts.join("/"))
}

/// The slice at a path, if that is one.
pub(super) fn unit_of(path: &str) -> Option<&str> {
    let name = last_part(path);
    path_of(name)
        .is_ok_and(|whole| whole == path)
        .then_some(name)
}

pub(super) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_their_parents() {
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        for (slice, whole) in [
            ("kubepods-burstable-pod1.slice", path),
            ("kubepods.slice", "kubepods.slice"),
            ("a\\x2db_c.d.slice", "a\\x2db_c.d.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(path_of(slice).unwrap(), whole, "{slice}");
        }
        let long = format!("{}.slice", "a".repeat(250));
        for bad in [
            "kubepods",
            "a/b.slice",
            "a--b.slice",
            "-a.slice",
            ".slice",
            "a b.slice",
            "a\n.slice",
            "a-.slice",
            "",
            &long,
        ] {
            assert!(path_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_is_no_slices_has_no_unit() {
        for (path, unit) in [
            ("a.slice/a-b.slice", Some("a-b.slice")),
            ("crisp.slice", Some("crisp.slice")),
            ("a-b.slice", None),
            ("x/a.slice", None),
            ("crisp", None),
            ("", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }
}
