//! How the kernel schedules a process that has one thread, or a thread: policy, slices, I/O priority,
//! CPUs, memory, personality.

use std::io;

use crate::syscall::{check, check_int};

/// The arguments of sched_setattr(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// `SCHED_OTHER` is 0, `SCHED_FIFO` 1, and so on (sched.h).
    pub policy: u32,
    /// Bits of `SCHED_FLAG_*`.
    pub flags: u64,
    /// Of the ordinary policies.
    pub nice: i32,
    /// Of the real-time policies.
    pub priority: u32,
    /// Of `SCHED_DEADLINE`, in nanoseconds, as the next two.
    pub runtime: u64,
    /// Time until it has had its runtime.
    pub deadline: u64,
    /// Time until it gets its runtime again.
    pub period: u64,
}

/// Sets the scheduling policy of this thread.
///
/// # Errors
/// The errors of sched_setattr(2); EPERM without `CAP_SYS_NICE`.
pub fn set_schedule(schedule: &Schedule) -> io::Result<()> {
    set_schedule_of(0, schedule)
}

/// Has a process that has one thread run when a processor has nothing else to do, or as usual again.
/// The process has to be a child of this one that nobody has reaped, so that the id is its own.
///
/// # Errors
/// The errors of sched_setattr(2); EPERM for the way back without `CAP_SYS_NICE` (sched(7)).
pub fn set_idle(child: u32, is_idle: bool) -> io::Result<()> {
    let policy = match is_idle {
        true => libc::SCHED_IDLE,
        false => libc::SCHED_OTHER,
    };
    let usual = Schedule {
        policy: policy.unsigned_abs(),
        ..Schedule::default()
    };
    set_schedule_of(child, &usual)
}

/// The process 0 is this thread.
fn set_schedule_of(process: u32, schedule: &Schedule) -> io::Result<()> {
    // The first published size of the structure, which every kernel that has the call takes.
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        sched_policy: schedule.policy,
        sched_flags: schedule.flags,
        sched_nice: schedule.nice,
        sched_priority: schedule.priority,
        sched_runtime: schedule.runtime,
        sched_deadline: schedule.deadline,
        sched_period: schedule.period,
    };
    let pointer: *const libc::sched_attr = &raw const attributes;
    // SAFETY: the structure has the size that it tells and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, process, pointer, 0) }).map(drop)
}

/// The shortest slice of time that the kernel gives, in nanoseconds.
const SHORT_SLICE: u64 = 100_000;

/// Asks for short slices of time, which come sooner: from Linux 6.12 on, a thread that is woken to
/// answer somebody does not wait until a program that has just begun has had its whole slice. Its
/// share of time stays the same, and its children have slices of the usual length. A policy or
/// priority that was chosen for this process is left alone, since children would lose it.
///
/// # Errors
/// The errors of `sched_getattr(2)` and `sched_setattr(2)`.
pub fn take_short_slices() -> io::Result<()> {
    let present = schedule()?;
    let is_usual = present.policy == libc::SCHED_OTHER.unsigned_abs() && present.nice >= 0;
    if !is_usual || present.flags != 0 {
        return Ok(());
    }
    set_schedule(&Schedule {
        flags: libc::SCHED_FLAG_RESET_ON_FORK.unsigned_abs().into(),
        runtime: SHORT_SLICE,
        ..present
    })
}

fn schedule() -> io::Result<Schedule> {
    schedule_of(0)
}

fn schedule_of(process: u32) -> io::Result<Schedule> {
    let mut found = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of::<libc::sched_attr>();
    let pointer: *mut libc::sched_attr = &raw mut found;
    // SAFETY: the structure has the size that is told and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, process, pointer, size, 0) })?;
    Ok(Schedule {
        policy: found.sched_policy,
        flags: found.sched_flags,
        nice: found.sched_nice,
        priority: found.sched_priority,
        runtime: found.sched_runtime,
        deadline: found.sched_deadline,
        period: found.sched_period,
    })
}

/// Sets the I/O priority of this thread: a class (1 real time, 2 best effort, 3 idle) and a level in
/// it, 0 the highest, 7 the lowest.
///
/// # Errors
/// The errors of ioprio_set(2); EPERM for the first class without `CAP_SYS_NICE`.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: the call takes numbers alone.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, value) }).map(drop)
}

/// The greatest number of CPUs that the kernel can be told of, plus one.
pub const CPUS: u32 = 8192;

/// Confines this thread to some CPUs.
///
/// # Errors
/// EINVAL when none of them may be used.
pub fn use_cpus(cpus: impl IntoIterator<Item = u32>) -> io::Result<()> {
    let mut mask = [0_u64; (CPUS / 64) as usize];
    for cpu in cpus {
        let word = mask.get_mut((cpu / 64) as usize).ok_or_else(|| {
            let text = format!("CPU {cpu}: the greatest number is {}", CPUS - 1);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        *word |= 1 << (cpu % 64);
    }
    set_mask(&mask)
}

/// Lets this process run on every CPU that its cgroup allows, instead of those that it inherited.
///
/// # Errors
/// The errors of sched_setaffinity(2).
pub fn use_all_cpus() -> io::Result<()> {
    // The kernel takes away what is not allowed, and ignores CPUs beyond its greatest number.
    set_mask(&[u64::MAX; (CPUS / 64) as usize])
}

fn set_mask(mask: &[u64]) -> io::Result<()> {
    let size = std::mem::size_of_val(mask);
    // SAFETY: the mask has the size that is told and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, mask.as_ptr()) }).map(drop)
}

/// The greatest number of memory nodes that a policy can name, plus one: that of Linux.
pub const NODES: u32 = 1024;

/// Sets from which nodes this thread and its children get memory: a mode of mempolicy.h with its
/// flags, and the nodes.
///
/// # Errors
/// EINVAL for nodes that are not there or that the cgroup does not allow, ENOSYS where the kernel
/// knows one node alone.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> io::Result<()> {
    let mut mask = [0_u64; (NODES / 64) as usize];
    for node in nodes {
        let word = mask.get_mut((node / 64) as usize).ok_or_else(|| {
            let text = format!("node {node}: the greatest number is {}", NODES - 1);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        *word |= 1 << (node % 64);
    }
    // The kernel takes one bit less than it is told.
    let bits = NODES + 1;
    // SAFETY: the mask has as many bits as the kernel reads, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) }).map(drop)
}

/// Makes this process appear to run on a 32-bit machine (`uname -m`), or as it is.
///
/// # Errors
/// The errors of personality(2).
pub fn set_personality(bits: Personality) -> io::Result<()> {
    let domain = match bits {
        Personality::Linux => 0,
        Personality::Linux32 => 8,
    };
    // SAFETY: the call takes a number alone.
    check_int(unsafe { libc::personality(domain) }).map(drop)
}

/// A domain of personality(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personality {
    /// The machine as it is.
    Linux,
    /// Its 32-bit sibling.
    Linux32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_idles_and_goes_on() {
        let mut child = crate::process::command("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let policy = || schedule_of(child.id()).unwrap().policy;
        let usual = policy();
        set_idle(child.id(), true).unwrap();
        assert_eq!(policy(), libc::SCHED_IDLE.unsigned_abs());
        set_idle(child.id(), false).unwrap();
        assert_eq!(policy(), usual);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }

    /// On a thread of its own, since the flag stays.
    #[test]
    fn short_slices_are_a_threads_own() {
        let usual = schedule().unwrap();
        let inner = || std::thread::spawn(|| schedule().unwrap()).join().unwrap();
        let outer = std::thread::spawn(move || {
            take_short_slices().unwrap();
            take_short_slices().unwrap();
            (schedule().unwrap(), inner())
        });
        let (short, inherited) = outer.join().unwrap();
        assert_eq!((short.policy, short.nice), (usual.policy, usual.nice));
        assert_ne!(short.flags, usual.flags);
        assert_eq!(
            (inherited.flags, inherited.runtime),
            (usual.flags, usual.runtime)
        );
        // Older kernels tell of no slices.
        if usual.runtime != 0 {
            assert_eq!(short.runtime, SHORT_SLICE);
        }
    }
}
