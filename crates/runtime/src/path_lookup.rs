//! Finding the program, and saying why it cannot be started.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use oci_spec::runtime::Process;

use crate::environment;
use crate::error::{Error, Result};

/// A program ready for execve(2).
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The user whose home is to be found, where the environment names none.
    homeless: Option<u32>,
    search: Vec<Vec<u8>>,
}

impl Program {
    /// Checks what the spec says; no file is looked at. A `raw` variable takes the place of the
    /// spec's of its name.
    pub(crate) fn of(process: &Process, raw: Vec<Vec<u8>>) -> Result<Self> {
        let arguments = process.args().clone().unwrap_or_default();
        let name = arguments.first().cloned().unwrap_or_default();
        if arguments.is_empty() {
            return Err(Error::invalid("process.args", "is empty"));
        }
        let environment = process.env().clone().unwrap_or_default();
        environment::check(&environment)?;
        let environment = environment::one_entry_a_name(environment);
        let mut environment = replaced(environment, raw);
        let homeless = !environment::has_home(&environment);
        environment.retain(|entry| !homeless || !entry.starts_with(b"HOME="));
        let path = environment
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix(b"PATH="));
        // An empty or relative entry means wherever the process happens to be: never searched.
        let dirs = path
            .unwrap_or_default()
            .split(|byte| *byte == b':')
            .filter(|dir| dir.starts_with(b"/"));
        let search = dirs.map(<[u8]>::to_vec).collect();
        let arguments = arguments.into_iter().map(String::into_bytes);
        Ok(Self {
            arguments: c_strings("process.args", arguments)?,
            environment: c_strings("process.env", environment.into_iter())?,
            homeless: homeless.then(|| process.user().uid()),
            name,
            search,
        })
    }

    /// In the child, in the container's root: programs count on a home.
    pub(crate) fn find_home(&mut self, root: BorrowedFd<'_>) {
        if let Some(uid) = self.homeless.take() {
            let home = environment::home_of(uid, root);
            self.environment
                .extend(CString::new(format!("HOME={home}")));
        }
    }

    /// Becomes the program; returns only with the reason why not.
    pub(crate) fn start(&self) -> Error {
        let mut refused = None;
        let mut unfit = None;
        for path in self.candidates() {
            let Ok(c_path) = CString::new(path) else {
                continue;
            };
            let error = crisp_sys::process::execve(&c_path, &self.arguments, &self.environment);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    unfit = unfit.or_else(|| lacks(&c_path));
                }
                io::ErrorKind::PermissionDenied if !self.is_path() => refused = Some(error),
                _ => return self.explain(&error),
            }
        }
        match refused {
            _ if unfit.is_some() => {
                let why = unfit.unwrap_or_default();
                Error::Program(format!("exec: {:?}: {why}", self.name))
            }
            Some(error) => self.explain(&error),
            None if self.is_path() => self.explain(&io::ErrorKind::NotFound.into()),
            None => self.not_found(),
        }
    }

    /// Whether there is a program to become, as far as can be told without becoming it.
    pub(crate) fn find(&self) -> Result<()> {
        let mut candidates = self.candidates().into_iter();
        let is_program = |path: Vec<u8>| {
            let path = Path::new(OsStr::from_bytes(&path));
            let executable = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
            executable && std::fs::metadata(path).is_ok_and(|about| about.is_file())
        };
        match candidates.any(is_program) {
            true => Ok(()),
            false => Err(self.not_found()),
        }
    }

    fn not_found(&self) -> Error {
        let name = &self.name;
        if !self.is_path() {
            let text = format!("exec: {name:?}: executable file not found in $PATH");
            return Error::Program(text);
        }
        let missing = std::fs::metadata(name).err();
        let forbidden = io::ErrorKind::PermissionDenied;
        self.explain(&missing.unwrap_or_else(|| forbidden.into()))
    }

    fn is_path(&self) -> bool {
        self.name.contains('/')
    }

    fn candidates(&self) -> Vec<Vec<u8>> {
        let name = self.name.as_bytes();
        if self.is_path() {
            return vec![name.to_vec()];
        }
        let in_dir = |dir: &Vec<u8>| {
            let dir = dir.strip_suffix(b"/").unwrap_or(dir);
            [dir, b"/".as_slice(), name].concat()
        };
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

/// The interpreter that a program lacks: execve(2) says then that the program is not there.
/// `None` when there is no such file.
fn lacks(path: &CStr) -> Option<String> {
    const LONGEST_LINE: u64 = 256;
    let file = File::open(Path::new(OsStr::from_bytes(path.to_bytes()))).ok()?;
    let mut head = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut head).ok()?;
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_elf = head.starts_with(b"\x7fELF");
        return is_elf.then(|| {
            "the dynamic loader that it names is not in the container: was it built for another C \
             library?"
                .to_owned()
        });
    };
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let words = line.trim_start_matches([' ', '\t']);
    let interpreter = words.split([' ', '\t']).next()?;
    Some(match interpreter.strip_suffix('\r') {
        Some(interpreter) => format!(
            "its interpreter {interpreter:?} is not found, since a carriage return follows it: save \
             the file with Unix line ends"
        ),
        None => format!("its interpreter {interpreter:?} is not in the container"),
    })
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

/// An environment with each `raw` variable in the place of the one of its name.
fn replaced(environment: Vec<String>, raw: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let name = |entry: &[u8]| entry.iter().position(|byte| *byte == b'=');
    let mut environment: Vec<Vec<u8>> = environment.into_iter().map(String::into_bytes).collect();
    for entry in raw {
        let is_same = |known: &&mut Vec<u8>| match (name(known), name(&entry)) {
            (Some(end), Some(of)) => known[..end] == entry[..of],
            _ => false,
        };
        match environment.iter_mut().find(is_same) {
            Some(known) => *known = entry,
            None => environment.push(entry),
        }
    }
    environment
}

fn c_strings(field: &str, strings: impl Iterator<Item = Vec<u8>>) -> Result<Vec<CString>> {
    let convert = |text| CString::new(text).map_err(|_| Error::invalid(field, "holds a NUL byte"));
    strings.map(convert).collect()
}
