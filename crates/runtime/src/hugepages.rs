//! Limits of huge pages.

use std::io::ErrorKind;

use oci_spec::runtime::LinuxResources;

use crate::change::Change;
use crate::error::{Error, Result};

/// The kubelet limits pages of every size in every container, whatever the machine has: without the
/// controller they are passed over, and told where pages might be taken or were asked for.
pub(crate) fn limit(change: &Change<'_>, resources: &LinuxResources) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = limit.page_size();
        if size.contains('/') {
            let field = "linux.resources.hugepageLimits";
            return Err(Error::invalid(field, format!("{size:?}")));
        }
        let value = limit.limit().to_string();
        // A reservation above the limit would succeed, and end in SIGBUS when it is used.
        for reserved in ["", "rsvd."] {
            let last = match change.cgroup.layout().is_v2_for("hugetlb") {
                true => "max",
                false => "limit_in_bytes",
            };
            let file = format!("hugetlb.{size}.{reserved}{last}");
            let written = change.try_set("hugetlb", &file, &value);
            match written.map_err(|error| (error.kind(), error)) {
                Ok(()) => {}
                // Before Linux 5.7 there is no limit of reservations.
                Err((ErrorKind::NotFound, _)) if !reserved.is_empty() => {}
                Err((ErrorKind::NotFound | ErrorKind::Unsupported, _)) => {
                    if limit.limit() > 0 || machine_has_pages(size) {
                        missing.push(size.as_str());
                    }
                    break;
                }
                Err((_, error)) => return Err(Error::cgroup("limit", error)),
            }
        }
    }
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = missing.join(", ");
    Ok(vec![format!(
        "limits of {sizes} pages are ignored: this machine has no cgroup files for them"
    )])
}

/// Whether the machine keeps huge pages of a size, such as `2MB`, or would make some when asked.
fn machine_has_pages(size: &str) -> bool {
    let units = [("KB", 1), ("MB", 1 << 10), ("GB", 1 << 20)];
    let in_kib = units.iter().find_map(|(unit, kib)| {
        let number: u64 = size.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*kib)
    });
    let Some(kib) = in_kib else { return false };
    ["nr_hugepages", "nr_overcommit_hugepages"]
        .iter()
        .any(|file| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/{file}");
            std::fs::read_to_string(path).is_ok_and(|count| count.trim() != "0")
        })
}
