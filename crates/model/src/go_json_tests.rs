//! Forms that are met in the field, each with what Go makes of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outer {
    media_type: String,
    size: i64,
    is_it: bool,
    list: Vec<String>,
    labels: BTreeMap<String, String>,
    inner: Inner,
    maybe: Option<Inner>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    user: String,
    task: String,
}

fn with(change: impl FnOnce(&mut Outer)) -> Option<Outer> {
    let mut outer = Outer::default();
    change(&mut outer);
    Some(outer)
}

fn check(document: &[u8], expected: Option<Outer>) {
    let found = from_slice::<Outer>(document);
    let shown = String::from_utf8_lossy(document);
    match expected {
        Some(expected) => assert_eq!(found.as_ref().ok(), Some(&expected), "{shown} {found:?}"),
        None => assert!(found.is_err(), "{shown} {found:?}"),
    }
}

#[test]
fn keys_have_any_case() {
    for key in ["mediaType", "MediaType", "mediatype", "MEDIATYPE"] {
        let document = format!(r#"{{"{key}":"t"}}"#);
        check(document.as_bytes(), with(|o| o.media_type = "t".into()));
    }
    check(br#"{"media_type":"t"}"#, with(|_| {}));
    let user = |o: &mut Outer| o.inner.user = "1".into();
    check(br#"{"INNER":{"user":"1"}}"#, with(user));
    check("{\"inner\":{\"u\u{17f}er\":\"1\"}}".as_bytes(), with(user));
    let task = |o: &mut Outer| o.inner.task = "1".into();
    let kelvin = "{\"inner\":{\"tas\u{212a}\":\"1\"}}";
    check(kelvin.as_bytes(), with(task));
    // Keys of a map are data.
    let both = |o: &mut Outer| {
        let pairs = [("A", "1"), ("a", "2")];
        o.labels = pairs.map(|(k, v)| (k.into(), v.into())).into();
    };
    check(br#"{"labels":{"A":"1","a":"2"}}"#, with(both));
}

#[test]
fn the_last_of_a_key_counts() {
    let last = |o: &mut Outer| o.media_type = "b".into();
    check(br#"{"mediaType":"a","mediaType":"b"}"#, with(last));
    check(br#"{"mediaType":"a","MediaType":"b"}"#, with(last));
    check(br#"{"MediaType":"a","mediaType":"b"}"#, with(last));
    let list = |o: &mut Outer| o.list = vec!["b".into()];
    check(br#"{"list":["a","c"],"List":["b"]}"#, with(list));
    let merged = |o: &mut Outer| {
        o.inner = Inner {
            user: "2".into(),
            task: "t".into(),
        };
    };
    check(
        br#"{"inner":{"User":"1","Task":"t"},"Inner":{"user":"2"}}"#,
        with(merged),
    );
    let label = |o: &mut Outer| o.labels = [("a".into(), "2".into())].into();
    check(br#"{"labels":{"a":"1","a":"2"}}"#, with(label));
}

#[test]
fn null_changes_nothing() {
    check(
        br#"{"mediaType":null,"size":null,"isIt":null,"list":null,"labels":null,"inner":null}"#,
        with(|_| {}),
    );
    let kept = |o: &mut Outer| o.media_type = "a".into();
    check(br#"{"mediaType":"a","MediaType":null}"#, with(kept));
    check(br#"{"list":["a"],"List":null}"#, with(|_| {}));
    let empty = |o: &mut Outer| o.list = vec!["a".into(), String::new()];
    check(br#"{"list":["a",null]}"#, with(empty));
    let label = |o: &mut Outer| o.labels = [("a".into(), String::new())].into();
    check(br#"{"labels":{"a":null}}"#, with(label));
    check(b"null", with(|_| {}));
    let some = |o: &mut Outer| o.maybe = Some(Inner::default());
    check(br#"{"maybe":{}}"#, with(some));
}

#[test]
fn text_that_is_no_utf_8_is_replaced() {
    let replaced = |o: &mut Outer| o.media_type = "a\u{fffd}".into();
    check(b"{\"mediaType\":\"a\xff\"}", with(replaced));
}

#[test]
fn wrong_types_and_other_texts_are_errors() {
    for document in [
        &br#"{"mediaType":1}"#[..],
        br#"{"size":"1"}"#,
        br#"{"size":1.5}"#,
        br#"{"list":"a"}"#,
        br#"{"list":{"a":"b"}}"#,
        br#"{"labels":{"a":1}}"#,
        br#"{"inner":["1"]}"#,
        br#"{"inner":"1"}"#,
        b"[]",
        b"",
        b"<html>",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ] {
        check(document, None);
    }
    let first: Outer = first_of_slice(br#"{"size":7} trailing"#).unwrap();
    assert_eq!(first.size, 7);
}

#[test]
fn strings_hide_brackets_commas_and_quotes() {
    let text = |o: &mut Outer| o.media_type = "a,\"}]{[\\".into();
    check(
        br#" { "x" : [ "]" , {"y":"}\""} ] , "mediaType" : "a,\"}]{[\\" , "z":{} } "#,
        with(text),
    );
    let escaped = |o: &mut Outer| o.media_type = "b".into();
    check(br#"{"media\u0054ype":"b"}"#, with(escaped));
    let list = |o: &mut Outer| o.list = vec!["a,b".into(), "[".into()];
    check(br#"{"list":[ "a,b" ,"[" ]}"#, with(list));
    let merged = |o: &mut Outer| {
        o.labels = [("a", "1"), ("b", "2"), ("c", "3")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
    };
    check(
        br#"{"labels":{"a":"1"},"Labels":{},"LABELS":{"b":"2","c":"3"}}"#,
        with(merged),
    );
}

#[test]
fn what_no_one_reads_may_be_anything_that_is_json() {
    let kept = |o: &mut Outer| o.size = 7;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let long = format!("[{}0]", "{\"a\":[1,2]},".repeat(600_000));
    for unknown in [deep.as_str(), long.as_str(), "1e999", "\"\\ud800\""] {
        let document = format!("{{\"unknown\":{unknown},\"size\":7}}");
        check(document.as_bytes(), with(kept));
    }
    for broken in ["[1,]", "{\"a\"}", "tru", "\"\\x\"", "[}"] {
        let document = format!("{{\"unknown\":{broken},\"size\":7}}");
        check(document.as_bytes(), None);
    }
}

#[test]
fn a_type_that_holds_itself_ends_at_a_depth() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(from_slice::<serde_json::Value>(nested(100).as_bytes()).is_ok());
    assert!(from_slice::<serde_json::Value>(nested(5000).as_bytes()).is_err());
}
