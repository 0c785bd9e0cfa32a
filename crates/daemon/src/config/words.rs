//! The words that explain a key, as they stand in the table of [`super::written`]: whole for the
//! default file and `--help`, the first sentence for `-h` and the README.

use toml::Value;

use super::written::{
    Builtin, Cdi, Cgroup, Daemon, ImagesTable, Log, Metrics, NetworkTable, Runtime, Security,
    Streaming, Telemetry, Words, Written,
};

/// The tables of the file, by their paths.
const TABLES: &[(&str, &Words)] = &[
    ("", &Written::WORDS),
    ("log", &Log::WORDS),
    ("telemetry", &Telemetry::WORDS),
    ("metrics", &Metrics::WORDS),
    ("daemon", &Daemon::WORDS),
    ("cgroup", &Cgroup::WORDS),
    ("network", &NetworkTable::WORDS),
    ("network.builtin", &Builtin::WORDS),
    ("streaming", &Streaming::WORDS),
    ("images", &ImagesTable::WORDS),
    ("security", &Security::WORDS),
    ("cdi", &Cdi::WORDS),
    ("runtimes.native", &Runtime::WORDS),
];

/// Keys that have a flag.
pub const FLAGS: &[(&str, &str)] = &[
    ("root", "--root"),
    ("state", "--state"),
    ("listen", "--listen"),
    ("images.registry_config", "--registry-config"),
    ("network.mode", "--network"),
    ("cgroup.driver", "--cgroup-driver"),
    ("streaming.listen", "--streaming-listen"),
    ("log.level", "--log-level"),
    ("log.format", "--log-format"),
    ("telemetry.otlp_endpoint", "--otlp-endpoint"),
    ("metrics.listen", "--metrics-listen"),
];

fn table(path: &str) -> Option<&'static Words> {
    TABLES
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, table)| *table)
}

/// The words of a table or a key; none when there is no such key.
pub fn words(path: &str) -> Option<&'static str> {
    if let Some(table) = table(path) {
        return Some(table.about.trim());
    }
    let (of, key) = path.rsplit_once('.').unwrap_or(("", path));
    let keys = table(of)?.keys;
    let (_, words) = keys.iter().find(|(name, _)| *name == key)?;
    Some(words.trim())
}

/// The flag of a key.
pub fn flag(path: &str) -> Option<&'static str> {
    FLAGS
        .iter()
        .find(|(key, _)| *key == path)
        .map(|(_, flag)| *flag)
}

/// The default of a key as it is written in a file; none when it is empty.
pub fn default(path: &str) -> Option<String> {
    let all = Value::try_from(Written::default()).ok()?;
    let value = path
        .split('.')
        .try_fold(&all, |value, key| value.get(key))?;
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    Some(text).filter(|text| !text.is_empty())
}

/// The first sentence about a key.
pub fn sentence(path: &str) -> &'static str {
    let words = words(path).unwrap_or_default();
    let end = words.find(". ").unwrap_or(words.len());
    words[..end].trim_end_matches('.')
}

/// The line of `-h` about a key.
pub fn help(path: &str) -> String {
    with_default(sentence(path), path)
}

/// The paragraph of `--help` about a key.
pub fn long_help(path: &str) -> String {
    with_default(words(path).unwrap_or_default(), path)
}

fn with_default(words: &str, path: &str) -> String {
    match default(path) {
        Some(default) => format!("{words} [default: {default}]"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readmes_table_has_the_same_words() {
        let readme = include_str!("../../../../README.md");
        for (key, flag) in FLAGS {
            let start = format!("| `{flag} ");
            let row = readme.lines().find(|line| line.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row {start}"));
            let default = default(key).map_or_else(String::new, |text| format!("`{text}`"));
            let end = format!(" | {default} | {} |", sentence(key)).replace("|  |", "| |");
            assert!(row.ends_with(&end), "README: {row}\nshould end with{end}");
        }
    }
}
