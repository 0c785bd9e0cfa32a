//! A failure tells which step on which object failed, why, and what to do about it.

use std::error::Error;
use std::fmt;

/// The outcome of a step.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command could not go on.
#[derive(Debug)]
pub struct Failure {
    /// Object and step: `node node-1: start its container`.
    step: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    remedy: Option<String>,
}

impl Failure {
    /// A failure that has no deeper cause.
    pub fn new(step: impl Into<String>) -> Self {
        Self {
            step: step.into(),
            cause: None,
            remedy: None,
        }
    }

    /// A failure of a step, because of another one.
    pub fn because(step: impl Into<String>, cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            cause: Some(Box::new(cause)),
            ..Self::new(step)
        }
    }

    /// The cause, where it is of this type.
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.cause.as_deref()?.downcast_ref()
    }

    /// Says what to do, where nobody has said it yet.
    #[must_use]
    pub fn or_remedy(self, remedy: impl Into<String>) -> Self {
        match self.remedy {
            Some(_) => self,
            None => self.remedy(remedy),
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says what to do after what has been said already.
    #[must_use]
    pub fn then_remedy(self, then: impl Into<String>) -> Self {
        let remedy = match &self.remedy {
            Some(first) => format!("{first}; {}", then.into()),
            None => then.into(),
        };
        self.remedy(remedy)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        let mut told = self.step.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors have the text of their cause in their own.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
            }
            told = text;
            cause = error.source();
        }
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}

/// Says which step on which object it was that failed.
pub trait Context<T> {
    /// Makes the error a [`Failure`] of this step.
    ///
    /// # Errors
    /// When it was one before.
    fn context(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure {
            step: step(),
            cause: Some(error.into()),
            remedy: None,
        })
    }
}

/// Says what to do about a failure.
pub trait Remedy<T> {
    /// Adds it.
    ///
    /// # Errors
    /// When it was one before.
    fn remedy(self, remedy: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Remedy<T> for Result<T> {
    fn remedy(self, remedy: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|failure| failure.remedy(remedy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_step_cause_and_remedy() {
        let cause = std::io::Error::other("no space left");
        let failed: Result<()> = Err(cause).context(|| "node node-1: write its files".to_owned());
        let failed = failed.remedy(|| "make room".to_owned()).unwrap_err();
        assert_eq!(
            failed.to_string(),
            "node node-1: write its files: no space left; make room"
        );
        let again = failed.or_remedy("do it again");
        assert!(again.cause::<std::io::Error>().is_some());
        assert!(again.cause::<fmt::Error>().is_none());
        let again = again.to_string();
        let both = Failure::new("x").then_remedy("a").then_remedy("b");
        assert_eq!(both.to_string(), "x; a; b");
        let other = Failure::new("x").or_remedy("do it again");
        assert_eq!(other.to_string(), "x; do it again");
        assert!(again.ends_with("; make room"), "{again}");
    }
}
