//! Requests, replies and events.

use crisp_model::Signal;
use oci_spec::runtime::{LinuxResources, Process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attach::{AttachRequest, CutOff};
use crate::streams::StreamEnd;
use crate::{Error, ExitRecord, MAX_FRAME, Result};

/// A frame from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToShim {
    /// Chosen by the daemon; the reply carries it.
    pub seq: u64,
    /// The request itself.
    pub request: Request,
}

/// A request of the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Send a signal to the container's init.
    Signal {
        /// Which; on the wire its number.
        signal: Signal,
    },
    /// Kill every process of the container.
    KillAll,
    /// Run a process in the container; descriptors: stdin (or `/dev/null`), stdout, stderr. A
    /// process with a terminal gets none, and the terminal's master comes with the reply.
    ///
    /// Only what differs from the container's own process is sent: that one stands in the bundle,
    /// and its environment may be longer than a frame. Words that are longer than a frame come in a
    /// file, the last of the descriptors ([`ExecRequest::set_words_apart`]).
    Exec(Box<ExecRequest>),
    /// Kill a process that was exec'd, and all its descendants, also those that outlived it.
    KillExec {
        /// Which.
        exec_id: String,
    },
    /// Pass the container's output on from now on. [`Event::Detached`] tells the end of it, to the
    /// connection that asked.
    Attach(Box<AttachRequest>),
    /// The answer to an Attach has come in time: its client is attached. Before, nothing that
    /// becomes of the attachment touches the container's input. A shim of an earlier version does
    /// not know this request, and does not wait for it.
    ConfirmAttach {
        /// Which.
        attach_id: String,
    },
    /// Close the container's standard input, which then brings what was written and an end. A
    /// terminal has no input that could be closed.
    CloseInput,
    /// Change limits.
    Update {
        /// The new limits; what is absent stays.
        resources: Box<LinuxResources>,
    },
    /// Close the log file and open it anew under its name.
    ReopenLog,
    /// Tell how the container is; while it is being launched, the answer waits for the outcome.
    State,
    /// The container is over and recorded: remove its cgroup and leave.
    Shutdown,
}

/// A process to run in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Chosen by the daemon, unique in the container: lowercase letters, digits and dashes.
    pub exec_id: String,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Where the program and its arguments are, if not in `args`.
    pub words: ExecWords,
    /// Its standard streams.
    pub streams: ExecStreams,
    /// Its fate when the asker's connection closes.
    pub orphan: Orphan,
    /// The whole process, instead of `args` and `streams` over the container's own. Daemons sent it
    /// before those two fields existed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<Process>>,
}

/// Where the words of a process to run are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecWords {
    /// In the frame.
    #[default]
    InFrame,
    /// In a file, whose descriptor is the last one of the request.
    InFile,
}

/// Words that are longer, as JSON, travel in a file.
const MAX_WORDS_IN_FRAME: usize = 64 * 1024;

/// The longest file of words that a shim reads, bytes. The kernel takes 2 MiB of them, of which JSON
/// may make six times as much.
pub const MAX_WORDS: u64 = 16 * 1024 * 1024;

impl ExecRequest {
    /// Takes words that are too long for a frame out of it: the contents of a file to send along.
    ///
    /// # Errors
    /// When they cannot be written as JSON.
    pub fn set_words_apart(&mut self) -> Result<Option<Vec<u8>>> {
        let what = "exec words";
        let text = serde_json::to_vec(&self.args);
        let text = text.map_err(|source| Error::Malformed { what, source })?;
        if text.len() <= MAX_WORDS_IN_FRAME {
            return Ok(None);
        }
        self.args = Vec::new();
        self.words = ExecWords::InFile;
        Ok(Some(text))
    }

    /// Puts words back that came in a file.
    ///
    /// # Errors
    /// When they are none.
    pub fn take_words(&mut self, text: &[u8]) -> Result<()> {
        self.args = decode("exec words", text)?;
        self.words = ExecWords::InFrame;
        Ok(())
    }
}

/// The standard streams of a process to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecStreams {
    /// The descriptors of the request.
    #[default]
    Descriptors,
    /// A terminal of its own.
    Terminal,
}

/// The fate of a process when the connection that asked for it closes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Orphan {
    /// It runs on.
    #[default]
    RunsOn,
    /// It is killed, and all its descendants: nobody is left who could want its outcome, or would
    /// end it at its deadline.
    IsKilled,
}

/// A frame from the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromShim {
    /// The answer to one request; `seq` 0 answers the launch.
    Reply {
        /// The request's number.
        seq: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened; sent to every connection.
    Event(Event),
}

/// Answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The container's program runs, or the one that was to be adopted does. Descriptors: init's
    /// pidfd, then `streams` in their order.
    Started {
        /// Host pid of init.
        pid: i32,
        /// Its start time, clock ticks since boot.
        start_time: u64,
        /// Warnings: the parts of the spec that could not be met to the letter, for the operator.
        warnings: Vec<String>,
        /// The streams that are lent.
        #[serde(default)]
        streams: Vec<StreamEnd>,
    },
    /// The exec'd process runs.
    Exec {
        /// Its host pid.
        pid: i32,
    },
    /// How the container is.
    State(StateReport),
    /// It could not be done.
    Failed {
        /// Which kind of failure.
        kind: FailureKind,
        /// The step that failed, and why, for the operator.
        message: String,
        /// The kernel's error number (errno(3)), if one is the cause. Older shims do not tell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errno: Option<i32>,
    },
}

impl Reply {
    /// A failure that the kernel has no number for.
    #[must_use]
    pub fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed {
            kind,
            message: message.into(),
            errno: None,
        }
    }
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The container could not be made or its program not started.
    Start,
    /// The process could not be exec'd.
    Exec,
    /// No such exec.
    NoSuchExec,
    /// The container is over.
    NotRunning,
    /// The kernel refused.
    Io,
    /// The container still runs: a shim leaves only when it is over.
    Running,
    /// This shim does not know the request: it is of another version.
    Unsupported,
}

/// How a container is. Descriptors while it runs: init's pidfd, then `streams` in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// Host pid of init.
    pub pid: i32,
    /// Its start time, clock ticks since boot.
    pub start_time: u64,
    /// Its end, once it is over.
    pub exit: Option<ExitRecord>,
    /// The streams that are lent.
    #[serde(default)]
    pub streams: Vec<StreamEnd>,
}

/// An event that a shim tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The container is over; the exit slot is written.
    Exited(ExitRecord),
    /// A process that was exec'd is over.
    ExecExited {
        /// Which.
        exec_id: String,
        /// How it ended.
        status: crisp_model::ExitStatus,
    },
    /// An attachment is over, and nothing more comes of it.
    Detached {
        /// Which.
        attach_id: String,
        /// The container's end, when all its output was passed on; `None` when the attachment was
        /// cut off.
        exit: Option<ExitRecord>,
        /// The reason for a cut. Older shims do not tell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut: Option<CutOff>,
    },
    /// The OOM killer struck in the container's cgroup; it may go on.
    Oom,
}

impl ToShim {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode("request", self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is not a request.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode("request", bytes)
    }
}

impl FromShim {
    /// The frame's bytes.
    ///
    /// # Errors
    /// When it is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode("reply", self)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// When it is neither a reply nor an event.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode("reply", bytes)
    }
}

pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::Malformed { what, source })?;
    let size = bytes.len();
    if size > MAX_FRAME {
        Err(Error::TooLong { what, size })
    } else {
        Ok(bytes)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| Error::Malformed { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttachedInput;

    #[test]
    fn frames_survive_the_wire() {
        let resources = Box::new(LinuxResources::default());
        for request in [
            Request::Signal {
                signal: Signal::TERM,
            },
            Request::KillAll,
            Request::Attach(Box::new(AttachRequest {
                attach_id: "a".to_owned(),
                sinks: vec![StreamEnd::Output, StreamEnd::Errors],
                input: AttachedInput::IsClosed,
                patience_ms: 7,
            })),
            Request::ConfirmAttach {
                attach_id: "a".to_owned(),
            },
            Request::CloseInput,
            Request::Update { resources },
            Request::State,
        ] {
            let frame = ToShim { seq: 7, request };
            assert_eq!(ToShim::decode(&frame.encode().unwrap()).unwrap(), frame);
        }
        let frame = FromShim::Reply {
            seq: 0,
            reply: Reply::Done,
        };
        assert_eq!(FromShim::decode(&frame.encode().unwrap()).unwrap(), frame);
    }

    #[test]
    fn a_failure_has_a_number_where_the_shim_tells_one() {
        let failed = |errno| FromShim::Reply {
            seq: 0,
            reply: Reply::Failed {
                kind: FailureKind::Start,
                message: "mkdir".to_owned(),
                errno,
            },
        };
        let older = br#"{"Reply":{"seq":0,"reply":{"Failed":{"kind":"Start","message":"mkdir"}}}}"#;
        assert_eq!(FromShim::decode(older).unwrap(), failed(None));
        assert_eq!(failed(None).encode().unwrap(), older);
        let newer = failed(Some(28));
        assert_eq!(FromShim::decode(&newer.encode().unwrap()).unwrap(), newer);
    }

    #[test]
    fn a_cut_has_a_reason_where_the_shim_tells_one() {
        let detached = |cut| {
            let attach_id = "a".to_owned();
            let exit = None;
            FromShim::Event(Event::Detached {
                attach_id,
                exit,
                cut,
            })
        };
        let older = br#"{"Event":{"Detached":{"attach_id":"a","exit":null}}}"#;
        assert_eq!(FromShim::decode(older).unwrap(), detached(None));
        assert_eq!(detached(None).encode().unwrap(), older);
        let told = detached(Some(CutOff::TooFarBehind));
        assert_eq!(FromShim::decode(&told.encode().unwrap()).unwrap(), told);
        let later = br#"{"Event":{"Detached":{"attach_id":"a","exit":null,"cut":"Whatever"}}}"#;
        let unknown = detached(Some(CutOff::Unknown));
        assert_eq!(FromShim::decode(later).unwrap(), unknown);
    }

    #[test]
    fn words_travel_apart_only_when_they_have_to() {
        let mut short = ExecRequest {
            args: vec!["ls".to_owned()],
            ..ExecRequest::default()
        };
        assert_eq!(short.set_words_apart().unwrap(), None);
        let args = vec!["echo".to_owned(), "\n".repeat(70_000)];
        let mut long = ExecRequest {
            args: args.clone(),
            ..ExecRequest::default()
        };
        let file = long.set_words_apart().unwrap().unwrap();
        assert_eq!((long.args.len(), long.words), (0, ExecWords::InFile));
        let request = Request::Exec(Box::new(long.clone()));
        ToShim { seq: 1, request }.encode().unwrap();
        long.take_words(&file).unwrap();
        assert_eq!((long.args, long.words), (args, ExecWords::InFrame));
        assert!(short.take_words(b"7").is_err());
    }

    #[test]
    fn older_daemons_send_the_whole_process() {
        let older = br#"{"seq":1,"request":{"Exec":{"exec_id":"e","process":
            {"terminal":true,"user":{"uid":0,"gid":0},"args":["ls"],"cwd":"/"}}}}"#;
        let Request::Exec(exec) = ToShim::decode(older).unwrap().request else {
            panic!("no exec");
        };
        assert_eq!((exec.orphan, exec.args.len()), (Orphan::RunsOn, 0));
        let args = exec.process.unwrap().args().clone();
        assert_eq!(args.as_deref(), Some(&["ls".to_owned()][..]));
    }

    #[test]
    fn newer_fields_are_ignored_and_garbage_is_named() {
        let newer = br#"{"seq":1,"request":{"Signal":{"signal":9,"how":"kindly"}},"trace":"x"}"#;
        assert_eq!(
            ToShim::decode(newer).unwrap().request,
            Request::Signal {
                signal: Signal::KILL
            }
        );
        assert!(
            ToShim::decode(b"{")
                .unwrap_err()
                .to_string()
                .contains("request")
        );
    }
}
