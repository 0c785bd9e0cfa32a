//! Ids of user namespaces and of idmapped mounts in the words of the specification.

use crisp_model::{Field, IdRange};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::{Error, Result};

/// Ranges of ids.
pub(crate) fn mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>> {
    ranges.iter().map(mapping).collect()
}

fn mapping(range: &IdRange) -> Result<LinuxIdMapping> {
    let built = LinuxIdMappingBuilder::default()
        .container_id(range.container)
        .host_id(range.host)
        .size(range.length)
        .build();
    built.map_err(|error| Error::invalid(Field::UserNamespace, error.to_string()))
}
