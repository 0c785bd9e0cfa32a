//! The way from a process that knows nothing to the shim of one container: what can be done before
//! the launch is known, the launch itself, and the name that others find the shim by.
//!
//! The daemon may have started this process before it knew for which container. Then the last
//! argument is [`crisp_shim_api::SPARE`], and the container's id takes its place with the launch.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crisp_shim_api::{Adoption, Launch, Opening};
use crisp_sys::cgroup::Layout;
use crisp_sys::socket::Conn;
use crisp_sys::{own_argument, process};

use crate::error::{Context, Error, Result};
use crate::foresight::Foresight;

/// A shim protects itself from the OOM killer as far as it may.
const OOM_SCORE_ADJ: i32 = -999;

/// The part of a shim that is the same for every container.
#[derive(Debug)]
pub(crate) struct Ready {
    pub layout: Arc<Layout>,
    /// `oom_score_adj` that this process was born with.
    pub oom_score_adj: i32,
    /// The standard input of processes that have none. Without it, each gets its own.
    pub empty_input: Option<OwnedFd>,
}

impl Ready {
    /// Makes this process what a shim has to be.
    pub(crate) fn new() -> Result<Self> {
        process::set_child_subreaper().context(|| "become a subreaper")?;
        // A shim that leads a session already is fine.
        drop(process::set_sid());
        process::set_umask(0o022);
        process::change_dir(std::path::Path::new("/")).context(|| "change to /")?;
        let path = "/proc/self/oom_score_adj";
        let born = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        process::set_oom_score_adj(own, OOM_SCORE_ADJ).context(|| "set oom_score_adj")?;
        let layout = Layout::detect().context(|| "find the cgroup hierarchies")?;
        Ok(Self {
            layout: Arc::new(layout),
            oom_score_adj: born.trim().parse().unwrap_or(0),
            empty_input: crisp_runtime::empty_input().ok(),
        })
    }
}

/// The container of a shim, and how it comes to it.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It starts it, with the steps that were taken ahead.
    Launch(Box<Launch>, Box<Foresight>),
    /// It takes it over, with these descriptors.
    Adoption(Box<Adoption>, Vec<OwnedFd>),
}

/// Waits for the launch or the adoption, and takes the container's id as its name. Steps that are
/// told before that are done at once, as far as they can be.
///
/// # Errors
/// When the daemon is gone, or sent something else.
pub(crate) fn receive(conn: &Conn) -> Result<Begin> {
    let gone = || Error::NoLaunch("the daemon is gone".to_owned());
    let mut foresight = Box::<Foresight>::default();
    let begin = loop {
        let message = conn.recv(crisp_shim_api::MAX_FRAME);
        let message = message.context(|| "receive the launch")?;
        let (bytes, fds) = message.ok_or_else(gone)?;
        let mut fds = fds.into_iter();
        if let Some(last_words) = fds.next() {
            process::place(last_words.as_fd(), 2).context(|| "open the shim's log")?;
        }
        match Opening::decode(&bytes).map_err(|error| Error::NoLaunch(error.to_string()))? {
            Opening::Ahead(ahead) => foresight.learn(&ahead),
            Opening::Launch(launch) => break Begin::Launch(launch, foresight),
            Opening::Adoption(adoption) => break Begin::Adoption(adoption, fds.collect()),
        }
    };
    let launch = match &begin {
        Begin::Launch(launch, _) => launch.as_ref(),
        Begin::Adoption(adoption, _) => &adoption.launch,
    };
    let id = launch.container_id.as_str();
    own_argument::replace_last(id)
        .context(|| format!("write container id {id} over the last argument"))?;
    // A daemon that starts from here on finds this shim by its name. A daemon that started earlier
    // may have found no shim and started the container anew: its predecessor's end is closed then.
    if conn.is_closed() {
        return Err(gone());
    }
    Ok(begin)
}
