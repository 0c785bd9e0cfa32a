//! A line tells one event:
//!
//! ```text
//! 2026-01-02T03:04:05.678901Z  INFO crisp::pod: pod ready ips=10.88.0.2 pod=default/web pod_id=4f…
//! ```
//!
//! Time, level, target, the words; then the event's fields, then those of the spans around it from
//! the inner one to the outer. A key is told once. As JSON it is one flat object with the same.

use std::io::Write as _;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::fields::{Fields, write_value};
use crate::target;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One object a line.
    Json,
}

/// Keys that each JSON line has; a field of the same name gets a `_` behind it.
const TAKEN: [&str; 4] = ["timestamp", "level", "target", "message"];

/// The layer that writes a line for each event, with one write.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    out: W,
    format: Format,
    is_coloured: bool,
}

impl<W> Lines<W> {
    pub(crate) fn new(out: W, format: Format) -> Self {
        Self {
            out,
            format,
            is_coloured: false,
        }
    }

    /// Colours the level of text lines.
    pub(crate) fn coloured(self, is_coloured: bool) -> Self {
        Self {
            is_coloured,
            ..self
        }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take_message();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        let level = *event.metadata().level();
        let target = target::stable(event.metadata().target());
        let line = match self.format {
            Format::Text => text(self.is_coloured, level, &target, (&message, &fields)),
            Format::Json => json(level, &target, &message, &fields),
        };
        // A log that cannot be written has no place where that could be reported.
        drop(self.out.make_writer().write_all(line.as_bytes()));
    }
}

fn now() -> String {
    let mut text = String::new();
    let written = SystemTime.format_time(&mut Writer::new(&mut text));
    written.map_or_else(|_| String::new(), |()| text)
}

fn text(
    is_coloured: bool,
    level: Level,
    target: &str,
    (message, fields): (&str, &Fields),
) -> String {
    let mut line = now();
    let colour = match level {
        _ if !is_coloured => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    };
    let plain = if is_coloured { "\x1b[0m" } else { "" };
    line.push_str(&format!(" {colour}{level:>5}{plain} {target}: "));
    // A line stays one line, and a terminal takes no orders from a log.
    for c in message.chars() {
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    for (name, value) in fields.iter() {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        write_value(&mut line, value);
    }
    line.push('\n');
    line
}

fn json(level: Level, target: &str, message: &str, fields: &Fields) -> String {
    let mut line = String::from("{");
    let mut put = |name: &str, value: serde_json::Value| {
        let comma = if line.len() == 1 { "" } else { "," };
        let name = serde_json::Value::from(name);
        line.push_str(&format!("{comma}{name}:{value}"));
    };
    put("timestamp", now().into());
    put("level", level.as_str().into());
    put("target", target.into());
    put("message", message.into());
    for (name, value) in fields.iter() {
        match TAKEN.contains(&name) {
            true => put(&format!("{name}_"), value.clone()),
            false => put(name, value.clone()),
        }
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, work: impl FnOnce()) -> String {
        let page = Page::default();
        let out = page.clone();
        let lines = Lines::new(move || out.clone(), format);
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn tell() {
        let call = tracing::error_span!(
            "call",
            rpc = "RunPodSandbox",
            pod = tracing::field::Empty,
            code = "outer",
            otel.name = "x"
        );
        call.record("pod", "default/web");
        let _in = call.enter();
        let pod = tracing::error_span!("pod", pod_id = ?"4f", empty = "").entered();
        tracing::info!(target: "crisp::pod", code = 3, why = ?"no such \"file\"", "it\nis over");
        drop(pod);
        tracing::warn!(ok = true, level = "low", none = None::<&str>, "second");
    }

    #[test]
    fn a_line_has_the_fields_of_event_and_spans_once() {
        let text = logged(Format::Text, tell);
        let lines: Vec<&str> = text.lines().map(|l| l.split_once('Z').unwrap().1).collect();
        assert_eq!(
            lines,
            [
                "  INFO crisp::pod: it\\nis over code=3 why=\"no such \\\"file\\\"\" pod_id=4f \
                 empty=\"\" rpc=RunPodSandbox pod=default/web",
                "  WARN crisp::telemetry: second ok=true level=low rpc=RunPodSandbox code=outer \
                 pod=default/web",
            ]
        );
    }

    #[test]
    fn a_line_of_json_is_one_flat_object() {
        let text = logged(Format::Json, tell);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["code"], 3);
        assert_eq!(lines[0]["why"], "no such \"file\"");
        assert_eq!(lines[0]["message"], "it\nis over");
        assert_eq!(lines[0]["pod"], "default/web");
        assert_eq!(lines[1]["level"], "WARN");
        assert_eq!(lines[1]["level_"], "low");
        assert!(lines[1].get("otel.name").is_none());
    }
}
