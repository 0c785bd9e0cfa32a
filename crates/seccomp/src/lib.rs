//! OCI seccomp profile to BPF, per architecture. Pure.
