//! The subject of a call: the pod, container or other object that it is about. It labels the log
//! lines of the call and decides nothing.

use tracing::Span;

/// The object of a call, as far as it is known; absent in lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Namespace and name of the pod.
    pub pod: Option<String>,
    /// Its id.
    pub pod_id: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
    /// Its id.
    pub container_id: Option<String>,
    /// Any other object, such as an image, as the caller named it.
    pub about: Option<String>,
}

impl Subject {
    /// Writes what is known into a span that has these fields.
    pub(crate) fn record(&self, span: &Span) {
        let fields = [
            ("about", &self.about),
            ("pod", &self.pod),
            ("pod_id", &self.pod_id),
            ("container", &self.container),
            ("container_id", &self.container_id),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                span.record(name, value.as_str());
            }
        }
    }
}

impl From<&str> for Subject {
    fn from(about: &str) -> Self {
        Self {
            about: Some(about.to_owned()).filter(|text| !text.is_empty()),
            ..Self::default()
        }
    }
}

impl From<&String> for Subject {
    fn from(about: &String) -> Self {
        about.as_str().into()
    }
}
