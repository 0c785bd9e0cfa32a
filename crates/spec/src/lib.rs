//! Pod, container and image configuration to an OCI runtime spec. Pure.
