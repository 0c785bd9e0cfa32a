//! Killing one by one, where the kernel does not kill a cgroup as a whole.
//!
//! A pid that was read may belong to another process by now: it is opened as a pidfd, and looked
//! for again in the cgroup, before it is signalled. Most cgroups are empty after one turn. Where new
//! processes have appeared meanwhile, something forks: from then on the cgroup is frozen while its
//! processes are signalled.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::files::write_file;
use super::{Cgroup, tree};
use crate::pidfd::PidFd;

const WITHIN: Duration = Duration::from_secs(1);
/// How long processes that the kernel was told to kill may take: most are gone in less, and each look
/// at a cgroup of version 1 reads a file of ten hierarchies.
const DIES_WITHIN: Duration = Duration::from_millis(2);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long the freezer may take; processes in uninterruptible sleep never freeze.
const FREEZES_WITHIN: Duration = Duration::from_millis(50);
/// Descriptors that are open at once.
const AT_ONCE: usize = 64;
const MOST_NAMED: usize = 10;
const SIGKILL: i32 = 9;

impl Cgroup {
    /// Kills every process in it and below it, also those that are being forked. Where the kernel
    /// does it, on version 2, their end is not waited for; else they have ended, reaped or not,
    /// when it returns.
    ///
    /// # Errors
    /// The errors of writing `cgroup.kill` where the kernel has it; else of reading the processes,
    /// and
    /// `TimedOut` when some are there a second later: in uninterruptible sleep, they end when the
    /// kernel lets go of them.
    pub fn kill(&self) -> io::Result<()> {
        if let Some(dir) = self.unified_dir() {
            match write_file(&dir.join("cgroup.kill"), "1") {
                // Version 1 hierarchies may hold strangers that never were in the unified tree.
                Ok(()) if self.layout.is_v2() => return Ok(()),
                Ok(()) => return each(self, DIES_WITHIN),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        each(self, Duration::ZERO)
    }
}

/// Kills until no process is left. The processes that are found first may be dying already, and have
/// some time for it.
fn each(cgroup: &Cgroup, mut patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + WITHIN;
    let mut pause = FIRST_PAUSE;
    let mut seen = BTreeSet::new();
    let mut somebody_forks = false;
    loop {
        let held = somebody_forks.then(|| Still::hold(cgroup));
        let turn = one_turn(cgroup, patience);
        drop(held);
        patience = Duration::ZERO;
        let Turn { alive, ended } = turn?;
        if alive.is_empty() && ended.is_empty() {
            return Ok(());
        }
        if seen.is_empty() {
            // Processes that were frozen before do not end.
            thaw(cgroup);
        } else {
            somebody_forks |= alive.iter().any(|pid| !seen.contains(pid));
        }
        if Instant::now() > deadline {
            return Err(survivors(cgroup, &alive));
        }
        let has_rest = !alive.is_empty();
        seen.extend(alive);
        seen.extend(ended);
        if has_rest {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The processes that one turn met.
#[derive(Default)]
struct Turn {
    /// They were sent SIGKILL.
    alive: Vec<i32>,
    /// They were dying and have ended meanwhile. Their children may be there still.
    ended: Vec<i32>,
}

/// Sends SIGKILL to every process of the cgroup that does not end by itself in time.
fn one_turn(cgroup: &Cgroup, patience: Duration) -> io::Result<Turn> {
    let mut turn = Turn::default();
    let until = Instant::now() + patience;
    for pids in cgroup.procs()?.chunks(AT_ONCE) {
        signal(cgroup, pids, until, &mut turn)?;
    }
    Ok(turn)
}

fn signal(cgroup: &Cgroup, pids: &[i32], until: Instant, turn: &mut Turn) -> io::Result<()> {
    let mut opened = Vec::with_capacity(pids.len());
    for &pid in pids {
        match PidFd::open(pid) {
            // Ended, reaped or not. A leader that ended before its threads has not.
            Ok(process) if process.has_exited() => {}
            Ok(process) => opened.push((pid, process)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            // Descriptors have run out: the others' turn comes when these have ended.
            Err(_) if !opened.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    opened.retain(|(pid, process)| {
        let left = until.saturating_duration_since(Instant::now());
        let has_ended = process.ends_within(left).unwrap_or(false);
        turn.ended.extend(has_ended.then_some(*pid));
        !has_ended
    });
    if opened.is_empty() {
        return Ok(());
    }
    let members: BTreeSet<i32> = cgroup.procs()?.into_iter().collect();
    let is_gone = |error: io::Error| error.raw_os_error() == Some(libc::ESRCH);
    let signalled = opened.iter().filter(|(pid, process)| {
        members.contains(pid) && !process.signal(SIGKILL).is_err_and(is_gone)
    });
    turn.alive.extend(signalled.map(|(pid, _)| *pid));
    Ok(())
}

/// Holds a cgroup frozen: none of its processes runs, and so none forks, as long as this lives.
struct Still<'a>(Option<&'a Cgroup>);

impl<'a> Still<'a> {
    /// Version 1 alone: a kernel without `cgroup.kill` is so old that version 2 is not worth the
    /// way. Best effort: who cannot be frozen is signalled all the same.
    fn hold(cgroup: &'a Cgroup) -> Self {
        if cgroup.layout().is_v2() || cgroup.freeze().is_err() {
            return Self(None);
        }
        let begun = Instant::now();
        let is_still = || {
            let state = cgroup.read("freezer", "freezer.state");
            state.is_ok_and(|state| state.trim() == "FROZEN")
        };
        while !is_still() && begun.elapsed() < FREEZES_WITHIN {
            std::thread::sleep(FIRST_PAUSE);
        }
        Self(Some(cgroup))
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0 {
            thaw(cgroup);
        }
    }
}

/// A frozen process of version 1 takes its signals when it is thawed, whoever froze it: also the
/// container itself, in a cgroup of its own below. Best effort: without a freezer nobody is frozen.
fn thaw(cgroup: &Cgroup) {
    if cgroup.layout().is_v2() {
        return;
    }
    if let Some(dir) = cgroup.dir("freezer") {
        tree::visit(&dir, &mut |dir| {
            drop(write_file(&dir.join("freezer.state"), "THAWED"));
        });
    }
}

fn survivors(cgroup: &Cgroup, alive: &[i32]) -> io::Error {
    let named: Vec<String> = alive
        .iter()
        .take(MOST_NAMED)
        .map(ToString::to_string)
        .collect();
    let text = format!(
        "{} processes of {} are there {WITHIN:?} after they were killed, among them {}",
        alive.len(),
        cgroup.path(),
        named.join(", ")
    );
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use std::process::Child;
    use std::sync::Arc;

    use super::super::Layout;
    use super::*;

    struct Bench(Cgroup);

    impl Bench {
        fn new(name: &str) -> Self {
            let layout = Arc::new(Layout::detect().unwrap());
            let name = format!("crisp-sys-test-{name}-{}", std::process::id());
            let cgroup = Cgroup::new(layout, &name);
            cgroup.create().unwrap();
            Self(cgroup)
        }

        fn run(&self, script: &str) -> Child {
            run(&self.0, script)
        }
    }

    fn run(cgroup: &Cgroup, script: &str) -> Child {
        let mut shell = crate::process::command("sh");
        let mut child = shell
            .args(["-c", &format!("read go; {script}")])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        cgroup.attach(i32::try_from(child.id()).unwrap()).unwrap();
        drop(child.stdin.take());
        child
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            thaw(&self.0);
            drop(self.0.kill());
            drop(self.0.remove());
        }
    }

    #[test]
    fn privileged_those_who_fork_faster_than_one_looks_end_too() {
        let bench = Bench::new("forks");
        // A machine whose killers are slow is not to be flooded.
        bench.0.write("pids", "pids.max", "2000").unwrap();
        let mut shells: Vec<Child> = (0..4)
            .map(|_| bench.run("while :; do (sleep 1000 & sleep 1000) & done"))
            .collect();
        std::thread::sleep(Duration::from_millis(30));
        // More than one look's worth; what is born meanwhile is found by the next. On a busy machine
        // the dying need longer than one call waits, and callers ask again.
        let deadline = Instant::now() + 30 * WITHIN;
        while let Err(error) = each(&bench.0, Duration::ZERO) {
            assert!(Instant::now() < deadline, "{error}");
        }
        for shell in &mut shells {
            shell.wait().unwrap();
        }
        let alive = bench.0.procs().unwrap().into_iter();
        let alive = alive.filter(|pid| PidFd::open(*pid).is_ok_and(|p| !p.has_exited()));
        assert_eq!(alive.count(), 0);
    }

    #[test]
    fn privileged_who_is_frozen_ends_and_a_zombie_keeps_nobody() {
        let bench = Bench::new("frozen");
        let frozen = [bench.0.child("one"), bench.0.child("other")];
        let mut children = Vec::new();
        for cgroup in &frozen {
            cgroup.create().unwrap();
            children.push(run(cgroup, "sleep 1000"));
        }
        frozen[0].freeze().unwrap();
        bench.0.freeze().unwrap();
        // Their parent, this test, has not reaped them when this returns.
        each(&bench.0, Duration::ZERO).unwrap();
        each(&bench.0, Duration::ZERO).unwrap();
        for child in &mut children {
            child.wait().unwrap();
        }
    }

    #[test]
    fn privileged_survivors_are_told_of_in_time() {
        let bench = Bench::new("survivor");
        if bench.0.layout().is_v2() {
            return;
        }
        let inner = bench.0.child("inner");
        inner.create().unwrap();
        let mut child = bench.run("sleep 1000");
        let pid = i32::try_from(child.id()).unwrap();
        inner.attach(pid).unwrap();
        // As in uninterruptible sleep: what the cgroup above has frozen cannot be thawed here.
        bench.0.freeze().unwrap();
        let begun = Instant::now();
        let error = each(&inner, DIES_WITHIN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains(&pid.to_string()), "{error}");
        assert!(begun.elapsed() < 3 * WITHIN);
        bench.0.thaw().unwrap();
        child.wait().unwrap();
        each(&bench.0, Duration::ZERO).unwrap();
    }

    #[test]
    fn privileged_many_end_in_a_few_handfuls() {
        let bench = Bench::new("many");
        let mut shells: Vec<Child> = (0..2 * AT_ONCE).map(|_| bench.run("sleep 1000")).collect();
        each(&bench.0, Duration::ZERO).unwrap();
        for shell in &mut shells {
            shell.wait().unwrap();
        }
    }

    /// A process that the kernel was not told to kill is killed all the same, once the time is over.
    #[test]
    fn privileged_dying_ones_are_waited_for_and_strangers_signalled() {
        let bench = Bench::new("dying");
        let mut dying = bench.run("exec sleep 1000");
        dying.kill().unwrap();
        let turn = one_turn(&bench.0, Duration::from_secs(60)).unwrap();
        assert!(turn.alive.is_empty());
        dying.wait().unwrap();
        let mut stranger = bench.run("exec sleep 1000");
        let turn = one_turn(&bench.0, Duration::from_millis(1)).unwrap();
        assert_eq!(turn.alive, [i32::try_from(stranger.id()).unwrap()]);
        assert!(turn.ended.is_empty());
        stranger.wait().unwrap();
        let turn = one_turn(&bench.0, Duration::ZERO).unwrap();
        assert!(turn.alive.is_empty() && turn.ended.is_empty());
    }
}
