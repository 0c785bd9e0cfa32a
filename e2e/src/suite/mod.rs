//! Kubernetes' own suites, which are programs of Ginkgo: the images that their specs name, how they are
//! run, and how their specs ended.

pub mod images;
mod table;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::netns::Net;
pub use table::{Known, Table};

const REPORT: &str = "report.json";

/// Specs of a suite, and how they are to run.
#[derive(Debug)]
pub struct Specs<'a> {
    /// The suite's program.
    pub program: PathBuf,
    /// Ginkgo's, which runs it.
    pub ginkgo: PathBuf,
    /// A regular expression of their titles.
    pub focus: &'a str,
    /// Ginkgo's filter of their labels.
    pub labels: &'a str,
    /// More words for Ginkgo, which choose among them.
    pub among: Vec<String>,
    /// How many run at a time.
    pub at_once: usize,
    /// How long all of them may take, in the words of Ginkgo.
    pub within: &'a str,
    /// More words for the program.
    pub options: Vec<String>,
    /// Where the report and the log of the run go.
    pub report: PathBuf,
    /// The directory that they are run in, and that has their temporary files.
    pub work: &'a Path,
    /// Directories before those in which programs are looked for.
    pub programs: Option<PathBuf>,
}

impl Specs<'_> {
    /// Runs them in a network, and returns Ginkgo's report.
    #[must_use]
    #[track_caller]
    pub fn run(&self, net: &Net) -> Value {
        fs::create_dir_all(&self.report).unwrap();
        let log = File::create(self.report.join("log")).unwrap();
        let mut command = self.command();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let status = net.run(|| command.status().unwrap());
        let report = fs::read(self.report.join(REPORT)).unwrap_or_default();
        let report: Value = serde_json::from_slice(&report).unwrap_or_default();
        // A program that refuses its options leaves a report without specs.
        let begun = |suite: &Value| suite["SpecReports"].is_array();
        if !report
            .as_array()
            .is_some_and(|suites| suites.iter().all(begun))
        {
            let log = fs::read_to_string(self.report.join("log")).unwrap();
            panic!("ginkgo ended without a report, with {status}:\n{log}");
        }
        report
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.ginkgo);
        command
            .args(["run", "--no-color", "--output-interceptor-mode=none"])
            .arg(format!("--procs={}", self.at_once))
            .arg(format!("--timeout={}", self.within))
            .arg(format!("--focus={}", self.focus))
            .arg(format!("--label-filter={}", self.labels))
            .args(&self.among)
            .arg(format!("--output-dir={}", self.report.display()))
            .arg(format!("--json-report={REPORT}"))
            .arg(&self.program)
            .arg("--")
            .args(&self.options)
            .current_dir(self.work)
            .env("TMPDIR", self.work);
        if let Some(dir) = &self.programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", dir.display()));
        }
        command
    }
}
