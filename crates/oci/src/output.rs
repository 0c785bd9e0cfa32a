//! Output of the commands: tables and JSON.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::failure::{Context, Failure, Result};

/// A value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(unprintable)
}

/// A value as JSON for people.
pub(crate) fn pretty(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(unprintable)
}

fn unprintable(source: serde_json::Error) -> Failure {
    Failure::Document {
        path: PathBuf::from("output"),
        source,
    }
}

/// Prints a text and a newline.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .context(|| "write standard output")
}

/// Rows as a table: columns are as wide as their widest cell.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let lines = rows.iter().map(|row| {
        let cells = row.iter().enumerate();
        let line: String = cells
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column) + 3))
            .collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed() {
        let rows = [["ID", "PID"], ["longer", "1"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "ID       PID\nlonger   1");
    }
}
