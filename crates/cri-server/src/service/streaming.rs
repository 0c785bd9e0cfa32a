//! Calls that answer with a URL of the streaming server: what the client who comes there gets is
//! fixed here, from what the call asked for.

use std::sync::Arc;

use crisp_api::runtime::v1 as cri;
use crisp_model::PodId;
use crisp_node::{Ended, Engine, Error, Wanted};
use crisp_streaming::{Connection, Dial, End, Refusal, Server, Session, Size, Start, Streams};
use futures::FutureExt as _;
use tonic::Status;

use super::Service;
use crate::answer;
use crate::from_cri;
use crate::from_cri::check::{each, no_nul, number};

impl Service {
    /// The server is dropped first when the daemon ends.
    fn streams(&self) -> Result<Arc<Server>, Status> {
        let gone = || Status::unavailable("the daemon is about to end: ask again in a moment");
        self.streams.upgrade().ok_or_else(gone)
    }

    pub(super) fn exec(&self, request: cri::ExecRequest) -> Result<cri::ExecResponse, Status> {
        let wanted = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.tty,
        };
        let streams = streams(wanted)?;
        let command = each("cmd", request.cmd, no_nul)?;
        if command.is_empty() {
            from_cri::invalid("cmd", "is empty")?;
        }
        let container = self.engine.running_container(&request.container_id);
        let id = container.map_err(answer::engine)?.id.clone();
        let engine = self.engine.clone();
        let start: Start = Box::new(move || {
            Box::pin(async move {
                let begun = engine.exec_session(id.as_str(), command, wanted).await;
                begun.map(lend).map_err(refusal)
            })
        });
        let url = self.streams()?.exec(streams, start);
        Ok(cri::ExecResponse {
            url: url.map_err(answer::streams)?,
        })
    }

    /// The terminal is the container's own, whatever the call says: that decides alone whether its
    /// client tells sizes.
    pub(super) fn attach(
        &self,
        request: &cri::AttachRequest,
    ) -> Result<cri::AttachResponse, Status> {
        let asked = Wanted {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.tty,
        };
        let streams = streams(asked)?;
        let container = self.engine.running_container(&request.container_id);
        let id = container.map_err(answer::engine)?.id.clone();
        let wanted = self.engine.attachable(id.as_str(), asked);
        let wanted = wanted.map_err(answer::engine)?;
        if asked.stdin && !wanted.stdin {
            tracing::info!(container_id = %id, "the container was created without stdin: a client \
                that asks for it is attached to the output alone");
        }
        let engine = self.engine.clone();
        let start: Start = Box::new(move || {
            Box::pin(async move {
                let begun = engine.attach(id.as_str(), wanted).await;
                begun.map(lend).map_err(refusal)
            })
        });
        let url = self.streams()?.attach(streams, start);
        Ok(cri::AttachResponse {
            url: url.map_err(answer::streams)?,
        })
    }

    pub(super) fn port_forward(
        &self,
        request: &cri::PortForwardRequest,
    ) -> Result<cri::PortForwardResponse, Status> {
        let ports = ports(&request.port)?;
        let pod = self.engine.check_ports(&request.pod_sandbox_id);
        let dial = dial(self.engine.clone(), pod.map_err(answer::engine)?);
        let url = self.streams()?.port_forward(ports, dial);
        Ok(cri::PortForwardResponse {
            url: url.map_err(answer::streams)?,
        })
    }
}

/// The streams that a client of exec or attach opens.
fn streams(wanted: Wanted) -> Result<Streams, from_cri::Refusal> {
    if wanted.terminal && wanted.stderr {
        from_cri::invalid(
            "stderr",
            "is part of stdout where tty is set: ask for one of them",
        )?;
    }
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        from_cri::invalid("stdin, stdout, stderr", "none is asked for: one has to be")?;
    }
    Ok(Streams::default()
        .with(Streams::STDIN, wanted.stdin)
        .with(Streams::STDOUT, wanted.stdout)
        .with(Streams::STDERR, wanted.stderr)
        .with(Streams::TERMINAL, wanted.terminal))
}

/// A session of the engine as the streaming server takes it.
fn lend(session: crisp_node::Session) -> Session {
    let crisp_node::Session {
        stdin,
        stdout,
        stderr,
        resize,
        end,
    } = session;
    Session {
        stdin,
        stdout,
        stderr,
        resize: resize.map(|mut resize| -> crisp_streaming::Resize {
            Box::new(move |size: Size| resize(size.width, size.height))
        }),
        end: end.map(ending).boxed(),
    }
}

/// A code of the engine is one of a process, or 128 and a signal: it fits.
fn ending(ended: Ended) -> End {
    match ended {
        Ended::Exited(code) => End::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
        Ended::Lost(why) => End::Lost(why),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: Error) -> Refusal {
    Refusal(error.to_string())
}

fn ports(wire: &[i32]) -> Result<Vec<u16>, from_cri::Refusal> {
    let port = |(i, port): (usize, &i32)| {
        let at = format!("port[{i}]");
        number(&at, i64::from(*port), 1..=i64::from(u16::MAX))
    };
    wire.iter().enumerate().map(port).collect()
}

/// The way to the ports of a pod, which may be over when a client takes it.
fn dial(engine: Engine, pod: PodId) -> Dial {
    Arc::new(move |port| {
        let (engine, pod) = (engine.clone(), pod.clone());
        Box::pin(async move {
            let connected = engine.connect(&pod, port).await;
            let stream = connected.map_err(refusal)?;
            let (reading, writing) = stream.into_split();
            Ok(Connection {
                reading: Box::new(reading),
                writing: Box::new(writing),
                over: Box::pin(async move { engine.until_stopped(&pod).await }),
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_asked_for_as_cri_allows() {
        let asked = |stdin, stdout, stderr, terminal| {
            streams(Wanted {
                stdin,
                stdout,
                stderr,
                terminal,
            })
        };
        assert_eq!(asked(false, true, false, false), Ok(Streams::STDOUT));
        let shell = Streams::STDIN
            .with(Streams::STDOUT, true)
            .with(Streams::TERMINAL, true);
        assert_eq!(asked(true, true, false, true), Ok(shell));
        for terminal in [false, true] {
            assert!(asked(false, false, false, terminal).is_err());
        }
        let refused = asked(true, true, true, true).unwrap_err().to_string();
        assert!(refused.starts_with("stderr: "), "{refused}");
    }

    #[test]
    fn ends_are_told_as_they_are() {
        assert_eq!(ending(Ended::Exited(0)), End::Exited(0));
        assert_eq!(ending(Ended::Exited(128 + 64)), End::Exited(192));
        let lost = || "why".to_owned();
        assert_eq!(ending(Ended::Lost(lost())), End::Lost(lost()));
    }

    #[test]
    fn ports_are_those_of_tcp() {
        assert_eq!(ports(&[]), Ok(Vec::new()));
        assert_eq!(ports(&[1, 65535, 80, 80]), Ok(vec![1, 65535, 80, 80]));
        for bad in [0, -1, 65536, i32::MIN] {
            let refused = ports(&[80, bad]).unwrap_err().to_string();
            assert!(refused.starts_with("port[1]: "), "{refused}");
        }
    }
}
