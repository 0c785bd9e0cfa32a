//! A case: a change of the base bundle, what is prepared for it, and what is done with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::text::text;

/// The line that runs a bundle in the foreground.
const RUN: &str = "$R run $ID </dev/null";

/// One bundle to compare.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, or those of its parts.
    pub names: Vec<String>,
    /// The whole `config.json`, or what stands in its place.
    pub spec: String,
    /// A shell script that runs in the bundle before.
    pub prepare: String,
    pub story: Story,
    /// Flags of each command, before its name.
    pub flags: String,
}

/// The acts on the bundle: shell lines, in which `$R` is the runtime and `$ID` the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Story {
    /// One line, in the foreground.
    Run(String),
    /// Created, started, then these lines while it runs, then killed and deleted.
    Live(Vec<String>),
}

/// A case as its file tells it.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Written {
    /// Merged into the base: null removes, a key with a `+` appends to the list without it.
    spec: Value,
    /// Instead of the base and all changes.
    text: Option<String>,
    prepare: String,
    flags: String,
    run: Option<String>,
    live: Option<Vec<String>>,
}

/// The cases of a file, by name.
pub fn read(table: &str) -> Vec<Case> {
    let text = text(&format!("cases/{table}.json"));
    let written: BTreeMap<String, Written> = serde_json::from_str(&text).unwrap();
    written
        .into_iter()
        .map(|(name, written)| written.case(name))
        .collect()
}

impl Written {
    fn case(self, name: String) -> Case {
        let mut spec = base();
        if self.live.is_some() {
            spec["process"]["args"] = json!(["sh", "-c", "/probe; exec sleep 1000"]);
        }
        merge(&mut spec, &self.spec);
        Case {
            names: vec![name],
            spec: self.text.unwrap_or_else(|| spec.to_string()),
            prepare: self.prepare,
            flags: self.flags,
            story: match (self.live, self.run) {
                (Some(lines), _) => Story::Live(lines),
                (None, line) => Story::Run(line.unwrap_or_else(|| RUN.to_owned())),
            },
        }
    }
}

impl Case {
    pub fn name(&self) -> String {
        self.names.join(" + ")
    }

    /// Whether it is a plain bundle, fit to be a part of a mix.
    pub fn is_plain(&self) -> bool {
        self.story == Story::Run(RUN.to_owned())
            && self.flags.is_empty()
            && serde_json::from_str::<Value>(&self.spec).is_ok()
    }

    /// Both at once: `other`'s differences from the base are made here too.
    pub fn and(&self, other: &Self) -> Self {
        let parse = |case: &Self| serde_json::from_str::<Value>(&case.spec).unwrap();
        let mut spec = parse(self);
        carry(&mut spec, &base(), &parse(other));
        Self {
            names: [&self.names[..], &other.names[..]].concat(),
            spec: spec.to_string(),
            prepare: format!("{}\n{}", self.prepare, other.prepare),
            story: self.story.clone(),
            flags: self.flags.clone(),
        }
    }
}

pub fn base() -> Value {
    serde_json::from_str(&text("cases/base.json")).unwrap()
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if let Some(list) = key.strip_suffix('+') {
            let list = target.entry(list).or_insert_with(|| json!([]));
            let more = value.as_array().unwrap().iter().cloned();
            list.as_array_mut().unwrap().extend(more);
        } else if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Makes the changes that lead from `base` to `changed` in `target`.
fn carry(target: &mut Value, base: &Value, changed: &Value) {
    match (target, base, changed) {
        (Value::Object(target), Value::Object(base), Value::Object(changed)) => {
            for key in base.keys().filter(|key| !changed.contains_key(*key)) {
                target.remove(key);
            }
            for (key, value) in changed {
                let from = base.get(key).unwrap_or(&Value::Null);
                if from != value {
                    carry(target.entry(key).or_insert(Value::Null), from, value);
                }
            }
        }
        (Value::Array(target), Value::Array(base), Value::Array(changed)) => {
            target.retain(|item| !base.contains(item) || changed.contains(item));
            for item in changed {
                if !base.contains(item) && !target.contains(item) {
                    target.push(item.clone());
                }
            }
        }
        (target, _, changed) => *target = changed.clone(),
    }
}
