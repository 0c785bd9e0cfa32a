//! `logs` prints what the programs of a node have logged, and goes on with what they log.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::found::Cluster;
use crate::arguments::Common;
use crate::failure::{Context as _, Failure, Result};
use crate::init::older;

/// Between two looks for more.
const STEP: Duration = Duration::from_millis(200);

/// Prints the logs of a node's programs, or of one.
pub fn logs(common: &Common, name: &str, program: Option<&str>, follow: bool) -> Result<()> {
    let cluster = Cluster::find(common)?;
    cluster.record.has(name)?;
    let dir = cluster.dir.node(name).join("log");
    let step = || format!("node {name}: print the logs in {}", dir.display());
    let mut logs = shown(&dir, name, program)?;
    let printed = (|| {
        let mut output = Output::to(io::stdout().lock(), program.is_none());
        for log in &mut logs {
            output.all_of(log)?;
        }
        while follow && dir.is_dir() {
            for log in &mut logs {
                output.news_of(log)?;
            }
            output.to.flush()?;
            std::thread::sleep(STEP);
        }
        output.to.flush()
    })();
    match printed {
        // The reader may have seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context(step),
    }
}

/// The log of a program, and how far it was printed.
#[derive(Debug)]
struct Log {
    program: String,
    path: PathBuf,
    at: u64,
}

/// The logs of a node to be printed.
fn shown(dir: &Path, name: &str, program: Option<&str>) -> Result<Vec<Log>> {
    let step = || format!("node {name}: read the logs in {}", dir.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).context(step)? {
        paths.push(entry.context(step)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let all = paths.into_iter().map(|path| Log {
        program: path.file_stem().unwrap_or_default().display().to_string(),
        path,
        at: 0,
    });
    let (shown, others): (Vec<Log>, Vec<Log>) =
        all.partition(|log| program.is_none_or(|program| log.program == program));
    if !shown.is_empty() {
        return Ok(shown);
    }
    let others: Vec<String> = others.into_iter().map(|log| log.program).collect();
    let program = program.unwrap_or("any program");
    let failure = Failure::new(format!("node {name}: it has no log of {program}"));
    Err(failure.remedy(format!("there are those of {}", others.join(", "))))
}

/// Where logs are printed to; of several, each with a line that names it.
struct Output<W> {
    to: W,
    named: bool,
    last: String,
}

impl<W: io::Write> Output<W> {
    fn to(to: W, named: bool) -> Self {
        Self {
            to,
            named,
            last: String::new(),
        }
    }

    fn name(&mut self, log: &Log) -> io::Result<()> {
        if self.named && self.last != log.program {
            writeln!(self.to, "== {}", log.program)?;
            self.last.clone_from(&log.program);
        }
        Ok(())
    }

    fn all_of(&mut self, log: &mut Log) -> io::Result<()> {
        self.name(log)?;
        match File::open(older(&log.path)) {
            Ok(mut older) => drop(io::copy(&mut older, &mut self.to)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(error),
        }
        log.at = io::copy(&mut File::open(&log.path)?, &mut self.to)?;
        Ok(())
    }

    /// Prints whole lines, so that those of several programs do not mix.
    fn news_of(&mut self, log: &mut Log) -> io::Result<()> {
        let mut file = match File::open(&log.path) {
            Ok(file) => file,
            // The cluster was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // It has been begun anew.
        if file.metadata()?.len() < log.at {
            log.at = 0;
        }
        file.seek(SeekFrom::Start(log.at))?;
        let mut news = Vec::new();
        file.read_to_end(&mut news)?;
        let whole = news.iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        if whole > 0 {
            self.name(log)?;
            self.to.write_all(&news[..whole])?;
            log.at += whole as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    #[test]
    fn what_comes_later_is_printed_once_in_whole_lines_and_with_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write(&path("a.log"), b"1\n").unwrap();
        write(&path("a.log.1"), b"0\n").unwrap();
        write(&path("b.log"), b"").unwrap();
        let mut logs = shown(dir.path(), "node-1", None).unwrap();
        let mut output = Output::to(Vec::new(), true);
        for log in &mut logs {
            output.all_of(log).unwrap();
        }
        let mut news = |name: &str, text: &str| {
            write(&path(name), text.as_bytes()).unwrap();
            for log in &mut logs {
                output.news_of(log).unwrap();
            }
            String::from_utf8(std::mem::take(&mut output.to)).unwrap()
        };
        assert_eq!(news("b.log", "x"), "== a\n0\n1\n== b\n");
        assert_eq!(news("b.log", "xy\nz"), "xy\n");
        assert_eq!(news("a.log", "1\n2\n"), "== a\n2\n");
        // It was begun anew.
        assert_eq!(news("a.log", "3\n"), "3\n");
        fs::remove_file(path("a.log")).unwrap();
        assert_eq!(news("b.log", "xy\nz\n"), "== b\nz\n");
    }
}
