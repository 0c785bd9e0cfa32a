//! Our `proto/` against the published CRI: every service, method, message, field and number.
//!
//! The published file is not ours to copy, so it is taken from its Go module when the test runs:
//! from the path in `CRI_API_PROTO`, else by `go mod download`.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(clippy::disallowed_methods, reason = "tests run go directly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};

const MODULE: &str = "k8s.io/cri-api@v0.37.0";

fn published() -> PathBuf {
    if let Some(path) = std::env::var_os("CRI_API_PROTO") {
        return path.into();
    }
    let output = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        .current_dir(std::env::temp_dir())
        .output()
        .expect("Go fetches the published CRI (or set CRI_API_PROTO to its api.proto)");
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let dir = answer["Dir"]
        .as_str()
        .unwrap_or_else(|| panic!("no Dir in {text}"));
    Path::new(dir).join("pkg/apis/runtime/v1/api.proto")
}

fn parse(file: &Path) -> FileDescriptorProto {
    let set = protox::compile([file], [file.parent().unwrap()]).unwrap_or_else(|e| panic!("{e:?}"));
    set.file
        .into_iter()
        .find(|f| f.package() == "runtime.v1")
        .expect("package runtime.v1")
}

/// Each fact that a client on the other side of the wire can notice, one line each.
fn facts(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut facts = BTreeSet::from([format!(
        "syntax {} package {}",
        file.syntax(),
        file.package()
    )]);
    for service in &file.service {
        facts.insert(format!("service {}", service.name()));
        facts.extend(service.method.iter().map(|m| {
            let stream = |yes| if yes { "stream " } else { "" };
            format!(
                "rpc {}.{} ({}{}) returns ({}{})",
                service.name(),
                m.name(),
                stream(m.client_streaming()),
                m.input_type(),
                stream(m.server_streaming()),
                m.output_type()
            )
        }));
    }
    file.message_type
        .iter()
        .for_each(|m| describe(m, "", &mut facts));
    file.enum_type
        .iter()
        .for_each(|e| values(e, "", &mut facts));
    facts
}

fn describe(message: &DescriptorProto, outer: &str, facts: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", message.name());
    let map = message.options.as_ref().is_some_and(|o| o.map_entry());
    facts.insert(format!("message {name} map {map}"));
    facts.extend(message.field.iter().map(|f| field(&name, f)));
    facts.extend(
        message
            .oneof_decl
            .iter()
            .map(|o| format!("oneof {name}.{}", o.name())),
    );
    facts.extend(
        message
            .reserved_name
            .iter()
            .map(|r| format!("reserved {name} {r}")),
    );
    let ranges = message.reserved_range.iter();
    facts.extend(ranges.map(|r| format!("reserved {name} {}..{}", r.start(), r.end())));
    let inner = format!("{name}.");
    message
        .nested_type
        .iter()
        .for_each(|m| describe(m, &inner, facts));
    message
        .enum_type
        .iter()
        .for_each(|e| values(e, &inner, facts));
}

fn field(message: &str, field: &FieldDescriptorProto) -> String {
    let kind: Type = field.r#type();
    let label: Label = field.label();
    let packed = field.options.as_ref().and_then(|o| o.packed);
    let deprecated = field.options.as_ref().is_some_and(|o| o.deprecated());
    format!(
        "field {message}.{} = {} {label:?} {kind:?} {} json {} oneof {:?} optional {} \
         packed {packed:?} deprecated {deprecated}",
        field.name(),
        field.number(),
        field.type_name(),
        field.json_name(),
        field.oneof_index,
        field.proto3_optional(),
    )
}

fn values(of: &EnumDescriptorProto, outer: &str, facts: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", of.name());
    facts.insert(format!("enum {name}"));
    facts.extend(
        of.value
            .iter()
            .map(|v| format!("value {name}.{} = {}", v.name(), v.number())),
    );
}

#[test]
fn our_proto_is_the_published_one() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/runtime/v1/api.proto");
    let ours = facts(&parse(&ours));
    let theirs = facts(&parse(&published()));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:#?}, ours {invented:#?}"
    );
    // A parser that yields nothing would agree with itself.
    assert!(
        ours.iter().filter(|f| f.starts_with("rpc ")).count() >= 43,
        "{ours:#?}"
    );
    assert!(ours.len() > 800, "{}", ours.len());
}
