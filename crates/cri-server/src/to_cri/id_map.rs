//! From our ranges of ids to CRI's mappings.

use crisp_api::runtime::v1 as cri;
use crisp_model::IdRange;

pub(crate) fn mappings(ranges: &[IdRange]) -> Vec<cri::IdMapping> {
    let mapping = |range: &IdRange| cri::IdMapping {
        host_id: range.host,
        container_id: range.container,
        length: range.length,
    };
    ranges.iter().map(mapping).collect()
}
