//! How a home comes to its bridge and its ranges: with its first cluster, for as long as it has one.

use std::fs;
use std::path::Path;

use super::machine::{self, Used};
use super::{Network, Range, Ranges};
use crate::disk::keep;
use crate::failure::{Context as _, Failure, Result};
use crate::home::Home;

/// The first choice for nodes, pods and services.
const FIRST: [[u8; 2]; 3] = [[10, 213], [10, 244], [10, 96]];

/// The network that a home has kept.
pub fn kept(home: &Home) -> Result<Option<Network>> {
    let path = home.network();
    let step = || format!("{}: read it", path.display());
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).context(step).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(step),
    }
}

/// The network of a home, chosen and kept where there is none yet. Tells as well what is in its way and
/// yet leaves it be.
pub fn settle(home: &Home, wish: Option<Ranges>) -> Result<(Network, Vec<String>)> {
    if let Some(network) = kept(home)? {
        check_wish(&network, wish)?;
        let used = machine::used(&network.bridge)?;
        let warnings = judge_kept(&network.ranges, &used)?;
        return Ok((network, warnings));
    }
    let bridge = bridge(home.path());
    let used = machine::used(&bridge)?;
    let ranges = match wish {
        Some(ranges) => ranges,
        None => choose(&used).ok_or_else(|| {
            Failure::new("ranges of clusters: this machine uses all that are private")
                .remedy("name others with --ranges NODES,PODS,SERVICES")
        })?,
    };
    let warnings = judge(&ranges, &used)?;
    let network = Network { bridge, ranges };
    let text = serde_json::to_vec_pretty(&network).context(|| "network: describe it".to_owned())?;
    keep(&home.network(), &text)?;
    Ok((network, warnings))
}

/// The network of a home whose clusters are to go, also where what it has kept cannot be read.
pub fn kept_or_new(home: &Home) -> Result<Network> {
    match kept(home) {
        Ok(Some(network)) => Ok(network),
        _ => {
            let path = home.network();
            crisp_sys::file::remove_if_there(&path)
                .context(|| format!("{}: remove it", path.display()))?;
            settle(home, None).map(|(network, _)| network)
        }
    }
}

fn check_wish(network: &Network, wish: Option<Ranges>) -> Result<()> {
    let Some(wish) = wish.filter(|wish| *wish != network.ranges) else {
        return Ok(());
    };
    let have = network.ranges.all().map(|(_, range)| range.to_string());
    let text = format!(
        "--ranges: clusters are there with {}, and not with {} for nodes",
        have.join(","),
        wish.nodes
    );
    Err(Failure::new(text).remedy("leave --ranges out, or delete all clusters first"))
}

/// A name that no other home has, of the 15 bytes that the kernel takes.
fn bridge(home: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(home.as_os_str().as_bytes());
    let digits = hash.iter().take(4).map(|byte| format!("{byte:02x}"));
    format!("crisp-{}", digits.collect::<String>())
}

/// Ranges that nothing uses: the first choice, or others for private use.
fn choose(used: &[Used]) -> Option<Ranges> {
    // People begin to count at the other end.
    let others = (0..=u8::MAX).rev().map(|second| [10, second]);
    let others = others.chain((16..=31).rev().map(|second| [172, second]));
    // Between a provider and its customers, which a machine with a network like 10.0.0.0/8 seldom meets.
    let others: Vec<[u8; 2]> = others
        .chain((64..=127).rev().map(|second| [100, second]))
        .collect();
    let mut taken: Vec<Range> = Vec::new();
    for first in FIRST {
        let mut all = std::iter::once(first)
            .chain(others.iter().copied())
            .map(Range);
        // Each leaves the first choice of the others to them.
        let is_anothers = |range: &Range| range.0 != first && FIRST.contains(&range.0);
        let free = all.find(|range| {
            let meets = used.iter().any(|used| used.meets(*range));
            !meets && !taken.contains(range) && !is_anothers(range)
        });
        taken.push(free?);
    }
    let [nodes, pods, services] = taken[..] else {
        return None;
    };
    Some(Ranges {
        nodes,
        pods,
        services,
    })
}

/// Refuses ranges whose addresses somebody has; tells of those that are a part of somebody's.
fn judge(ranges: &Ranges, used: &[Used]) -> Result<Vec<String>> {
    let met = meetings(ranges, used);
    match met.iter().find(|(_, _, used)| used.is_exact()) {
        None => Ok(met.into_iter().map(warning).collect()),
        Some((whose, range, used)) => {
            let text = format!("{range}, the range of {whose}: this machine uses {used}");
            Err(Failure::new(text).remedy("name others with --ranges"))
        }
    }
}

/// As [`judge`], of ranges that clusters have. A machine that moves meets other networks, and its clusters
/// go on as long as it can reach their nodes.
fn judge_kept(ranges: &Ranges, used: &[Used]) -> Result<Vec<String>> {
    let met = meetings(ranges, used);
    let is_in_the_way = |meeting: &&Meeting<'_>| meeting.1 == ranges.nodes && meeting.2.is_exact();
    match met.iter().find(is_in_the_way) {
        None => Ok(met.into_iter().map(warning).collect()),
        Some((_, range, used)) => {
            let text = format!("{range}, the range of nodes: this machine uses {used} by now");
            Err(Failure::new(text).remedy("take that down, or delete all clusters"))
        }
    }
}

/// A range, its use, and the one that it meets.
type Meeting<'a> = (&'static str, Range, &'a Used);

fn meetings<'a>(ranges: &Ranges, used: &'a [Used]) -> Vec<Meeting<'a>> {
    let all = ranges.all().into_iter().flat_map(|(whose, range)| {
        let met = used.iter().filter(move |used| used.meets(range));
        met.map(move |used| (whose, range, used))
    });
    all.collect()
}

fn warning((whose, range, used): Meeting<'_>) -> String {
    format!("{range}, the range of {whose}, meets {used}: nodes cannot reach what is there")
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::of;
    use super::*;

    fn chosen(used: &[&str]) -> String {
        let ranges = choose(&of(used)).unwrap();
        ranges.all().map(|(_, range)| range.to_string()).join(" ")
    }

    #[test]
    fn ranges_that_nothing_uses_are_chosen() {
        let usual = "10.213.0.0/16 10.244.0.0/16 10.96.0.0/16";
        assert_eq!(chosen(&[]), usual);
        assert_eq!(chosen(&["192.168.1.0/24", "10.88.0.0/16"]), usual);
        let beside = "10.255.0.0/16 10.244.0.0/16 10.96.0.0/16";
        assert_eq!(chosen(&["10.213.4.1"]), beside);
        let elsewhere = "172.31.0.0/16 172.30.0.0/16 172.29.0.0/16";
        assert_eq!(chosen(&["10.0.0.0/8"]), elsewhere);
        let all = of(&["10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10"]);
        assert_eq!(choose(&all), None);
    }

    #[test]
    fn homes_have_bridges_of_their_own() {
        let one = bridge(Path::new("/var/lib/crisp-clusters"));
        assert_eq!(one, bridge(Path::new("/var/lib/crisp-clusters")));
        assert_ne!(one, bridge(Path::new("/srv")));
        assert!(one.len() < 16, "{one}");
    }

    #[test]
    fn ranges_that_somebody_has_are_refused_or_told() {
        let ranges = choose(&[]).unwrap();
        let both = |used: &[&str]| {
            let used = of(used);
            let judged = [judge(&ranges, &used), judge_kept(&ranges, &used)];
            judged.map(|told| {
                told.map(|all| all.len())
                    .map_err(|failure| failure.to_string())
            })
        };
        assert_eq!(both(&["192.0.2.0/24"]), [Ok(0), Ok(0)]);
        assert_eq!(both(&["10.0.0.0/8"]), [Ok(3), Ok(3)]);
        let [new, kept] = both(&["10.96.0.0/20"]);
        assert!(new.unwrap_err().contains("the range of services"));
        assert_eq!(kept, Ok(1), "the machine has moved");
        let [new, kept] = both(&["10.213.7.1"]);
        assert!(new.unwrap_err().ends_with("--ranges"));
        assert!(kept.unwrap_err().contains("delete all clusters"));
    }

    #[test]
    fn ranges_stay_as_long_as_there_are_clusters() {
        let network = super::super::tests::usual();
        assert!(check_wish(&network, None).is_ok());
        assert!(check_wish(&network, Some(network.ranges)).is_ok());
        let other = "10.1.0.0/16,10.2.0.0/16,10.3.0.0/16".parse().unwrap();
        let refused = check_wish(&network, Some(other)).unwrap_err().to_string();
        assert!(refused.contains("delete all clusters"), "{refused}");
    }
}
