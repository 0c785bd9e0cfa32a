//! Threads of a lane that wait a while for their next step: a start of one costs more than most
//! steps take.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a thread waits for a step before it ends.
const WAITS: Duration = Duration::from_secs(30);
/// As many wait at a time; more end at once.
const KEPT: usize = 4;

type Step = Box<dyn FnOnce() + Send>;

/// The threads that wait.
#[derive(Debug, Default)]
pub(crate) struct SpareThreads(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    threads: BTreeMap<u64, Sender<Step>>,
}

impl SpareThreads {
    /// Runs a step on a thread that waits, else on a new one. A panic in it ends the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn run(&self, name: &str, step: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut step: Step = Box::new(step);
        while let Some(waiting) = self.take() {
            match waiting.send(step) {
                Ok(()) => return Ok(()),
                Err(unsent) => step = unsent.0,
            }
        }
        let all = Arc::clone(&self.0);
        let live = move || {
            step();
            while let Some(next) = Waiting::wait(&all) {
                next();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(live).map(drop)
    }

    /// The latest to wait: its stack is still in the caches, and the others may end.
    fn take(&self) -> Option<Sender<Step>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.threads.pop_last().map(|(_, thread)| thread)
    }
}

impl Waiting {
    /// The next step of the present thread; `None` when it is to end.
    fn wait(all: &Mutex<Self>) -> Option<Step> {
        let (number, steps) = all.lock().unwrap_or_else(PoisonError::into_inner).enter()?;
        if let Ok(step) = steps.recv_timeout(WAITS) {
            return Some(step);
        }
        let mut waiting = all.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unwanted = waiting.threads.remove(&number).is_some();
        drop(waiting);
        // The caller that took its place in the list has a step for it.
        if is_unwanted { None } else { steps.recv().ok() }
    }

    fn enter(&mut self) -> Option<(u64, Receiver<Step>)> {
        if self.threads.len() >= KEPT {
            return None;
        }
        let (sender, steps) = channel();
        let number = self.next;
        self.next += 1;
        self.threads.insert(number, sender);
        Some((number, steps))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread::ThreadId;

    use super::*;

    /// Runs a step and waits until its thread waits for another.
    fn run(spare: &SpareThreads) -> ThreadId {
        let (told, tell) = channel();
        let step = move || told.send(std::thread::current().id()).unwrap();
        let before = spare.0.lock().unwrap().next;
        spare.run("t", step).unwrap();
        let thread = tell.recv().unwrap();
        while spare.0.lock().unwrap().next == before {
            std::thread::yield_now();
        }
        thread
    }

    #[test]
    fn steps_one_after_another_share_a_thread() {
        let spare = SpareThreads::default();
        let threads: BTreeSet<String> = (0..20).map(|_| format!("{:?}", run(&spare))).collect();
        assert_eq!(threads.len(), 1);
    }

    #[test]
    fn a_step_that_hangs_holds_its_own_thread_alone() {
        let spare = SpareThreads::default();
        let (go, stuck) = channel::<()>();
        let hang = move || {
            stuck.recv().ok();
        };
        spare.run("t", hang).unwrap();
        let others: BTreeSet<String> = (0..9).map(|_| format!("{:?}", run(&spare))).collect();
        assert_eq!(others.len(), 1);
        drop(go);
    }

    #[test]
    fn few_threads_are_kept() {
        let spare = SpareThreads::default();
        let (told, tell) = channel();
        let gates: Vec<Sender<()>> = (0..9)
            .map(|_| {
                let (go, stuck) = channel();
                let told = told.clone();
                let step = move || {
                    told.send(()).unwrap();
                    stuck.recv().ok();
                };
                spare.run("t", step).unwrap();
                go
            })
            .collect();
        (0..9).for_each(|_| tell.recv().unwrap());
        drop(gates);
        while spare.0.lock().unwrap().threads.len() < KEPT {
            std::thread::yield_now();
        }
        assert_eq!(spare.0.lock().unwrap().threads.len(), KEPT);
    }
}
