//! Starts a container from an OCI runtime spec.
