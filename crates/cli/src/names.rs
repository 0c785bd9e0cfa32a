//! Names of clusters and nodes. They become names of directories, pods, cgroups and hosts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The node with the control plane, on which no pods run.
pub const CONTROL: &str = "control";
/// Longest name of a cluster: paths of sockets have 107 bytes.
const LONGEST: usize = 20;

/// The name of a cluster: a label of DNS with 20 letters at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl FromStr for ClusterName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let fits = !text.is_empty()
            && text.len() <= LONGEST
            && text.starts_with(is_inner)
            && text.ends_with(is_inner)
            && text.chars().all(|letter| is_inner(letter) || letter == '-');
        match fits {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "a cluster's name has 1 to {LONGEST} of a-z, 0-9 and, inside, -"
            )),
        }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a node on which pods run; the first is `node-1`.
pub fn worker(number: u8) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in ["a", "crisp", "x-1", "0"] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        let long = "a".repeat(LONGEST + 1);
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a.b", "a b", "ä", &long] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_with_a_bad_name_is_not_read() {
        assert!(serde_json::from_str::<ClusterName>("\"../x\"").is_err());
    }
}
