//! Connections that have shown no token yet: so many at a time. When there are more, the oldest gives
//! way, so that connections that say nothing keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Strangers at a time: each holds some kilobytes.
const MOST: usize = 256;

#[derive(Default)]
struct Seats {
    next: u64,
    /// By number, so that the first is the oldest. A sender that is dropped sends its stranger away.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// All strangers. Its clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Strangers(Arc<Mutex<Seats>>);

/// The place of one stranger, given back when it is dropped.
pub(crate) struct Seat {
    strangers: Strangers,
    number: u64,
    away: oneshot::Receiver<()>,
}

impl Strangers {
    /// A seat, if need be that of the oldest.
    pub(crate) fn seat(&self) -> Seat {
        let (stays, away) = oneshot::channel();
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.taken.len() >= MOST {
            seats.taken.pop_first();
        }
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, stays);
        Seat {
            strangers: self.clone(),
            number,
            away,
        }
    }
}

impl Seat {
    /// Returns once the stranger has to give way.
    pub(crate) async fn is_taken_away(&mut self) {
        (&mut self.away).await.ok();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = self.strangers.0.lock();
        let mut seats = seats.unwrap_or_else(PoisonError::into_inner);
        seats.taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_gives_way() {
        let strangers = Strangers::default();
        let mut seats: Vec<_> = (0..MOST).map(|_| strangers.seat()).collect();
        let is_away = |seat: &mut Seat| seat.is_taken_away().now_or_never().is_some();
        assert!(!seats.iter_mut().any(is_away));
        let one_more = strangers.seat();
        assert!(is_away(&mut seats[0]) && !seats[1..].iter_mut().any(is_away));
        drop(one_more);
        seats.remove(0);
        // A seat that was given back is free.
        seats.push(strangers.seat());
        assert!(!seats.iter_mut().any(is_away));
    }
}
