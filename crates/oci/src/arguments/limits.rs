//! Arguments of `update`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// File with linux.resources as config.json has it, `-` for the standard input
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    pub resources: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Id of the container
    pub id: String,
}

/// Limits as flags; sizes may end in k, m, g or t.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Weight of the container's block I/O
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU time a period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time a period that may be saved up, in microseconds
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// CPU weight
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// Whether it runs only on idle CPUs: 1 or 0
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// Period of the time for real-time tasks in microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Time for real-time tasks a period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs it may use
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that is protected or softly limited
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together, -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Share of the third-level cache, as resctrl writes it; for a container with linux.intelRdt
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Share of the memory bandwidth, as resctrl writes it; for a container with linux.intelRdt
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Former limit of the kernel's memory: Linux has none any more (ignored)
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// As --kernel-memory
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Number of tasks, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
}
