//! Links, addresses, routes and firewall of a network namespace.

use super::picture::Picture;
use crate::netns::Net;
use crate::tools;

/// Adds what a namespace has.
pub(super) fn look(picture: &mut Picture, net: &Net) {
    let (links, addresses, routes, rules) = net.run(|| {
        (
            tools::run("ip", &["-o", "link", "show"]),
            tools::run("ip", &["-o", "addr", "show"]),
            tools::run("ip", &["route", "show", "table", "all"]),
            tools::run("nft", &["list", "ruleset"]),
        )
    });
    for line in links.lines() {
        // 3: NAME@PEER: <FLAGS> …
        let name = line.split(": ").nth(1).unwrap_or(line);
        picture.add(format!("link {name}"));
    }
    for line in addresses.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Link-local addresses come and go with the state of the bridge's ports.
        if words.len() > 3 && !words[3].starts_with("fe80:") {
            picture.add(format!("address {} on {}", words[3], words[1]));
        }
    }
    for line in routes
        .lines()
        .filter(|line| !line.contains("fe80:") && !line.contains("ff00:"))
    {
        let words = line.split_whitespace().filter(|word| *word != "linkdown");
        picture.add(format!("route {}", words.collect::<Vec<_>>().join(" ")));
    }
    for (table, line) in tables(&rules) {
        picture.add(format!("nftables {table}: {line}"));
    }
}

/// Lines of a ruleset with their table, without what changes by itself.
fn tables(rules: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("table ") {
            line.trim_end_matches(" {").clone_into(&mut table);
        }
        found.push((table.clone(), without_counters(line)));
    }
    found
}

fn without_counters(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split_whitespace();
    while let Some(word) = rest.next() {
        words.push(word);
        if matches!(word, "packets" | "bytes" | "expires") {
            rest.next();
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_count() {
        let line = "ip saddr 10.0.0.0/8 counter packets 12 bytes 3400 masquerade";
        let expected = "ip saddr 10.0.0.0/8 counter packets bytes masquerade";
        assert_eq!(without_counters(line), expected);
    }
}
