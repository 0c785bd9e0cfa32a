//! A complaint is the error document that a plugin prints, in whatever shape it prints it.

use serde_json::{Deserializer, Map, Value};

/// The code and the text of a plugin's error document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Code of the CNI error, 0 when the plugin gave none.
    pub code: u32,
    /// Its message, with the details.
    pub text: String,
}

/// A number, which some plugins write as a text.
fn code(document: &Map<String, Value>) -> Option<u32> {
    match document.get("code")? {
        Value::String(text) => text.trim().parse().ok(),
        number => u32::try_from(number.as_u64()?).ok(),
    }
}

impl Complaint {
    /// The last complaint in what a failing plugin wrote. There may be a result before it.
    pub(crate) fn read(stdout: &[u8]) -> Option<Self> {
        let documents = Deserializer::from_slice(stdout).into_iter::<Value>();
        let complaints = documents.map_while(Result::ok).filter_map(|d| Self::of(&d));
        complaints.last()
    }

    /// The complaint in the answer of a plugin that exited as if all were well.
    pub(crate) fn of_success(answer: &Value) -> Option<Self> {
        let is_result = ["ips", "ip4", "ip6", "interfaces"];
        if is_result.iter().any(|part| answer.get(part).is_some()) {
            return None;
        }
        Self::of(answer)
    }

    fn of(document: &Value) -> Option<Self> {
        let document = document.as_object()?;
        let part = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or("");
        let code = code(document);
        let text = match (part("msg"), part("details")) {
            ("", "") if code.is_none() => return None,
            ("", "") => "no message".to_owned(),
            (text, "") | ("", text) => text.to_owned(),
            (message, details) => format!("{message}: {details}"),
        };
        let code = code.unwrap_or(0);
        Some(Self { code, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_read_in_every_shape() {
        for (stdout, expected) in [
            (
                r#"{"code": 11, "msg": "no luck", "details": "at all"}"#,
                Some((11, "no luck: at all")),
            ),
            (
                r#"{"cniVersion": "1.0.0", "msg": "no addresses left"}"#,
                Some((0, "no addresses left")),
            ),
            (r#"{"code": "7", "msg": "bad"}"#, Some((7, "bad"))),
            (r#"{"code": "x", "details": "why"}"#, Some((0, "why"))),
            (r#"{"code": 7}"#, Some((7, "no message"))),
            (
                "{\"ips\": []}\n{\"code\": 3, \"msg\": \"late\"}\n",
                Some((3, "late")),
            ),
            (
                "{\"code\": 3, \"msg\": \"early\"}\nnoise",
                Some((3, "early")),
            ),
            (r#"{"ips": []}"#, None),
            ("no ip left", None),
            ("", None),
        ] {
            let read = Complaint::read(stdout.as_bytes());
            let read = read.as_ref().map(|c| (c.code, c.text.as_str()));
            assert_eq!(read, expected, "{stdout}");
        }
    }
}
