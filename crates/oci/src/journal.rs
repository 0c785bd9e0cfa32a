//! Messages: to the standard error, and to the file of `--log` in the form that callers parse.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use crisp_sys::clock;
use crisp_sys::rfc3339::stamp;

use crate::arguments::{Global, LogFormat};
use crate::failure::{Context, Result};

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Journal {
    /// Messages of a command that could not even open its log.
    pub(crate) fn to_stderr() -> Self {
        Self {
            file: None,
            format: LogFormat::Text,
            debug: false,
        }
    }

    pub(crate) fn open(global: &Global) -> Result<Self> {
        let open = |path| {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o644).open(path)
        };
        let file = global.log.as_ref().map(open).transpose();
        Ok(Self {
            file: file.context(|| format!("open the log {:?}", global.log))?,
            format: global.log_format,
            debug: global.debug,
        })
    }

    /// Why the command failed: always to the standard error too, where people look.
    pub(crate) fn error(&self, text: &str) {
        self.say("error", text);
        if self.file.is_some() {
            print_error(text);
        }
    }

    pub(crate) fn warning(&self, text: &str) {
        self.say("warning", text);
    }

    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.say("debug", text);
        }
    }

    fn say(&self, level: &str, text: &str) {
        let line = self.line(level, text);
        match (&self.file, self.format) {
            // A full disk is no reason to stop.
            (Some(file), _) => drop({ file }.write_all(line.as_bytes())),
            (None, LogFormat::Json) => drop(io::stderr().write_all(line.as_bytes())),
            (None, LogFormat::Text) if level == "error" => print_error(text),
            (None, LogFormat::Text) => print_error(&format!("{level}: {text}")),
        }
    }

    fn line(&self, level: &str, text: &str) -> String {
        let stamp = stamp(clock::now());
        let time = String::from_utf8_lossy(&stamp);
        match self.format {
            LogFormat::Json => {
                let line = serde_json::json!({ "level": level, "msg": text, "time": time });
                format!("{line}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}\n"),
        }
    }
}

/// Standard error may be closed, which is no error here.
fn print_error(text: &str) {
    drop(writeln!(io::stderr(), "crisp-oci: {text}"));
}
