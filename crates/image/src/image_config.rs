//! The OCI image config: what an image asks of a container, and which layers it is made of.

use std::collections::BTreeMap;

use crisp_content::Hasher;
use crisp_model::image::ImageConfig;
use crisp_model::{Digest, go_json};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::platform::Platform;

/// Largest config that is read.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// A config, parsed.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    pub(crate) created: Option<String>,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    created: Option<String>,
    #[serde(default)]
    config: Section,
    rootfs: RootFs,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Section {
    user: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    working_dir: String,
    volumes: BTreeMap<String, IgnoredAny>,
    stop_signal: String,
    labels: BTreeMap<String, String>,
    exposed_ports: BTreeMap<String, IgnoredAny>,
}

/// Parses a config document.
pub(crate) fn parse(document: &[u8]) -> Result<Parsed, String> {
    let document: Document =
        go_json::from_slice(document).map_err(|e| format!("not an image config: {e}"))?;
    if !matches!(document.rootfs.kind.as_str(), "" | "layers") {
        return Err(format!("rootfs of type {:?}", document.rootfs.kind));
    }
    let section = document.config;
    Ok(Parsed {
        config: ImageConfig {
            user: section.user,
            env: section.env,
            entrypoint: section.entrypoint,
            cmd: section.cmd,
            working_dir: section.working_dir,
            volumes: section.volumes.into_keys().collect(),
            stop_signal: Some(section.stop_signal).filter(|signal| !signal.is_empty()),
            labels: section.labels,
            exposed_ports: section.exposed_ports.into_keys().collect(),
        },
        platform: Platform {
            os: document.os,
            architecture: document.architecture,
            variant: document.variant,
        },
        created: document.created,
        diff_ids: document.rootfs.diff_ids,
    })
}

/// The chain id of each layer: what identifies it together with everything below it.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Hasher::sha256(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_of_many_builders_parse() {
        let full = br#"{
            "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2024-01-02T03:04:05Z",
            "config": {"User": "1:2", "Env": ["A=b"], "Entrypoint": ["/e"], "Cmd": null,
                "WorkingDir": "/w", "Volumes": {"/v": {}, "/u": {}}, "StopSignal": "SIGINT",
                "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "OnBuild": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": [{"x": 1}]
        }"#;
        let parsed = parse(full).unwrap();
        assert_eq!(parsed.config.user, "1:2");
        assert_eq!(parsed.config.volumes, ["/u", "/v"]);
        assert_eq!(parsed.config.exposed_ports, ["80/tcp"]);
        assert_eq!(parsed.config.stop_signal.as_deref(), Some("SIGINT"));
        assert!(parsed.config.cmd.is_empty());
        assert_eq!(parsed.platform.to_string(), "linux/arm64/v8");
        for sparse in [
            &br#"{"rootfs": {}}"#[..],
            br#"{"config": null, "rootfs": {"diff_ids": null}}"#,
        ] {
            let parsed = parse(sparse).unwrap();
            assert_eq!(parsed.config, ImageConfig::default());
        }
        for bad in [
            &b"{}"[..],
            b"[]",
            br#"{"rootfs": {"diff_ids": ["sha256:zz"]}}"#,
            br#"{"rootfs": {"type": "windows"}}"#,
            br#"{"rootfs": {}, "config": {"Env": "A=b"}}"#,
        ] {
            assert!(parse(bad).is_err());
        }
    }

    /// Each row: what containerd makes of a document is what we make of it, except where said.
    #[test]
    fn odd_but_common_forms() {
        let rootfs = r#""rootfs":{"type":"layers","diff_ids":[]}"#;
        let section = |text: &str| format!(r#"{{"config":{{{text}}},{rootfs}}}"#);
        let user = |expected: &'static str| move |config: &ImageConfig| config.user == expected;
        type Look = Box<dyn Fn(&ImageConfig) -> bool>;
        let taken: Vec<(String, Look)> = vec![
            (section(r#""user":"1000""#), Box::new(user("1000"))),
            (section(r#""USER":"1000""#), Box::new(user("1000"))),
            (section(r#""User":"1","user":"2""#), Box::new(user("2"))),
            (section(r#""User":"1","User":null"#), Box::new(user("1"))),
            (
                format!(r#"{{"Config":{{"User":"1"}},"config":{{"Env":["A=b"]}},{rootfs}}}"#),
                Box::new(|c| c.user == "1" && c.env == ["A=b"]),
            ),
            (
                section(r#""cmd":["/x"],"env":["A=b"],"workingdir":"/w","entrypoint":null"#),
                Box::new(|c| c.cmd == ["/x"] && c.env == ["A=b"] && c.working_dir == "/w"),
            ),
            (
                section(r#""stopsignal":"SIGINT","exposedports":{"80/tcp":{}}"#),
                Box::new(|c| c.stop_signal.is_some() && c.exposed_ports == ["80/tcp"]),
            ),
            (
                section(r#""Labels":{"A":"1","a":null}"#),
                Box::new(|c| c.labels["A"] == "1" && c.labels["a"].is_empty()),
            ),
            (
                section(r#""Volumes":{"/v":{},"/u":null}"#),
                Box::new(|c| c.volumes == ["/u", "/v"]),
            ),
            (
                r#"{"rootfS":{"Type":"layers","Diff_IDs":null}}"#.to_owned(),
                Box::new(|_| true),
            ),
            // containerd wants RFC 3339 here and pulls nothing else; nothing of ours needs it.
            (
                format!(r#"{{"created":"yesterday",{rootfs}}}"#),
                Box::new(|_| true),
            ),
        ];
        for (document, look) in taken {
            let parsed = parse(document.as_bytes());
            let config = parsed.unwrap_or_else(|e| panic!("{document}: {e}")).config;
            assert!(look(&config), "{document}: {config:?}");
        }
        for refused in [
            section(r#""Cmd":"/x""#),
            section(r#""Env":{"A":"b"}"#),
            section(r#""User":1000"#),
            section(r#""Labels":{"a":1}"#),
            format!("{{{rootfs}}} x"),
            r#"{"rootfs":{"diff_ids":"sha256:a"}}"#.to_owned(),
        ] {
            assert!(parse(refused.as_bytes()).is_err(), "{refused}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let diff: Vec<Digest> = (1..=3u8).map(|n| Digest::sha256([n; 32])).collect();
        let chain = chain_ids(&diff);
        assert_eq!(chain[0], diff[0]);
        let text = format!("{} {}", diff[0], diff[1]);
        assert_eq!(chain[1], Hasher::sha256(text.as_bytes()));
        let text = format!("{} {}", chain[1], diff[2]);
        assert_eq!(chain[2], Hasher::sha256(text.as_bytes()));
    }
}
