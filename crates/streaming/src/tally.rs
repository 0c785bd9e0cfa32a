//! How many sessions there are, and how many there have been, of each kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number for each kind of session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByKind {
    /// Commands.
    pub exec: u64,
    /// Clients of containers themselves.
    pub attach: u64,
    /// Clients of ports of pods.
    pub port_forward: u64,
}

/// The sessions of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sessions {
    /// There are now.
    pub running: ByKind,
    /// Have begun since the server's start.
    pub begun: ByKind,
}

/// The running counts of a server. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Counts>);

/// Running and begun, for each kind in the order of [`Kind`].
#[derive(Debug, Default)]
struct Counts([[AtomicU64; 2]; 3]);

/// The kind of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
    PortForward,
}

/// A session that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Tally, Kind);

impl Tally {
    pub(crate) fn begin(&self, kind: Kind) -> Counted {
        let [running, begun] = self.of(kind);
        running.fetch_add(1, Ordering::Relaxed);
        begun.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone(), kind)
    }

    fn of(&self, kind: Kind) -> &[AtomicU64; 2] {
        let [exec, attach, port_forward] = &self.0.0;
        match kind {
            Kind::Exec => exec,
            Kind::Attach => attach,
            Kind::PortForward => port_forward,
        }
    }

    pub(crate) fn sessions(&self) -> Sessions {
        let each = |which: fn(&[AtomicU64; 2]) -> &AtomicU64| {
            let number = |kind| which(self.of(kind)).load(Ordering::Relaxed);
            ByKind {
                exec: number(Kind::Exec),
                attach: number(Kind::Attach),
                port_forward: number(Kind::PortForward),
            }
        };
        Sessions {
            running: each(|[running, _]| running),
            begun: each(|[_, begun]| begun),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let [running, _] = self.0.of(self.1);
        running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_kind() {
        let tally = Tally::default();
        let kept = tally.begin(Kind::Attach);
        drop(tally.begin(Kind::Attach));
        drop(tally.begin(Kind::PortForward));
        let all = tally.sessions();
        let (running, begun) = (all.running, all.begun);
        assert_eq!(
            (running.exec, running.attach, running.port_forward),
            (0, 1, 0)
        );
        assert_eq!((begun.exec, begun.attach, begun.port_forward), (0, 2, 1));
        drop(kept);
        assert_eq!(tally.sessions().running, ByKind::default());
    }
}
