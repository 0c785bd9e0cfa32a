//! Progress is a line for each step that is done, with the time since the command began.

use std::time::Instant;

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
