//! Which ids of a user namespace stand for which of the host.

use crisp_model as live;
use serde::{Deserialize, Serialize};

use super::text::{Wrong, each, parse};

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Ids {
    users: Vec<Range>,
    groups: Vec<Range>,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Range {
    container: u32,
    host: u32,
    length: u32,
}

impl From<&live::IdMap> for Ids {
    fn from(map: &live::IdMap) -> Self {
        Self {
            users: each(map.users()),
            groups: each(map.groups()),
        }
    }
}

impl TryFrom<Ids> for live::IdMap {
    type Error = Wrong;

    fn try_from(ids: Ids) -> Result<Self, Wrong> {
        let Ids { users, groups } = ids;
        let ranges = |list: Vec<Range>| list.into_iter().map(Into::into).collect();
        parse("ids", Self::new(ranges(users), ranges(groups)))
    }
}

impl From<&live::IdRange> for Range {
    fn from(range: &live::IdRange) -> Self {
        let live::IdRange {
            container,
            host,
            length,
        } = *range;
        Self {
            container,
            host,
            length,
        }
    }
}

impl From<Range> for live::IdRange {
    fn from(range: Range) -> Self {
        let Range {
            container,
            host,
            length,
        } = range;
        Self {
            container,
            host,
            length,
        }
    }
}
