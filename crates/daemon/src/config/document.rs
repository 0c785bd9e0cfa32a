//! The default configuration as a commented file: the defaults of [`Written`], each with its story.

use toml::{Table, Value};

use super::Written;

const HEAD: &str = "\
Configuration of crispd. Every key is optional, and what stands here is the default.
crispd reads /etc/crisp/config.toml (or the file of --config), then conf.d/*.toml beside it in the
order of their names; a later file wins, and flags win over files.
`crispd config check` names file, line and key of what is wrong.";

/// What each key is for. A table's own words stand under its name.
const STORIES: &[(&str, &str)] = &[
    (
        "root",
        "Images, layers and records: survives a reboot. On a file system that overlayfs takes \
      as upper layer (ext4, xfs with ftype=1, btrfs). Flag --root.",
    ),
    (
        "state",
        "Sockets, pins of namespaces and bundles: a tmpfs. Flag --state.",
    ),
    (
        "listen",
        "CRI endpoint, unix:///PATH; empty means crisp.sock in the state directory. The \
      socket gets mode 0600. Flag --listen.",
    ),
    (
        "default_runtime",
        "Handler for pods that name none: one of [runtimes.NAME].",
    ),
    ("log", "Logs go to standard error."),
    (
        "log.level",
        "off, error, warn, info, debug or trace; by module as \"info,crisp_node=debug\". \
      Flag --log-level.",
    ),
    (
        "log.format",
        "text (in colour on a terminal) or json (one object a line). Flag --log-format.",
    ),
    ("daemon", "Size and helpers of the daemon."),
    ("daemon.workers", "Threads that serve calls, 1 to 64."),
    (
        "daemon.blocking_threads",
        "Threads at most for work that blocks (disk, kernel), 4 to 512; \
      idle ones end.",
    ),
    (
        "daemon.shim",
        "crisp-shim; empty means beside crispd, then in /usr/libexec/crisp.",
    ),
    (
        "daemon.holder",
        "crisp-holder, the init of pods that share their PID namespace and the keeper of \
      scopes; empty as above.",
    ),
    (
        "cgroup",
        "Control groups, version 1, hybrid or 2: what the machine has is used.",
    ),
    (
        "cgroup.driver",
        "cgroupfs: Crisp makes cgroups itself. systemd (needs version 2): a delegated scope for \
      each container, made over D-Bus; cgroup parents are slices. The kubelet asks which it is. \
      Flag --cgroup-driver.",
    ),
    (
        "cgroup.parent",
        "Parent of pods that name no cgroup parent, below the root of each hierarchy; \
      with systemd the name of a slice.",
    ),
    ("network", "The pod network."),
    (
        "network.mode",
        "cni: the first valid file of conf_dir; while there is none, the node is not \
      ready. builtin: a bridge with addresses, masquerading and host ports, without any plugin. \
      Flag --network.",
    ),
    ("network.conf_dir", "Where CNI configurations are; watched."),
    (
        "network.bin_dirs",
        "Where CNI plugins are, in order. The plugin \"crisp\" is built in.",
    ),
    (
        "network.timeout_seconds",
        "A plugin that takes longer is killed and named, 1 to 600.",
    ),
    ("network.builtin", "Used when mode is builtin."),
    (
        "network.builtin.bridge",
        "Name of the bridge; empty means the first of crisp0, crisp1, … that \
      is free.",
    ),
    (
        "network.builtin.subnets",
        "Pods get an address of each, as [\"10.88.0.0/16\", \
      \"fd00:88::/64\"]; empty goes with the bridge.",
    ),
    ("images", "Images and registries."),
    (
        "images.registry_config",
        "HOST/hosts.toml files, the layout that containerd uses: mirrors, \
      certificates, headers. Flag --registry-config.",
    ),
    (
        "images.docker_config",
        "Docker's config.json with credentials for registries; empty means none.",
    ),
    (
        "images.parallel_layers",
        "Layers fetched and unpacked at the same time over all pulls, 1 to 64.",
    ),
    (
        "images.pinned",
        "Images that the kubelet must not collect, as full names.",
    ),
    ("security", "Confinement."),
    (
        "security.seccomp_dir",
        "Localhost seccomp profiles that are named by a relative path.",
    ),
    (
        "runtimes.native",
        "Handlers, by the names that RuntimeClasses use.",
    ),
    (
        "runtimes.native.kind",
        "native: containers are started by Crisp itself.",
    ),
];

/// The whole default file.
#[must_use]
pub fn document() -> String {
    let mut text = comment(HEAD, 98);
    // A struct of strings, numbers and tables always is a table.
    if let Ok(Value::Table(table)) = Value::try_from(Written::default()) {
        print(&mut text, "", &table);
    }
    text
}

fn story(key: &str) -> Option<&'static str> {
    STORIES
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, story)| *story)
}

fn print(text: &mut String, path: &str, table: &Table) {
    let full = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, v)| v.is_table());
    for (key, value) in values {
        text.push('\n');
        text.push_str(&comment(story(&full(key)).unwrap_or_default(), 98));
        text.push_str(&format!("{key} = {value}\n"));
    }
    for (key, value) in tables {
        let path = full(key);
        let Some(table) = value.as_table() else {
            continue;
        };
        if let Some(story) = story(&path) {
            text.push('\n');
            text.push_str(&comment(story, 98));
        }
        if table.values().any(|value| !value.is_table()) {
            text.push_str(&format!("[{path}]\n"));
        }
        print(text, &path, table);
    }
}

/// Comment lines of a paragraph; its own line breaks stay.
fn comment(paragraph: &str, width: usize) -> String {
    let mut text = String::new();
    for line in paragraph.lines() {
        let mut column = 0;
        for word in line.split_whitespace() {
            if column == 0 || column + 1 + word.chars().count() > width {
                text.push_str(if column == 0 { "#" } else { "\n#" });
                column = 1;
            }
            text.push(' ');
            text.push_str(word);
            column += 1 + word.chars().count();
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(path: &str, table: &Table, found: &mut Vec<String>) {
        for (key, value) in table {
            let full = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match value {
                Value::Table(table) => keys(&full, table, found),
                _ => found.push(full),
            }
        }
    }

    #[test]
    fn the_printed_default_is_the_default() {
        let text = document();
        let parsed: Written = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(parsed, Written::default());
    }

    #[test]
    fn every_key_has_a_story_and_every_story_a_key() {
        let Value::Table(table) = Value::try_from(Written::default()).unwrap() else {
            panic!()
        };
        let mut found = Vec::new();
        keys("", &table, &mut found);
        for key in &found {
            assert!(story(key).is_some(), "{key} has no story");
        }
        for (key, _) in STORIES {
            let is_key = found
                .iter()
                .any(|k| k == key || k.starts_with(&format!("{key}.")));
            assert!(is_key, "{key} is no key");
        }
        assert!(document().lines().all(|line| line.len() <= 110));
    }
}
