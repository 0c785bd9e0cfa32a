//! Which ids of a user namespace stand for which of the host.

use serde::{Deserialize, Serialize};

/// As many ranges as the kernel takes of each kind (user_namespaces(7)).
const MOST_RANGES: usize = 340;

/// A range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id, inside.
    pub container: u32,
    /// The host's id that it stands for.
    pub host: u32,
    /// How many ids there are.
    pub length: u32,
}

/// The ids of a user namespace, or those that an idmapped mount shows. Ranges of one kind do not
/// overlap, neither inside nor on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

/// Why ranges make no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {why}")]
pub struct WrongRanges {
    /// `uids` or `gids`.
    pub kind: &'static str,
    /// The reason.
    pub why: String,
}

impl IdMap {
    /// Makes a map of ranges that the kernel takes.
    ///
    /// # Errors
    /// When a kind has none or too many, or one is empty, too large or overlaps another.
    pub fn new(users: Vec<IdRange>, groups: Vec<IdRange>) -> Result<Self, WrongRanges> {
        for (kind, ranges) in [("uids", &users), ("gids", &groups)] {
            check(ranges).map_err(|why| WrongRanges { kind, why })?;
        }
        Ok(Self { users, groups })
    }

    /// The same, for a namespace in which programs run: without a root nothing can be set up in it.
    ///
    /// # Errors
    /// When id 0 is not mapped.
    pub fn with_root(self) -> Result<Self, WrongRanges> {
        for (kind, ranges) in [("uids", &self.users), ("gids", &self.groups)] {
            if on_host(ranges, 0).is_none() {
                let why = "id 0 of the container is not mapped".to_owned();
                return Err(WrongRanges { kind, why });
            }
        }
        Ok(self)
    }

    /// Ranges of users.
    #[must_use]
    pub fn users(&self) -> &[IdRange] {
        &self.users
    }

    /// Ranges of groups.
    #[must_use]
    pub fn groups(&self) -> &[IdRange] {
        &self.groups
    }

    /// The host's id of a user.
    #[must_use]
    pub fn user(&self, id: u32) -> Option<u32> {
        on_host(&self.users, id)
    }

    /// The host's id of a group.
    #[must_use]
    pub fn group(&self, id: u32) -> Option<u32> {
        on_host(&self.groups, id)
    }

    /// The text of `uid_map` and of `gid_map`.
    #[must_use]
    pub fn tables(&self) -> [String; 2] {
        let line = |range: &IdRange| {
            let IdRange {
                container,
                host,
                length,
            } = range;
            format!("{container} {host} {length}\n")
        };
        [&self.users, &self.groups].map(|ranges| ranges.iter().map(line).collect())
    }
}

fn on_host(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container)?;
        (offset < range.length).then(|| range.host + offset)
    })
}

fn check(ranges: &[IdRange]) -> Result<(), String> {
    match ranges.len() {
        0 => return Err("no range of ids".to_owned()),
        1..=MOST_RANGES => {}
        count => return Err(format!("{count} ranges, of {MOST_RANGES} at most")),
    }
    for (number, range) in ranges.iter().enumerate() {
        if range.length == 0 {
            return Err(format!("range {number} is empty"));
        }
        for first in [range.container, range.host] {
            // The last id of 32 bits means "none".
            if first.checked_add(range.length).is_none() {
                let length = range.length;
                return Err(format!(
                    "range {number}: {length} ids from {first} on are too many"
                ));
            }
        }
        for (other, earlier) in ranges[..number].iter().enumerate() {
            let meet = |first: u32, second: u32| {
                first < second + earlier.length && second < first + range.length
            };
            if meet(range.container, earlier.container) || meet(range.host, earlier.host) {
                return Err(format!("ranges {other} and {number} overlap"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(container: u32, host: u32, length: u32) -> IdRange {
        IdRange {
            container,
            host,
            length,
        }
    }

    /// The host's id that would be so far behind a range is no number of 32 bits.
    #[test]
    fn an_id_behind_a_range_is_none() {
        let last = vec![range(0, u32::MAX - 10, 10)];
        let map = IdMap::new(last.clone(), last).unwrap();
        assert_eq!(map.user(9), Some(u32::MAX - 1));
        assert_eq!((map.user(10), map.group(u32::MAX)), (None, None));
    }

    #[test]
    fn ranges_that_the_kernel_refuses_are_refused() {
        let good = || vec![range(0, 100_000, 65_536), range(70_000, 200_000, 1)];
        assert!(IdMap::new(good(), good()).is_ok());
        let many = (0..341).map(|i| range(i, i, 1)).collect();
        for (bad, word) in [
            (vec![], "no range"),
            (vec![range(0, 1, 0)], "range 0 is empty"),
            (vec![range(0, u32::MAX, 1)], "too many"),
            (vec![range(1, 0, u32::MAX)], "too many"),
            (vec![range(0, 100, 10), range(9, 200, 1)], "0 and 1 overlap"),
            (vec![range(0, 100, 10), range(20, 109, 5)], "overlap"),
            (vec![range(5, 100, 10), range(0, 50, 6)], "overlap"),
            (many, "341 ranges"),
        ] {
            let users = IdMap::new(bad.clone(), good()).unwrap_err();
            assert!(
                users.kind == "uids" && users.why.contains(word),
                "{word}: {users}"
            );
            let groups = IdMap::new(good(), bad).unwrap_err();
            assert_eq!((groups.kind, groups.why), ("gids", users.why));
        }
        assert!(IdMap::new(vec![range(0, 0, u32::MAX)], good()).is_ok());
    }

    #[test]
    fn ids_are_found_and_tables_are_what_the_kernel_reads() {
        let users = vec![range(0, 100_000, 10), range(1000, 5, 2)];
        let map = IdMap::new(users, vec![range(7, 70, 1)]).unwrap();
        assert_eq!(map.tables(), ["0 100000 10\n1000 5 2\n", "7 70 1\n"]);
        assert_eq!(
            [0, 9, 10, 1001, 1002].map(|id| map.user(id)),
            [Some(100_000), Some(100_009), None, Some(6), None]
        );
        assert_eq!((map.group(7), map.group(0)), (Some(70), None));
        assert_eq!(map.with_root().unwrap_err().kind, "gids");
    }
}
