//! The kernel's verbs: mounts, namespaces, pidfds, cgroup files, ptys, atomic files.
