//! Which kind of document a manifest's bytes are.
//!
//! The content type of the answer, the `mediaType` in the document and the fields that it has must
//! agree. Otherwise one digest could name an image for one client and an index for another
//! (CVE-2021-41190).

use crisp_model::go_json;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// The media type of a document, after checking it against `content_type`.
pub(crate) fn media_type(content_type: Option<&str>, body: &[u8]) -> Result<String, String> {
    let shape: Shape =
        go_json::from_slice(body).map_err(|e| format!("not a manifest or index: {e}"))?;
    if shape.fs_layers.is_some() {
        return Err("schema 1 manifests are not supported: push the image anew".to_owned());
    }
    let is_index = shape.manifests.is_some();
    let is_image = shape.layers.is_some() || shape.config.is_some();
    if is_index == is_image {
        return Err("a document has either `manifests` or `config` and `layers`".to_owned());
    }
    let sent = content_type
        .map(|text| text.split(';').next().unwrap_or(text).trim())
        .filter(|text| is_known(text));
    let own = shape.media_type.as_deref().filter(|text| !text.is_empty());
    let found = match (sent, own) {
        (Some(sent), Some(own)) if sent != own => {
            return Err(format!("sent as {sent}, but says that it is {own}"));
        }
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) if is_index => OCI_INDEX,
        (None, None) => OCI_MANIFEST,
    };
    if !is_known(found) {
        return Err(format!("media type {found:?} is not supported"));
    }
    if is_index != matches!(found, OCI_INDEX | DOCKER_LIST) {
        return Err(format!("sent as {found}, which its content is not"));
    }
    Ok(found.to_owned())
}

fn is_known(text: &str) -> bool {
    matches!(
        text,
        OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_must_agree() {
        let index = r#""manifests":[]"#;
        let image = r#""config":{},"layers":[]"#;
        let typed = |t: &str, rest: &str| format!(r#"{{"mediaType":"{t}",{rest}}}"#);
        let bare = |rest: &str| format!("{{{rest}}}");
        let cases = [
            (None, bare(index), Some(OCI_INDEX)),
            (None, bare(image), Some(OCI_MANIFEST)),
            (Some("application/json"), bare(image), Some(OCI_MANIFEST)),
            (Some(DOCKER_MANIFEST), bare(image), Some(DOCKER_MANIFEST)),
            (
                Some("text/plain"),
                typed(DOCKER_LIST, index),
                Some(DOCKER_LIST),
            ),
            (Some(OCI_INDEX), typed(OCI_INDEX, index), Some(OCI_INDEX)),
            (Some(OCI_INDEX), bare(image), None),
            (Some(OCI_MANIFEST), bare(index), None),
            (Some(OCI_MANIFEST), typed(OCI_INDEX, image), None),
            (Some(OCI_INDEX), typed(OCI_MANIFEST, index), None),
            (None, typed("application/x", image), None),
            (None, format!("{{{index},{image}}}"), None),
            (None, format!(r#"{{{index},"layers":[]}}"#), None),
            (None, format!(r#"{{{image},"fsLayers":[]}}"#), None),
            (None, bare(""), None),
            (None, "[]".to_owned(), None),
            (None, "<html>".to_owned(), None),
            // As Go reads them, so that no other spelling hides what a document is.
            (None, r#"{"Config":{}}"#.to_owned(), Some(OCI_MANIFEST)),
            (
                None,
                r#"{"config":{},"layers":null}"#.to_owned(),
                Some(OCI_MANIFEST),
            ),
            (
                None,
                r#"{"config":{},"manifests":null}"#.to_owned(),
                Some(OCI_MANIFEST),
            ),
            (None, r#"{"MANIFESTS":[]}"#.to_owned(), Some(OCI_INDEX)),
            (None, format!(r#"{{{image},"Manifests":[]}}"#), None),
            (None, format!(r#"{{{image},"FsLayers":[]}}"#), None),
            (
                Some(OCI_MANIFEST),
                format!(r#"{{"MediaType":"{OCI_INDEX}",{image}}}"#),
                None,
            ),
        ];
        for (sent, body, expected) in cases {
            let found = media_type(sent, body.as_bytes());
            assert_eq!(found.as_deref().ok(), expected, "{sent:?} {body} {found:?}");
        }
        let sent = format!("{OCI_INDEX}; charset=utf-8");
        assert!(media_type(Some(&sent), bare(index).as_bytes()).is_ok());
    }
}
