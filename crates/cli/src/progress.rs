//! Progress is a line for each step that is done, with the time since the command began. It goes to standard
//! error, which leaves standard output to answers.

use std::fmt;
use std::io::{self, Write as _};
use std::time::Instant;

use rustix::process::{Signal, getpid, kill_process};

use crate::failure::{Context as _, Result};

/// For tests: this program dies by SIGKILL right after it has told of a step with this text. A build without
/// debug assertions does not read the variable.
const DIES: &str = "CRISP_DIES";

/// Says something on standard error. It may be closed or full, as after `2>&1 | head -1`: that is no reason to
/// leave in the middle what is being done.
pub fn say(text: fmt::Arguments<'_>) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Prints a line of a command's answer on standard output. Its reader may have seen enough, as after `| head -1`.
///
/// # Errors
/// It could not be written for another reason: a script would take what came for all of it.
pub fn answer(text: fmt::Arguments<'_>) -> Result<()> {
    print(&mut io::stdout(), text)
}

fn print(to: &mut dyn io::Write, text: fmt::Arguments<'_>) -> Result<()> {
    match writeln!(to, "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(|| "print the answer".to_owned()),
    }
}

/// Prints progress to standard error.
#[derive(Debug)]
pub struct Progress(Instant);

impl Progress {
    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Tells of a step that is done.
    pub fn done(&self, step: &str) {
        say(format_args!(
            "{}",
            line(self.0.elapsed().as_secs_f64(), step)
        ));
        let dies = std::env::var(DIES).ok().filter(|_| cfg!(debug_assertions));
        if dies.is_some_and(|point| step.contains(&point)) {
            kill_process(getpid(), Signal::KILL).ok();
        }
    }
}

fn line(seconds: f64, step: &str) -> String {
    format!("{seconds:6.1} s  {step}")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::process::Stdio;

    const CHILD: &str = "CRISP_TEST_SAYS";

    fn full() -> File {
        File::options().write(true).open("/dev/full").unwrap()
    }

    /// This test's own program, once more, with a standard error that is full.
    #[test]
    fn nobody_has_to_hear_what_is_said() {
        if std::env::var_os(CHILD).is_some() {
            super::say(format_args!("x"));
            return;
        }
        let status = crisp_sys::process::command(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "progress::tests::nobody_has_to_hear_what_is_said",
            ])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(full())
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn only_its_reader_may_cut_an_answer() {
        let (reader, mut closed) = io::pipe().unwrap();
        drop(reader);
        super::print(&mut closed, format_args!("x")).unwrap();
        let failure = super::print(&mut full(), format_args!("x")).unwrap_err();
        assert!(
            failure
                .to_string()
                .starts_with("print the answer: No space"),
            "{failure}"
        );
    }

    #[test]
    fn times_stand_below_each_other() {
        assert_eq!(super::line(0.04, "a"), "   0.0 s  a");
        assert_eq!(super::line(112.36, "b"), " 112.4 s  b");
    }
}
