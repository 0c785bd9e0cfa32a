//! The conditions of the crispd of nodes and of those in them, as `up` tells them: a runtime that is not ready, or a
//! firewall in the way of packets, shows in pulls and pods much later, and as something else.

use std::collections::BTreeMap;

use crate::cri::{Condition, Cri};
use crate::home::ClusterDir;
use crate::network::Network;
use crate::node::Nodes;
use crate::progress::Progress;

/// Tells the conditions of the crispd of nodes.
pub async fn tell_outer(nodes: &Nodes<'_>, progress: &Progress) {
    let remedy = |condition: &Condition| outer_remedy(condition, nodes.network);
    // A crispd that does not answer fails the steps that need it.
    let told = nodes.cri.conditions().await.unwrap_or_default();
    for text in told.iter().filter_map(|condition| text(condition, remedy)) {
        progress.done(&format!("warning: crispd for nodes: {text}"));
    }
}

/// Tells those of the crispd in each node.
pub async fn tell_inner(nodes: &Nodes<'_>, progress: &Progress) {
    for text in inner(nodes).await {
        progress.done(&format!("warning: {text}"));
    }
}

/// The conditions of the crispd in each node, each once with the nodes that have it.
pub async fn inner(nodes: &Nodes<'_>) -> Vec<String> {
    let mut told: Vec<(String, Vec<Condition>)> = Vec::new();
    for (_, name) in nodes.record.workers() {
        let Ok(cri) = Cri::at(&nodes.dir.socket(&name), &name) else {
            continue;
        };
        // A node that does not answer is waited for elsewhere.
        if let Ok(conditions) = cri.conditions().await {
            told.push((name, conditions));
        }
    }
    grouped(&told, nodes.dir)
}

fn grouped(told: &[(String, Vec<Condition>)], dir: &ClusterDir) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, conditions) in told {
        let remedy = |condition: &Condition| inner_remedy(condition, dir);
        for text in conditions
            .iter()
            .filter_map(|condition| text(condition, remedy))
        {
            groups.entry(text).or_default().push(name);
        }
    }
    let all = groups.iter();
    all.map(|(text, names)| format!("crispd in {}: {text}", names.join(", ")))
        .collect()
}

/// The words about a condition that does not hold, or has something to tell.
fn text(condition: &Condition, remedy: impl Fn(&Condition) -> String) -> Option<String> {
    let Condition {
        kind,
        holds,
        reason,
        message,
    } = condition;
    let told = match (*holds, message.is_empty()) {
        (true, true) => return None,
        (true, false) => format!("{kind}: {message}"),
        (false, true) => format!("{kind} is false: {reason}"),
        (false, false) => format!("{kind} is false ({reason}): {message}"),
    };
    Some(match remedy(condition) {
        remedy if remedy.is_empty() => told,
        remedy => format!("{told}; {remedy}"),
    })
}

fn outer_remedy(condition: &Condition, network: &Network) -> String {
    match condition.kind.as_str() {
        "NetworkReady" => {
            let remedy = through_firewalls(&network.bridge);
            format!("{remedy}, or a rule before that chain's")
        }
        "RuntimeReady" => "nodes cannot start until that is mended".to_owned(),
        _ => String::new(),
    }
}

/// How firewalls of the machine let nodes in and through.
pub(super) fn through_firewalls(bridge: &str) -> String {
    format!(
        "let the bridge of nodes through: `firewall-cmd --zone=trusted --add-interface={bridge}` (firewalld), \
         `ufw allow in on {bridge}` and `ufw route allow in on {bridge}` (ufw)"
    )
}

fn inner_remedy(condition: &Condition, dir: &ClusterDir) -> String {
    match condition.kind.as_str() {
        // The machine's parser is too old for it, or is not there.
        "AppArmorDefaultReady" => {
            "pods of this cluster run without AppArmor's default profile, and those \
             that ask for RuntimeDefault are refused; nothing else is amiss"
                .to_owned()
        }
        "RuntimeReady" | "NetworkReady" => {
            let logs = dir.command("logs NODE crispd");
            format!("{logs} tells more")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::home::Home;

    fn condition(kind: &str, holds: bool, message: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            holds,
            reason: "Why".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_condition_is_told_with_its_reason_and_what_to_do() {
        let network = crate::network::tests::usual();
        let told = |kind: &str, holds, message: &str| {
            text(&condition(kind, holds, message), |condition| {
                outer_remedy(condition, &network)
            })
        };
        assert_eq!(told("NetworkReady", true, ""), None);
        assert_eq!(told("RuntimeReady", true, ""), None);
        let named = told("NetworkReady", true, "inet filter forward may drop").unwrap();
        assert!(
            named.starts_with("NetworkReady: inet filter forward may drop; "),
            "{named}"
        );
        assert!(
            named.contains("--add-interface=crisp-x") && named.contains("ufw route"),
            "{named}"
        );
        let fails = told("RuntimeReady", false, "SELinux enforces").unwrap();
        assert!(
            fails.starts_with("RuntimeReady is false (Why): SELinux enforces; "),
            "{fails}"
        );
        assert_eq!(
            told("Other", false, ""),
            Some("Other is false: Why".to_owned())
        );
    }

    #[test]
    fn nodes_that_are_the_same_are_told_at_once() {
        let dir = Home::at(Path::new("/srv/c")).unwrap();
        let dir = dir.cluster(&"x".parse().unwrap());
        let ready = condition("RuntimeReady", true, "");
        let short = condition("AppArmorDefaultReady", false, "no parser");
        let broken = condition("NetworkReady", false, "no file");
        let told = grouped(
            &[
                ("node-1".to_owned(), vec![ready.clone(), short.clone()]),
                ("node-2".to_owned(), vec![ready, broken, short]),
            ],
            &dir,
        );
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("crispd in node-1, node-2: AppArmor"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("crispd in node-2: NetworkReady is false"),
            "{told:?}"
        );
        assert!(
            told[1].contains("logs NODE crispd --name x --dir /srv/c"),
            "{told:?}"
        );
    }
}
