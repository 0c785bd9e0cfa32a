//! One process a container: owns cgroup, stdio, log and exit status.
