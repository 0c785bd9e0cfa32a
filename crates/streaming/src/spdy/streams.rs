//! The streams that a client has opened on a connection, by their numbers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::stream::{Entry, Feed, Framing, Incoming, Outgoing, Pieces};
use crate::wire::Wire;

/// Most streams of a connection at a time: two for each connection that is forwarded.
const MOST: usize = 2000;

type Table = Arc<Mutex<HashMap<u32, Feed>>>;

/// The open streams.
#[derive(Default)]
pub(crate) struct Streams(Table);

/// A stream's place in the table, given back when both of its ends are dropped.
struct Place(Table, u32);

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(&self.1);
    }
}

impl Streams {
    /// Enters a stream and gives its ends; `None` when there are too many.
    pub(crate) fn open(&self, id: u32, wire: &Arc<Wire>) -> Option<(Incoming, Outgoing)> {
        let (feed, incoming) = Feed::new();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            return None;
        }
        table.insert(id, feed);
        let entry: Entry = Arc::new(Place(Arc::clone(&self.0), id));
        let outgoing = Outgoing::new(Arc::clone(wire), Framing::Spdy(id), &incoming);
        Some((
            incoming.kept_by(Arc::clone(&entry)),
            outgoing.kept_by(entry),
        ))
    }

    /// Where the data of a stream go; `None` when nobody wants them.
    pub(crate) fn pieces(&self, id: u32) -> Option<Pieces> {
        self.with(id, |feed| feed.pieces()).flatten()
    }

    /// The client sends no more on a stream.
    pub(crate) fn end(&self, id: u32) {
        self.with(id, Feed::end);
    }

    /// The client is done with a stream.
    pub(crate) fn reset(&self, id: u32) {
        self.with(id, Feed::reset);
    }

    /// Does something with a stream that is there; a stream that is not has been closed already.
    fn with<T>(&self, id: u32, act: impl FnOnce(&mut Feed) -> T) -> Option<T> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get_mut(&id).map(act)
    }
}
