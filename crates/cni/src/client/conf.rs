//! Network configurations: the files that CNI users write.
//!
//! A directory may hold lists (`.conflist`) and single plugins (`.conf`, `.json`). The first valid
//! file in lexicographic order is the network.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};
use crate::protocol::Version;

const LARGEST_FILE: u64 = 1 << 20;

/// A part of a configuration, or what is wrong with it; the caller adds in which file.
type Read<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One plugin of a list: its configuration as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Plugin(Map<String, Value>);

impl Plugin {
    /// Name of the program, or `crisp`.
    pub(crate) fn kind(&self) -> &str {
        self.0
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether the plugin wants a value in `runtimeConfig`.
    pub(crate) fn has_capability(&self, name: &str) -> bool {
        let capabilities = self.0.get("capabilities").and_then(|c| c.get(name));
        capabilities.and_then(Value::as_bool).unwrap_or(false)
    }

    /// The JSON for the plugin's stdin, without results and arguments.
    pub(crate) fn base(&self, network: &str, version: Version) -> Map<String, Value> {
        let mut conf = self.0.clone();
        conf.insert("name".into(), json!(network));
        conf.insert("cniVersion".into(), json!(version.to_string()));
        conf.remove("capabilities");
        conf
    }
}

/// A call that a list may switch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Optional {
    Check,
    Gc,
}

/// A list of plugins that make one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfList {
    pub name: String,
    /// Text of the version, checked when it was loaded.
    version: String,
    /// Calls that the list says its plugins do not support.
    disabled: Vec<Optional>,
    pub plugins: Vec<Plugin>,
}

/// Reads a boolean, which some Go programs write as a text.
fn flag(list: &Map<String, Value>, name: &str) -> Read<bool> {
    match list.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{name} is {text:?}: true or false is expected").into()),
        },
        Some(other) => Err(format!("{name} is {other}: true or false is expected").into()),
    }
}

fn disabled(list: &Map<String, Value>) -> Read<Vec<Optional>> {
    let mut disabled = Vec::new();
    for (name, call) in [
        ("disableCheck", Optional::Check),
        ("disableGC", Optional::Gc),
    ] {
        if flag(list, name)? {
            disabled.push(call);
        }
    }
    Ok(disabled)
}

/// The version of a list: the highest that both the list and this crate know.
fn choose_version(list: &Map<String, Value>) -> Read<Version> {
    let mut offered = Vec::new();
    match list.get("cniVersion") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => offered.push(text.as_str()),
        Some(other) => return Err(format!("cniVersion is {other}: a text is expected").into()),
    }
    let more = list.get("cniVersions").and_then(Value::as_array);
    offered.extend(more.into_iter().flatten().filter_map(Value::as_str));
    if offered.is_empty() {
        return Ok(Version::OLDEST);
    }
    let known = offered.iter().filter_map(|text| Version::parse(text).ok());
    known
        .filter(|version| version.is_supported())
        .max()
        .ok_or_else(|| format!("no known cniVersion among {}", offered.join(", ")).into())
}

fn parse_plugin(value: &Value) -> Read<Plugin> {
    let map = value.as_object().ok_or("a plugin is not an object")?;
    let plugin = Plugin(map.clone());
    let kind = plugin.kind();
    if kind.is_empty() {
        return Err("a plugin has no type".into());
    }
    // The type becomes a file name below the plugin directories.
    if kind.contains('/') || kind == ".." || kind == "." {
        return Err(format!("plugin type {kind:?} is a path").into());
    }
    Ok(plugin)
}

fn name_of(list: &Map<String, Value>) -> Read<String> {
    let name = list.get("name").and_then(Value::as_str).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        || !name.bytes().all(plain)
    {
        return Err(format!(
            "network name {name:?}: letters, digits, `_`, `.` and `-` are expected"
        )
        .into());
    }
    Ok(name.to_owned())
}

impl ConfList {
    /// The version of all calls.
    pub(crate) fn version(&self) -> Version {
        Version::parse(&self.version).unwrap_or(Version::OLDEST)
    }

    /// Whether a call is allowed and its version known to the plugins.
    pub(crate) fn allows(&self, call: Optional) -> bool {
        let since = match call {
            Optional::Check => Version::CHECK,
            Optional::Gc => Version::STATUS,
        };
        self.version() >= since && !self.disabled.contains(&call)
    }

    /// Reads a list, or a single plugin as a list of one. `plugins_of` reads the plugins that
    /// lie in files of their own below a directory of the network's name.
    fn parse(value: &Value, plugins_of: impl FnOnce(&str) -> Read<Vec<Value>>) -> Read<Self> {
        let list = value.as_object().ok_or("not an object")?;
        let name = name_of(list)?;
        let mut plugins: Vec<Value> = match list.get("plugins") {
            None if list.contains_key("type") => vec![value.clone()],
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(other) => return Err(format!("plugins is {other}: a list is expected").into()),
        };
        let single = list.contains_key("type") && !list.contains_key("plugins");
        if !single && !flag(list, "loadOnlyInlinedPlugins")? {
            plugins.extend(plugins_of(&name)?);
        }
        if plugins.is_empty() {
            return Err("no plugins".into());
        }
        Ok(Self {
            version: choose_version(list)?.to_string(),
            disabled: disabled(list)?,
            plugins: plugins.iter().map(parse_plugin).collect::<Read<_>>()?,
            name,
        })
    }

    /// Reads a list that is compiled into the program.
    pub(crate) fn inline(value: &Value) -> Result<Self> {
        Self::parse(value, |_| Ok(Vec::new())).map_err(|why| Error::invalid("conflist", why))
    }
}

fn read_json(path: &Path) -> Read<Value> {
    let bytes = crisp_sys::file::read_bounded(path, LARGEST_FILE)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn sorted_files(dir: &Path, extensions: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let wanted = path.extension().and_then(|e| e.to_str());
        if wanted.is_some_and(|e| extensions.contains(&e)) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn load_file(path: &Path) -> Result<ConfList> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |why| Error::Conf { path, why }
    };
    let value = read_json(path).map_err(wrong(path))?;
    let plugins_of = |network: &str| {
        let dir = path.parent().unwrap_or(Path::new("")).join(network);
        let files = match sorted_files(&dir, &["conf"]) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.context(|| format!("list plugins in {}", dir.display()))?,
        };
        let read = |file: &PathBuf| Ok(read_json(file).map_err(wrong(file))?);
        files.iter().map(read).collect()
    };
    let is_list = path.extension().is_some_and(|e| e == "conflist");
    if !is_list && value.get("type").is_none() {
        let why = "a single plugin needs a type; lists are named .conflist";
        return Err(wrong(path)(why.into()));
    }
    ConfList::parse(&value, plugins_of).map_err(wrong(path))
}

/// The first valid configuration of a directory, and why those before it are not.
pub(crate) fn load_dir(dir: &Path) -> (Option<ConfList>, Vec<Error>) {
    let files = match sorted_files(dir, &["conf", "conflist", "json"]) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return (None, Vec::new()),
        listed => listed.context(|| format!("list network configurations in {}", dir.display())),
    };
    let files = match files {
        Ok(files) => files,
        Err(error) => return (None, vec![error]),
    };
    let mut errors = Vec::new();
    for file in files {
        match load_file(&file) {
            Ok(list) => return (Some(list), errors),
            Err(error) => errors.push(error),
        }
    }
    (None, errors)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "test files need not be atomic")]
mod tests {
    use super::*;

    fn inline(value: &Value) -> Result<ConfList> {
        ConfList::inline(value)
    }

    #[test]
    fn lists_and_single_plugins_are_read() {
        let list = inline(
            &json!({"cniVersion": "1.0.0", "name": "n", "disableCheck": "true",
            "plugins": [{"type": "bridge", "capabilities": {"ips": true}}, {"type": "portmap"}]}),
        )
        .unwrap();
        assert_eq!(
            (list.plugins.len(), list.disabled.as_slice()),
            (2, &[Optional::Check][..])
        );
        assert!(list.plugins[0].has_capability("ips") && !list.plugins[1].has_capability("ips"));
        let base = list.plugins[0].base("n", list.version());
        assert_eq!(
            (&base["name"], &base["cniVersion"]),
            (&json!("n"), &json!("1.0.0"))
        );
        assert!(!base.contains_key("capabilities"));
        let single = inline(&json!({"name": "n", "type": "ptp"})).unwrap();
        assert_eq!(single.version(), Version::OLDEST);
        assert_eq!(single.plugins[0].kind(), "ptp");
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let check = |list: Value, expected: Option<&str>| {
            let chosen = choose_version(list.as_object().unwrap())
                .ok()
                .map(|v| v.to_string());
            assert_eq!(chosen.as_deref(), expected, "{list}");
        };
        check(json!({}), Some("0.1.0"));
        check(json!({"cniVersion": "0.3.1"}), Some("0.3.1"));
        check(
            json!({"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "2.0.0"]}),
            Some("1.1.0"),
        );
        check(json!({"cniVersion": "2.0.0"}), None);
        check(json!({"cniVersion": "one"}), None);
        check(json!({"cniVersion": 1}), None);
    }

    #[test]
    fn bad_lists_are_refused() {
        for bad in [
            json!([]),
            json!({}),
            json!({"name": "n"}),
            json!({"name": "n", "plugins": []}),
            json!({"name": "n", "plugins": {}}),
            json!({"name": "n", "plugins": [{}]}),
            json!({"name": "n", "plugins": [{"type": "../../bin/sh"}]}),
            json!({"name": "../n", "plugins": [{"type": "ptp"}]}),
            json!({"name": "", "plugins": [{"type": "ptp"}]}),
            json!({"name": "n", "plugins": [{"type": "ptp"}], "disableGC": 3}),
        ] {
            assert!(inline(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_valid_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(load_dir(&dir.path().join("absent")).0, None);
        put("00-ignored.txt", "{}");
        put("05-broken.conflist", "{");
        put(
            "06-list.conf",
            r#"{"name": "x", "plugins": [{"type": "ptp"}]}"#,
        );
        put(
            "20-late.conflist",
            r#"{"name": "late", "plugins": [{"type": "ptp"}]}"#,
        );
        put(
            "10-net.conflist",
            r#"{"name": "net", "plugins": [{"type": "ptp"}]}"#,
        );
        put("net/10-more.conf", r#"{"type": "tuning"}"#);
        let (found, errors) = load_dir(dir.path());
        let found = found.unwrap();
        assert_eq!((found.name.as_str(), found.plugins.len()), ("net", 2));
        assert_eq!(errors.len(), 2, "{errors:?}");
        put(
            "10-net.conflist",
            r#"{"name": "net", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "ptp"}]}"#,
        );
        assert_eq!(load_dir(dir.path()).0.unwrap().plugins.len(), 1);
    }
}
