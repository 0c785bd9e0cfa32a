//! The page: all figures as text, in the format that a client asks for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::figure::Figure;
use super::operations::Operations;

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' own text format, which everything reads that knows of metrics.
    Text,
    /// `OpenMetrics`, where a client prefers it.
    OpenMetrics,
}

impl Format {
    /// The format for a client's header `Accept`. A client that asks for neither gets [`Format::Text`],
    /// as by other exporters, instead of a refusal.
    pub(super) fn of(accept: &str) -> Self {
        let (mut text, mut open) = (0.0_f32, 0.0_f32);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut weight, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => weight = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim_matches([' ', '"'])),
                    _ => {}
                }
            }
            let is_open = kind.eq_ignore_ascii_case("application/openmetrics-text");
            if is_open && version.is_none_or(|version| version == "1.0.0") {
                open = open.max(weight);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                text = text.max(weight);
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The header `Content-Type` of the page.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that stands on the page.
pub(super) struct Page {
    registry: Registry,
}

impl Page {
    pub(super) fn new(
        operations: &Operations,
        figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static,
    ) -> Self {
        let mut registry = Registry::default();
        operations.register(&mut registry);
        registry.register_collector(Box::new(Figures(Box::new(figures))));
        Self { registry }
    }

    /// Writes the page as of now. The source of the figures may read files, so this blocks.
    pub(super) fn write(&self, format: Format) -> Result<String, fmt::Error> {
        let mut page = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut page, &self.registry)?,
            Format::OpenMetrics => text::encode(&mut page, &self.registry)?,
        }
        Ok(page)
    }
}

struct Figures(Box<dyn Fn() -> Vec<Figure> + Send + Sync>);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = (self.0)();
        figures
            .iter()
            .try_for_each(|figure| figure.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Kind, Unit};

    fn page() -> Page {
        let operations = Operations::recorded();
        let call = operations.begin("Version");
        call.answered("OK", Duration::from_millis(3));
        let call = operations.begin("StopContainer");
        call.answered("OK", Duration::from_secs(11));
        drop(operations.begin("StopContainer"));
        std::mem::forget(operations.begin("PullImage"));
        Page::new(&operations, || {
            vec![
                Figure::new(Kind::Gauge, "crisp_pods", "Pods by state")
                    .with(&[("state", "ready")], 2_usize)
                    .with(&[("state", "stopping")], 0_usize),
                Figure::new(
                    Kind::Counter,
                    "crisp_pulled",
                    "Bytes that came from registries",
                )
                .in_unit(Unit::Bytes)
                .plain(u64::MAX),
                Figure::new(Kind::Counter, "process_cpu", "Processor time")
                    .in_unit(Unit::Seconds)
                    .plain(0.25),
            ]
        })
    }

    /// Lines of the page that begin with one of these.
    fn lines(page: &str, beginnings: &[&str]) -> Vec<String> {
        let is_meant = |line: &&str| beginnings.iter().any(|begin| line.starts_with(begin));
        page.lines().filter(is_meant).map(str::to_owned).collect()
    }

    #[test]
    fn figures_stand_on_the_page_as_prometheus_reads_them() {
        let page = page().write(Format::Text).unwrap();
        assert_eq!(
            lines(
                &page,
                &[
                    "# HELP crisp_pods",
                    "# TYPE crisp_pods",
                    "crisp_pods",
                    "# HELP crisp_pulled",
                    "# TYPE crisp_pulled",
                    "crisp_pulled",
                    "process_cpu"
                ]
            ),
            [
                "# HELP crisp_pods Pods by state.",
                "# TYPE crisp_pods gauge",
                "crisp_pods{state=\"ready\"} 2",
                "crisp_pods{state=\"stopping\"} 0",
                "# HELP crisp_pulled_bytes_total Bytes that came from registries.",
                "# TYPE crisp_pulled_bytes_total counter",
                "crisp_pulled_bytes_total 18446744073709551615",
                "process_cpu_seconds_total 0.25",
            ],
            "{page}"
        );
        assert!(
            !page.contains("# EOF") && !page.contains("# UNIT"),
            "{page}"
        );
    }

    #[test]
    fn the_same_page_in_openmetrics_has_units_and_an_end() {
        let page = page().write(Format::OpenMetrics).unwrap();
        assert_eq!(
            lines(
                &page,
                &["# TYPE crisp_pulled", "# UNIT crisp_pulled", "crisp_pulled"]
            ),
            [
                "# TYPE crisp_pulled_bytes counter",
                "# UNIT crisp_pulled_bytes bytes",
                "crisp_pulled_bytes_total 18446744073709551615",
            ],
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn calls_are_counted_by_their_end_and_never_twice() {
        let page = page().write(Format::Text).unwrap();
        let mut counts = lines(&page, &["crisp_operation_duration_seconds_count"]);
        counts.sort();
        let ended = |labels: &str| format!("crisp_operation_duration_seconds_count{{{labels}}} 1");
        assert_eq!(
            counts,
            [
                ended("operation=\"StopContainer\",code=\"Dropped\""),
                ended("operation=\"StopContainer\",code=\"OK\""),
                ended("operation=\"Version\",code=\"OK\""),
            ]
        );
        let stop =
            "crisp_operation_duration_seconds_bucket{operation=\"StopContainer\",code=\"OK\"";
        let buckets = lines(&page, &[stop]);
        assert_eq!(buckets.len(), BUCKETS, "{page}");
        let above = buckets.iter().filter(|line| line.ends_with(" 1"));
        assert_eq!(above.count(), 4, "30, 120, 600 and no bound: {page}");
        let mut running = lines(&page, &["crisp_operations_running{"]);
        running.sort();
        assert_eq!(
            running,
            [
                "crisp_operations_running{operation=\"PullImage\"} 1",
                "crisp_operations_running{operation=\"StopContainer\"} 0",
                "crisp_operations_running{operation=\"Version\"} 0",
            ]
        );
    }

    /// The bounds of the program, and the bucket without a bound.
    const BUCKETS: usize = 16;

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus,
            "application/openmetrics-text",
            "application/OpenMetrics-Text; version=\"1.0.0\"",
        ] {
            assert_eq!(Format::of(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html",
            "text/plain;q=0.9, application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=x",
            ";;,=,q=1",
        ] {
            assert_eq!(Format::of(accept), Format::Text, "{accept}");
        }
    }
}
