//! From CRI's id mappings to ours.

use crisp_api::runtime::v1 as cri;
use crisp_model::id_map::WrongRanges;
use crisp_model::{IdMap, IdRange};

/// A map of users and groups.
pub(crate) fn id_map(
    (uids, gids): (&[cri::IdMapping], &[cri::IdMapping]),
) -> Result<IdMap, WrongRanges> {
    IdMap::new(ranges(uids), ranges(gids))
}

fn ranges(wire: &[cri::IdMapping]) -> Vec<IdRange> {
    let range = |mapping: &cri::IdMapping| {
        let cri::IdMapping {
            host_id,
            container_id,
            length,
        } = *mapping;
        IdRange {
            container: container_id,
            host: host_id,
            length,
        }
    };
    wire.iter().map(range).collect()
}
