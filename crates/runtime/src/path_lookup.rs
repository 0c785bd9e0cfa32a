//! Finding the program, and saying why it cannot be started.

use std::ffi::CString;
use std::io;

use oci_spec::runtime::Process;

use crate::error::{Error, Result};

/// A program ready for execve(2).
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    search: Vec<String>,
}

impl Program {
    /// Checks what the spec says; no file is looked at.
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let arguments = process.args().clone().unwrap_or_default();
        let environment = process.env().clone().unwrap_or_default();
        let name = arguments.first().cloned().unwrap_or_default();
        if arguments.is_empty() {
            return Err(Error::invalid("process.args", "is empty"));
        }
        let path = environment
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="));
        // An empty or relative entry means wherever the process happens to be: never searched.
        let dirs = path
            .unwrap_or("")
            .split(':')
            .filter(|dir| dir.starts_with('/'));
        let search = dirs.map(str::to_owned).collect();
        Ok(Self {
            arguments: c_strings("process.args", arguments)?,
            environment: c_strings("process.env", environment)?,
            name,
            search,
        })
    }

    /// Becomes the program; returns only with the reason why not.
    pub(crate) fn start(&self) -> Error {
        let mut refused = None;
        for path in self.candidates() {
            let Ok(c_path) = CString::new(path.as_str()) else {
                continue;
            };
            let error = crisp_sys::process::execve(&c_path, &self.arguments, &self.environment);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {}
                io::ErrorKind::PermissionDenied if !self.is_path() => refused = Some(error),
                _ => return self.explain(&error),
            }
        }
        match refused {
            Some(error) => self.explain(&error),
            None if self.is_path() => self.explain(&io::ErrorKind::NotFound.into()),
            None => Error::Program(format!(
                "exec: {:?}: executable file not found in $PATH",
                self.name
            )),
        }
    }

    fn is_path(&self) -> bool {
        self.name.contains('/')
    }

    fn candidates(&self) -> Vec<String> {
        if self.is_path() {
            return vec![self.name.clone()];
        }
        let in_dir = |dir: &String| format!("{dir}/{}", self.name);
        if self.name.is_empty() {
            Vec::new()
        } else {
            self.search.iter().map(in_dir).collect()
        }
    }

    fn explain(&self, error: &io::Error) -> Error {
        let name = &self.name;
        Error::Program(match error.kind() {
            io::ErrorKind::NotFound => {
                format!("exec: {name:?}: stat {name}: no such file or directory")
            }
            io::ErrorKind::PermissionDenied => format!("exec: {name:?}: permission denied"),
            _ if error.raw_os_error() == Some(8) => format!("exec {name}: exec format error"),
            _ => format!("exec {name}: {}", said(error)),
        })
    }
}

/// An error as the C library says it: in lower case, without Rust's "(os error 2)".
pub(crate) fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn c_strings(field: &str, strings: Vec<String>) -> Result<Vec<CString>> {
    let convert = |text| CString::new(text).map_err(|_| Error::invalid(field, "holds a NUL byte"));
    strings.into_iter().map(convert).collect()
}
