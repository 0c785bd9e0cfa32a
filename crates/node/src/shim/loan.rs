//! Copies of what only a shim has of its container: init's pidfd and the far ends of its standard
//! streams. They keep the container's pipes open when the shim is killed, and the shim that takes
//! its place gets them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crisp_shim_api::StreamEnd;
use crisp_sys::pidfd::PidFd;

use super::client::Connection;

/// Descriptors of one container that its shim lent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loan {
    /// Tells how init ended although its shim has gone.
    pub(crate) pidfd: Option<Arc<PidFd>>,
    streams: Arc<Vec<(StreamEnd, Arc<OwnedFd>)>>,
}

/// A connection to a shim, and what that one lends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) loan: Loan,
}

impl Loan {
    /// The descriptors of an answer. A shim of an earlier version lends none, or a pidfd alone.
    pub(crate) fn of(ends: &[StreamEnd], fds: Vec<OwnedFd>) -> Self {
        let mut fds = fds.into_iter();
        let pidfd = fds.next().map(|fd| Arc::new(PidFd::from(fd)));
        let streams = ends.iter().copied().zip(fds.map(Arc::new)).collect();
        Self {
            pidfd,
            streams: Arc::new(streams),
        }
    }

    /// A pidfd alone: of a container whose shim nobody has talked to yet.
    pub(crate) fn of_pidfd(pidfd: PidFd) -> Self {
        Self {
            pidfd: Some(Arc::new(pidfd)),
            ..Self::default()
        }
    }

    /// Takes what a shim lends in place of what an earlier one lent; what it does not lend stays.
    pub(crate) fn renew(&mut self, newer: Self) {
        if newer.pidfd.is_some() {
            self.pidfd = newer.pidfd;
        }
        if !newer.streams.is_empty() {
            self.streams = newer.streams;
        }
    }

    /// Whether there may be output that no shim has read.
    pub(crate) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Closes the streams: the container is over, and its last output is logged.
    pub(crate) fn close_streams(&mut self) {
        self.streams = Arc::default();
    }

    /// Closes the input: the container is to read its end.
    pub(crate) fn close_input(&mut self) {
        let others = self
            .streams
            .iter()
            .filter(|(end, _)| *end != StreamEnd::Input);
        self.streams = Arc::new(others.cloned().collect());
    }

    /// A copy of one stream; `None` when it is not lent.
    pub(crate) fn copy(&self, wanted: StreamEnd) -> Option<std::io::Result<OwnedFd>> {
        let (_, fd) = self.streams.iter().find(|(end, _)| *end == wanted)?;
        Some(fd.try_clone())
    }

    /// The streams for another shim, and which they are.
    pub(crate) fn copies(&self) -> std::io::Result<(Vec<StreamEnd>, Vec<OwnedFd>)> {
        let copy =
            |(end, fd): &(StreamEnd, Arc<OwnedFd>)| Ok((*end, fd.as_fd().try_clone_to_owned()?));
        self.streams.iter().map(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn pidfd() -> OwnedFd {
        let own = i32::try_from(std::process::id()).unwrap();
        PidFd::open(own).unwrap().into()
    }

    #[test]
    fn a_loan_keeps_a_pipe_open_until_it_is_given_back() {
        let (read, write) = crisp_sys::pipe::pipe().unwrap();
        let mut loan = Loan::of(&[StreamEnd::Output], vec![pidfd(), read]);
        let mut write = std::fs::File::from(write);
        write.write_all(b"kept").unwrap();
        // A shim that lends less takes nothing away.
        loan.renew(Loan::of(&[], vec![pidfd()]));
        let (ends, mut fds) = loan.copies().unwrap();
        assert_eq!(ends, [StreamEnd::Output]);
        let mut text = [0; 4];
        let mut copy = std::fs::File::from(fds.remove(0));
        copy.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"kept");
        drop(copy);
        write.write_all(b"more").unwrap();
        loan.close_streams();
        assert!(!loan.has_streams());
        let broken = write.write_all(b"lost").unwrap_err();
        assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
