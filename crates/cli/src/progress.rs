//! Progress is a line for each step that is done, with the time since the command began.

use std::time::Instant;

use rustix::process::{Signal, getpid, kill_process};

/// For tests: this program dies by SIGKILL right after it has told of a step with this text. A build without
/// debug assertions does not read the variable.
const DIES: &str = "CRISP_DIES";

/// Prints progress to standard error, which leaves standard output to answers.
#[derive(Debug)]
pub struct Progress(Instant);

impl Progress {
    /// Begins now.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Tells of a step that is done.
    pub fn done(&self, step: &str) {
        eprintln!("{}", line(self.0.elapsed().as_secs_f64(), step));
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
    #[test]
    fn times_stand_below_each_other() {
        assert_eq!(super::line(0.04, "a"), "   0.0 s  a");
        assert_eq!(super::line(112.36, "b"), " 112.4 s  b");
    }
}
