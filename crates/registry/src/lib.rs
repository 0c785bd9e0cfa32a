//! The distribution protocol: hosts, mirrors, auth, ranges, retries.
