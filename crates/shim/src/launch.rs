//! The way from a process that knows nothing to the shim of one container: the frames that come
//! before the launch, the launch itself, and the name that others find the shim by.
//!
//! The daemon may have started this process before it knew for which container. Then the last
//! argument is [`crisp_shim_api::SPARE`], and the container's id takes its place with the launch.

use std::os::fd::{AsFd, OwnedFd};

use crisp_shim_api::{Adoption, Launch, Opening};
use crisp_sys::socket::Conn;
use crisp_sys::{own_argument, process};

use crate::early::Early;
use crate::error::{Context, Error, Result};
use crate::ready::Ready;

/// The container of a shim, and how it comes to it.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It starts it, by the worker that was told of it ahead.
    Launch(Box<Launch>, Early),
    /// It takes it over, with these descriptors.
    Adoption(Box<Adoption>, Vec<OwnedFd>),
}

/// Waits for the launch or the adoption, and takes the container's id as its name. A worker does at
/// once what it is told before that, as far as it can be done.
///
/// # Errors
/// When the daemon is gone, or sent something else.
pub(crate) fn receive(conn: &Conn, ready: Option<&Ready>) -> Result<Begin> {
    let gone = || Error::NoLaunch("the daemon is gone".to_owned());
    let mut early = Early::default();
    let begin = loop {
        let message = conn.recv(crisp_shim_api::MAX_FRAME);
        let message = message.context(|| "receive the launch")?;
        let (bytes, fds) = message.ok_or_else(gone)?;
        let mut fds = fds.into_iter();
        if let Some(last_words) = fds.next() {
            process::place(last_words.as_fd(), 2).context(|| "open the shim's log")?;
        }
        match Opening::decode(&bytes).map_err(|error| Error::NoLaunch(error.to_string()))? {
            Opening::Ahead(ahead) => {
                if let Some(ready) = ready {
                    early.learn((ahead, &bytes), ready, conn);
                }
            }
            Opening::Launch(launch) => break Begin::Launch(launch, early),
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
