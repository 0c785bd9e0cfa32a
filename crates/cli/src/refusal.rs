//! A refusal is a call to a crispd that came to nothing, with its code: by the code, callers decide what
//! comes next, and never by words.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

/// Why a call came to nothing.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    text: String,
    /// Whether it was never answered, because the connection failed.
    is_gone: bool,
}

impl Refusal {
    /// A call that got no answer in this time.
    pub fn late(within: Duration) -> Self {
        Self {
            code: Code::DeadlineExceeded,
            text: format!("no answer in {} s", within.as_secs()),
            is_gone: false,
        }
    }

    /// Whether no crispd answers there any more.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether the same call may have another outcome a moment later.
    pub fn may_pass(&self) -> bool {
        match self.code {
            // The request or the image is at fault, or there was time enough.
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::DeadlineExceeded => false,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => true,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        // The status' own text begins with words about gRPC.
        let mut text = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        // A server's status has no source: only a failed connection has.
        let mut cause = status.source();
        let is_gone = cause.is_some();
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(&format!(": {part}"));
            }
            cause = error.source();
        }
        Self {
            code: status.code(),
            text,
            is_gone,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_from_the_code_where_there_are_none() {
        let text =
            |code: Code, message: &str| Refusal::from(Status::new(code, message)).to_string();
        assert_eq!(text(Code::DataLoss, "layer x is cut"), "layer x is cut");
        let told = text(Code::PermissionDenied, "");
        assert!(told.contains("permission"), "{told}");
        let late = Refusal::late(Duration::from_secs(7));
        assert_eq!(late.to_string(), "no answer in 7 s");
        assert!(!late.may_pass() && !late.is_gone());
    }

    #[test]
    fn the_code_tells_whether_another_try_may_help() {
        for (code, may_pass) in [
            (Code::Unavailable, true),
            (Code::NotFound, true),
            (Code::Internal, true),
            (Code::InvalidArgument, false),
            (Code::FailedPrecondition, false),
            (Code::Unimplemented, false),
        ] {
            let refusal = Refusal::from(Status::new(code, "x"));
            assert_eq!(refusal.may_pass(), may_pass, "{code:?}");
            assert!(!refusal.is_gone(), "a server has answered");
        }
    }
}
