//! The SELinux level that is picked for a pod: two categories, which no other pod of the node has
//! both. The policy lets a container reach files and processes with its own categories alone.

use std::fmt;
use std::str::FromStr;

/// Categories that policies for containers have.
const CATEGORIES: u32 = 1024;

/// A pair of categories at the lowest sensitivity, written `s0:c1,c2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelinuxLevel {
    low: u32,
    high: u32,
}

impl SelinuxLevel {
    /// How many there are.
    pub const COUNT: u32 = CATEGORIES * (CATEGORIES - 1) / 2;

    /// The level with a number, of which any may be given: they come round again.
    #[must_use]
    pub fn numbered(number: u32) -> Self {
        let number = number % Self::COUNT;
        // With the highest category `high` there are `high` pairs, after those of all lower ones.
        let before = |high: u32| high * (high - 1) / 2;
        let root = (f64::from(number) * 2.0).sqrt();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the root of a small number that is not negative"
        )]
        let mut high = root as u32 + 2;
        while before(high) > number {
            high -= 1;
        }
        let low = number - before(high);
        Self { low, high }
    }
}

impl fmt::Display for SelinuxLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s0:c{},c{}", self.low, self.high)
    }
}

/// A text that is no such level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not s0:cLOW,cHIGH with two categories below 1024, the lower one first")]
pub struct BadLevel(String);

impl FromStr for SelinuxLevel {
    type Err = BadLevel;

    fn from_str(text: &str) -> Result<Self, BadLevel> {
        let pair = text.strip_prefix("s0:c").and_then(|t| t.split_once(",c"));
        let pair = pair.and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        let level = pair.map(|(low, high)| Self { low, high });
        let level = level.filter(|l| l.low < l.high && l.high < CATEGORIES);
        // Other spellings, as c01, are other texts to whoever compares.
        let level = level.filter(|level| level.to_string() == text);
        level.ok_or_else(|| BadLevel(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_has_a_level_of_its_own() {
        let all = (0..SelinuxLevel::COUNT).map(SelinuxLevel::numbered);
        let all: HashSet<SelinuxLevel> = all.collect();
        assert_eq!(all.len(), 523_776);
        assert!(all.iter().all(|l| l.low < l.high && l.high < CATEGORIES));
        let text = |number| SelinuxLevel::numbered(number).to_string();
        assert_eq!(text(0), "s0:c0,c1");
        assert_eq!(text(SelinuxLevel::COUNT - 1), "s0:c1022,c1023");
        assert_eq!(text(SelinuxLevel::COUNT), "s0:c0,c1");
    }

    #[test]
    fn a_level_is_read_as_it_is_written_and_no_other_text_is() {
        for number in [0, 1, 2, 1000, 523_775] {
            let level = SelinuxLevel::numbered(number);
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for wrong in [
            "",
            "s0",
            "s0:c1",
            "s0:c2,c1",
            "s0:c1,c1",
            "s0:c1,c1024",
            "s0:c01,c2",
            "s1:c1,c2",
            "s0:c1,c2,c3",
            "s0:c-1,c2",
            "s0:c1,c2 ",
        ] {
            assert!(wrong.parse::<SelinuxLevel>().is_err(), "{wrong:?}");
        }
    }
}
