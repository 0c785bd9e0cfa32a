//! Loads the configuration files. Each file is checked alone, so that an error names its line; then
//! they are merged, and later files win.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::error::Error;
use super::written::Written;

/// The main file when no `--config` is given. It may be missing.
pub const DEFAULT_FILE: &str = "/etc/crisp/config.toml";

/// A configuration file is short; a longer file is something else by mistake.
const LONGEST_FILE: u64 = 1 << 20;

/// The merged content of the files, and their names.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All files together.
    pub written: Written,
    /// The files, in the order in which they were read.
    pub files: Vec<PathBuf>,
}

/// Reads `file`, or the default one, and `conf.d/*.toml` beside it.
///
/// # Errors
/// When a file cannot be read, `file` does not exist, or one says what is not understood.
pub fn load(file: Option<&Path>) -> Result<Loaded, Error> {
    let main = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut all = Table::new();
    let mut files = Vec::new();
    for path in std::iter::once(main.to_owned()).chain(drop_ins(main)?) {
        let text = match read(&path) {
            Err(Error::Read { source, .. })
                if source.kind() == ErrorKind::NotFound && file.is_none() && path == main =>
            {
                continue;
            }
            other => other?,
        };
        overlay(&mut all, parse(&path, &text)?);
        files.push(path);
    }
    let written = Written::deserialize(Value::Table(all)).map_err(|error| Error::Value {
        key: "configuration".to_owned(),
        why: error.message().to_owned(),
    })?;
    Ok(Loaded { written, files })
}

fn read(path: &Path) -> Result<String, Error> {
    let fail = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let size = fs::metadata(path).map_err(fail)?.len();
    if size > LONGEST_FILE {
        let why = format!("{size} bytes are no configuration file");
        return Err(fail(std::io::Error::new(ErrorKind::FileTooLarge, why)));
    }
    fs::read_to_string(path).map_err(fail)
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = main.parent().unwrap_or(Path::new("/")).join("conf.d");
    let fail = |source| Error::Read {
        path: dir.clone(),
        source,
    };
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let paths = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(fail)?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    Ok(paths)
}

/// Checks one file by itself and returns its content.
fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    let explain = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        Error::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            key: key_at(text, at),
            why: error.message().trim().replace('\n', " "),
        }
    };
    toml::from_str::<Written>(text).map_err(|error| explain(&error))?;
    toml::from_str(text).map_err(|error| explain(&error))
}

/// The key whose line holds the byte `at`, with the table that it stands in.
fn key_at(text: &str, at: usize) -> String {
    let start = text
        .get(..at)
        .and_then(|t| t.rfind('\n'))
        .map_or(0, |n| n + 1);
    let line = text
        .get(start..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    let table = |line: &str| Some(line.trim().strip_prefix('[')?.split(']').next()?.to_owned());
    if let Some(table) = table(line) {
        return table;
    }
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    let above = text
        .get(..start)
        .unwrap_or_default()
        .lines()
        .rev()
        .find_map(table);
    match (above, key) {
        (Some(table), "") => table,
        (Some(table), key) => format!("{table}.{key}"),
        (None, key) => key.to_owned(),
    }
}

fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
