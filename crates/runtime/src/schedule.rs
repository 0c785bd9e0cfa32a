//! How a process is scheduled: policy, I/O priority, CPUs, memory, personality. Checked whole in the parent;
//! told to the kernel in the child, before the privileges that it takes are gone.

use crisp_sys::schedule::{self, Personality, Schedule};
use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, Linux, LinuxIOPriority, LinuxPersonality,
    LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};

use crate::error::{Context, Error, Result};
use crate::memory_policy::MemoryPolicy;
use crate::number_list::list;

/// How a process asks to be scheduled. An absent field stays as it is inherited.
#[derive(Debug)]
pub(crate) struct Scheduling {
    personality: Option<Personality>,
    policy: Option<Schedule>,
    io: Option<(u8, u8)>,
    memory: Option<MemoryPolicy>,
}

impl Scheduling {
    /// Personality and memory are the container's, the rest the process' own.
    pub(crate) fn of(container: Option<&Linux>, process: &Process) -> Result<Self> {
        let asked = container.and_then(|linux| linux.personality().as_ref());
        Ok(Self {
            personality: asked.map(personality).transpose()?,
            policy: process.scheduler().as_ref().map(policy).transpose()?,
            io: process
                .io_priority()
                .as_ref()
                .map(io_priority)
                .transpose()?,
            memory: MemoryPolicy::of(container)?,
        })
    }

    /// In the child.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(policy) = &self.policy {
            schedule::set_schedule(policy).context(|| "set the scheduler")?;
        }
        if let Some((class, level)) = self.io {
            schedule::set_io_priority(class, level).context(|| "set the I/O priority")?;
        }
        if let Some(personality) = self.personality {
            schedule::set_personality(personality).context(|| "set the personality")?;
        }
        self.memory.as_ref().map_or(Ok(()), MemoryPolicy::enter)
    }
}

fn personality(asked: &LinuxPersonality) -> Result<Personality> {
    if asked
        .flags()
        .as_ref()
        .is_some_and(|flags| !flags.is_empty())
    {
        let why = "no flag is known";
        return Err(Error::invalid("linux.personality.flags", why));
    }
    Ok(match asked.domain() {
        LinuxPersonalityDomain::PerLinux => Personality::Linux,
        LinuxPersonalityDomain::PerLinux32 => Personality::Linux32,
    })
}

/// The kernel overlooks what does not go with a policy; here that is refused.
fn policy(scheduler: &Scheduler) -> Result<Schedule> {
    use LinuxSchedulerPolicy as Policy;
    let refuse =
        |field: &str, why: &str| Err(Error::invalid(format!("process.scheduler.{field}"), why));
    let (nice, priority) = (
        scheduler.nice().unwrap_or(0),
        scheduler.priority().unwrap_or(0),
    );
    let times = [
        scheduler.runtime(),
        scheduler.deadline(),
        scheduler.period(),
    ];
    let [runtime, deadline, period] = times.map(|time| time.unwrap_or(0));
    let asked = *scheduler.policy();
    if !(-20..=19).contains(&nice) {
        return refuse("nice", "is not from -20 to 19");
    }
    if priority != 0 && !matches!(asked, Policy::SchedFifo | Policy::SchedRr) {
        return refuse("priority", "goes with SCHED_FIFO and SCHED_RR alone");
    }
    if asked != Policy::SchedDeadline && runtime | deadline | period != 0 {
        return refuse(
            "runtime",
            "goes with SCHED_DEADLINE alone, as deadline and period do",
        );
    }
    let Ok(priority) = u32::try_from(priority) else {
        return refuse("priority", "is negative");
    };
    let flags = scheduler.flags().iter().flatten();
    Ok(Schedule {
        policy: match asked {
            Policy::SchedOther => 0,
            Policy::SchedFifo => 1,
            Policy::SchedRr => 2,
            Policy::SchedBatch => 3,
            Policy::SchedIso => 4,
            Policy::SchedIdle => 5,
            Policy::SchedDeadline => 6,
        },
        flags: flags.fold(0, |bits, flag| bits | flag_bit(*flag)),
        nice,
        priority,
        runtime,
        deadline,
        period,
    })
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag as Flag;
    match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(asked: &LinuxIOPriority) -> Result<(u8, u8)> {
    let class = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(asked.priority()) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(Error::invalid(
            "process.ioPriority.priority",
            "is not from 0 to 7",
        )),
    }
}

/// The CPUs of an exec'd process before and after its entry into the container's cgroup.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpus {
    initial: Option<Vec<u32>>,
    last: Option<Vec<u32>>,
}

impl Cpus {
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let Some(asked) = process.exec_cpu_affinity() else {
            return Ok(Self::default());
        };
        let asked: &ExecCPUAffinity = asked;
        Ok(Self {
            initial: cpus("initial", asked.initial().as_deref())?,
            last: cpus("final", asked.cpu_affinity_final().as_deref())?,
        })
    }

    /// In the parent, from which the child inherits them.
    pub(crate) fn before(&self) -> Result<()> {
        match &self.initial {
            Some(cpus) => schedule::use_cpus(cpus.iter().copied())
                .context(|| format!("run on the CPUs {cpus:?} first")),
            None => Ok(()),
        }
    }

    /// In the child, once it is in its cgroup. The CPUs that the runtime itself is confined to are
    /// none of the container's concern; those that were asked for are.
    pub(crate) fn after(&self) -> Result<Option<String>> {
        match (&self.last, &self.initial) {
            (Some(cpus), _) => schedule::use_cpus(cpus.iter().copied())
                .context(|| format!("run on the CPUs {cpus:?}"))
                .map(|()| None),
            (None, Some(_)) => Ok(None),
            (None, None) => Ok(leave_cpus_of_caller()),
        }
    }
}

/// Failing leaves fewer CPUs, so it is told and no more.
pub(crate) fn leave_cpus_of_caller() -> Option<String> {
    let failed = schedule::use_all_cpus().err()?;
    Some(format!(
        "the container keeps the CPUs of its runtime: {failed}"
    ))
}

fn cpus(name: &str, text: Option<&str>) -> Result<Option<Vec<u32>>> {
    let field = format!("process.execCPUAffinity.{name}");
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| list(&field, "CPUs", text, schedule::CPUS))
        .transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn lists_of_cpus_are_the_kernels() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            ("8191", Some(vec![8191])),
            ("8192", None),
            ("2-1", None),
            ("1-", None),
            ("x", None),
            ("-1", None),
        ] {
            let read = cpus("final", Some(text)).ok().flatten();
            assert_eq!(read, expected, "{text}");
        }
        assert_eq!(cpus("final", Some("")).unwrap(), None);
    }

    #[test]
    fn only_what_goes_together_is_scheduled() {
        let read = |process: Value| {
            let mut whole = json!({ "user": {}, "cwd": "/" });
            whole
                .as_object_mut()
                .unwrap()
                .extend(process.as_object().unwrap().clone());
            let process: Process = serde_json::from_value(whole).unwrap();
            Scheduling::of(None, &process).map_err(|error| error.to_string())
        };
        let good = read(json!({ "scheduler": { "policy": "SCHED_BATCH", "nice": 5 },
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE" } }));
        let good = good.unwrap();
        let policy = good.policy.unwrap();
        assert_eq!((policy.policy, policy.nice, good.io), (3, 5, Some((3, 0))));
        for (process, field) in [
            (
                json!({ "scheduler": { "policy": "SCHED_OTHER", "nice": 20 } }),
                "scheduler.nice",
            ),
            (
                json!({ "scheduler": { "policy": "SCHED_OTHER", "priority": 1 } }),
                "scheduler.priority",
            ),
            (
                json!({ "scheduler": { "policy": "SCHED_FIFO", "priority": -1 } }),
                "scheduler.priority",
            ),
            (
                json!({ "scheduler": { "policy": "SCHED_FIFO", "period": 1 } }),
                "scheduler.runtime",
            ),
            (
                json!({ "ioPriority": { "priority": 8 } }),
                "ioPriority.priority",
            ),
            (
                json!({ "ioPriority": { "priority": -1 } }),
                "ioPriority.priority",
            ),
        ] {
            let error = read(process).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
