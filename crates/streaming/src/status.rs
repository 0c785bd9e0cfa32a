//! The last word of a session, on its error stream: a `Status` as JSON since version 4 of the
//! protocol, plain text before.

use serde::Serialize;

use crate::session::{End, Refusal};

/// How the last word is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Versions 1 to 3, where success is no word at all.
    Text,
    /// Versions 4 and 5.
    Json,
}

/// The purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Exec,
    Attach,
}

/// `metav1.Status`, as far as it is used here.
#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: [Cause<'a>; 1],
}

#[derive(Serialize)]
struct Cause<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    message: &'a str,
}

/// The last word on how a session ended. An attach succeeds whatever the code of its container,
/// which is told elsewhere.
pub(crate) fn of_end(manner: Manner, purpose: Purpose, end: &End) -> Vec<u8> {
    match end {
        End::Exited(code) if *code != 0 && purpose == Purpose::Exec => failed_with(manner, *code),
        End::Exited(_) => success(manner),
        End::Lost(why) => internal(manner, purpose, why),
    }
}

/// The last word on a session that did not begin.
pub(crate) fn of_refusal(manner: Manner, purpose: Purpose, refusal: &Refusal) -> Vec<u8> {
    internal(manner, purpose, &refusal.0)
}

fn success(manner: Manner) -> Vec<u8> {
    let status = Status {
        metadata: Empty {},
        status: "Success",
        message: "",
        reason: "",
        details: None,
        code: None,
    };
    match manner {
        Manner::Text => Vec::new(),
        Manner::Json => json(&status),
    }
}

fn failed_with(manner: Manner, code: u8) -> Vec<u8> {
    let message = format!("command terminated with non-zero exit code: {code}");
    let causes = [Cause {
        reason: "ExitCode",
        message: &code.to_string(),
    }];
    let status = Status {
        metadata: Empty {},
        status: "Failure",
        message: &message,
        reason: "NonZeroExitCode",
        details: Some(Details { causes }),
        code: None,
    };
    match manner {
        Manner::Text => message.into_bytes(),
        Manner::Json => json(&status),
    }
}

fn internal(manner: Manner, purpose: Purpose, why: &str) -> Vec<u8> {
    let cause = match purpose {
        Purpose::Exec => format!("error executing command in container: {why}"),
        Purpose::Attach => format!("error attaching to container: {why}"),
    };
    let message = format!("Internal error occurred: {cause}");
    let causes = [Cause {
        reason: "",
        message: &cause,
    }];
    let status = Status {
        metadata: Empty {},
        status: "Failure",
        message: &message,
        reason: "InternalError",
        details: Some(Details { causes }),
        code: Some(500),
    };
    match manner {
        Manner::Text => message.into_bytes(),
        Manner::Json => json(&status),
    }
}

fn json(status: &Status) -> Vec<u8> {
    // Strings and numbers alone: there is nothing that JSON could not say.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words() {
        let check = |manner, purpose, end: End, said: &str| {
            let word = of_end(manner, purpose, &end);
            assert_eq!(String::from_utf8(word).unwrap(), said);
        };
        let (json, text) = (Manner::Json, Manner::Text);
        let success = r#"{"metadata":{},"status":"Success"}"#;
        check(json, Purpose::Exec, End::Exited(0), success);
        check(json, Purpose::Attach, End::Exited(7), success);
        check(text, Purpose::Exec, End::Exited(0), "");
        check(
            json,
            Purpose::Exec,
            End::Exited(7),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 7","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
        );
        check(
            text,
            Purpose::Exec,
            End::Exited(7),
            "command terminated with non-zero exit code: 7",
        );
        check(
            json,
            Purpose::Attach,
            End::Lost("oh".to_owned()),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error attaching to container: oh","reason":"InternalError","details":{"causes":[{"message":"error attaching to container: oh"}]},"code":500}"#,
        );
        let refused = of_refusal(text, Purpose::Exec, &Refusal("no sh".to_owned()));
        let said = "Internal error occurred: error executing command in container: no sh";
        assert_eq!(refused, said.as_bytes());
    }
}
