//! `logs` prints what the programs of a node have logged, and goes on with what they log.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::found::Cluster;
use crate::arguments::Common;
use crate::disk::entries;
use crate::failure::{Context as _, Failure, Result};
use crate::home::ClusterDir;
use crate::init::{Init, older};
use crate::progress::say;

/// Between two looks for more.
const STEP: Duration = Duration::from_millis(200);
/// The log of a node's first process, which its shim writes.
const FIRST: &str = "node";

/// Prints the logs of a node's programs, or of one.
pub fn logs(common: &Common, name: &str, program: Option<&str>, follow: bool) -> Result<()> {
    let Cluster { dir, record, .. } = Cluster::find(common)?;
    record.has(name)?;
    let mut shown = Shown::of(&dir, name, program);
    if shown.look()? == 0 {
        let missing = shown.missing()?;
        if !follow {
            return Err(missing.remedy(shown.way(&dir)));
        }
        say(format_args!("crisp: {missing}: that is waited for"));
    }
    let mut output = Output::to(io::stdout().lock(), program.is_none());
    let mut printed = shown.print(|log| output.all_of(log));
    while follow && printed.is_ok() && dir.path().is_dir() {
        std::thread::sleep(STEP);
        if shown.look()? == 0 {
            shown.missing()?;
        }
        printed = shown.print(|log| output.news_of(log));
        printed = printed.and_then(|()| output.to.flush());
    }
    match printed.and_then(|()| output.to.flush()) {
        // The reader may have seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context(|| format!("node {name}: print its logs")),
    }
}

/// The log of a program, and how far it was printed.
#[derive(Debug)]
struct Log {
    program: String,
    path: PathBuf,
    at: u64,
}

/// The logs of a node to be printed, as far as they have begun.
#[derive(Debug)]
struct Shown<'a> {
    node: &'a str,
    dir: PathBuf,
    program: Option<&'a str>,
    logs: Vec<Log>,
}

impl<'a> Shown<'a> {
    fn of(dir: &ClusterDir, node: &'a str, program: Option<&'a str>) -> Self {
        Self {
            node,
            dir: dir.node(node),
            program,
            logs: Vec::new(),
        }
    }

    /// Finds those that have begun meanwhile, and tells how many there are.
    fn look(&mut self) -> Result<usize> {
        let mut paths = entries(&self.dir.join("log"))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        for path in paths {
            let program = path.file_stem().unwrap_or_default().display().to_string();
            let is_wanted = self.program.is_none_or(|wanted| wanted == program);
            if is_wanted && self.logs.iter().all(|log| log.program != program) {
                self.logs.push(Log {
                    program,
                    path,
                    at: 0,
                });
            }
        }
        Ok(self.logs.len())
    }

    /// Says that none has begun. A program that the node is not to have is refused: its log would never begin.
    fn missing(&self) -> Result<Failure> {
        let node = self.node;
        let Some(program) = self.program else {
            let text = format!("node {node}: none of its programs has logged anything yet");
            return Ok(Failure::new(text));
        };
        let all = self.programs()?;
        if all.is_empty() || all.iter().any(|name| name == program) {
            let text = format!("node {node}: {program} has logged nothing yet");
            return Ok(Failure::new(text));
        }
        let failure = Failure::new(format!("node {node}: it has no program {program}"));
        Err(failure.remedy(format!("it has {}", all.join(", "))))
    }

    /// The programs of the node; none before `up` has written which they are.
    fn programs(&self) -> Result<Vec<String>> {
        let path = self.dir.join("init.json");
        let step = || format!("{}: read it", path.display());
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(step),
        };
        let init: Init = serde_json::from_slice(&text).context(step)?;
        let names = init.programs.into_iter().map(|program| program.name);
        Ok(names.chain([FIRST.to_owned()]).collect())
    }

    /// The way to logs that have not begun.
    fn way(&self, dir: &ClusterDir) -> String {
        let program = self.program.map(|program| format!(" {program}"));
        let program = program.unwrap_or_default();
        let follow = dir.command(&format!("logs -f {}{program}", self.node));
        format!(
            "{follow} waits for that, {} starts the node",
            dir.command("up")
        )
    }

    fn print(&mut self, how: impl FnMut(&mut Log) -> io::Result<()>) -> io::Result<()> {
        self.logs.iter_mut().try_for_each(how)
    }
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
            Err(error) if error.kind() == ErrorKind::NotFound => (),
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
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
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
    use crate::disk::{make_dir, write};
    use crate::home::Home;

    fn cluster(place: &tempfile::TempDir) -> ClusterDir {
        let home = Home::at(place.path()).unwrap();
        home.cluster(&"x".parse().unwrap())
    }

    #[test]
    fn what_comes_later_is_printed_once_in_whole_lines_and_with_its_program() {
        let place = tempfile::tempdir().unwrap();
        let dir = cluster(&place);
        let logs = dir.node("node-1").join("log");
        let path = |name: &str| logs.join(name);
        make_dir(&logs).unwrap();
        write(&path("a.log"), b"1\n").unwrap();
        write(&path("a.log.1"), b"0\n").unwrap();
        write(&path("b.log"), b"").unwrap();
        let mut shown = Shown::of(&dir, "node-1", None);
        let mut output = Output::to(Vec::new(), true);
        assert_eq!(shown.look().unwrap(), 2);
        shown.print(|log| output.all_of(log)).unwrap();
        let mut news = |name: &str, text: &str| {
            write(&path(name), text.as_bytes()).unwrap();
            shown.look().unwrap();
            shown.print(|log| output.news_of(log)).unwrap();
            String::from_utf8(std::mem::take(&mut output.to)).unwrap()
        };
        assert_eq!(news("b.log", "x"), "== a\n0\n1\n== b\n");
        assert_eq!(news("b.log", "xy\nz"), "xy\n");
        assert_eq!(news("a.log", "1\n2\n"), "== a\n2\n");
        // It was begun anew.
        assert_eq!(news("a.log", "3\n"), "3\n");
        // It begins while others are followed.
        assert_eq!(news("aa.log", "4\n"), "== aa\n4\n");
        assert_eq!(news("other", "5\n"), "");
        fs::remove_file(path("a.log")).unwrap();
        assert_eq!(news("b.log", "xy\nz\n"), "== b\nz\n");
    }

    #[test]
    fn logs_that_have_not_begun_are_missing_and_those_of_no_program_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let dir = cluster(&place);
        let told = |program: Option<&str>| {
            let mut shown = Shown::of(&dir, "node-1", program);
            assert_eq!(shown.look().unwrap(), 0);
            let missing = shown.missing().map_err(|refused| refused.to_string())?;
            Ok(missing.remedy(shown.way(&dir)).to_string())
        };
        let waits = |program: Option<&str>, who: &str, words: &str| {
            let follow = dir.command(&format!("logs -f node-1{words}"));
            let up = dir.command("up");
            let text =
                format!("node node-1: {who} yet; {follow} waits for that, {up} starts the node");
            assert_eq!(told(program), Ok(text));
        };
        // Before `up` has made its directory, nobody knows its programs.
        waits(None, "none of its programs has logged anything", "");
        waits(Some("kubelt"), "kubelt has logged nothing", " kubelt");
        let program = |name: &str| serde_json::json!({"name": name, "command": ["/x"]});
        let programs = [program("crispd"), program("kubelet")];
        let init = serde_json::json!({"runs_pods": true, "programs": programs});
        make_dir(&dir.node("node-1").join("log")).unwrap();
        let file = dir.node("node-1").join("init.json");
        write(&file, init.to_string().as_bytes()).unwrap();
        waits(None, "none of its programs has logged anything", "");
        waits(Some("kubelet"), "kubelet has logged nothing", " kubelet");
        waits(Some("node"), "node has logged nothing", " node");
        let refused = "node node-1: it has no program kubelt; it has crispd, kubelet, node";
        assert_eq!(told(Some("kubelt")), Err(refused.to_owned()));
    }
}
