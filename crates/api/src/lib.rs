//! Generated CRI v1 types, server traits and clients.
//!
//! Everything comes from `proto/` at the root of the repository. The exceptions are how credentials
//! print themselves, and what servers decode.

#![forbid(unsafe_code)]

pub mod codec;

/// The package `runtime` of the wire.
pub mod runtime {
    /// CRI version 1.
    #[allow(
        missing_docs,
        missing_debug_implementations,
        clippy::all,
        clippy::pedantic,
        clippy::struct_excessive_bools,
        clippy::fn_params_excessive_bools,
        clippy::too_many_lines,
        reason = "generated; its documentation is the proto file"
    )]
    pub mod v1 {
        tonic::include_proto!("runtime.v1");
        include!(concat!(env!("OUT_DIR"), "/servers/runtime.v1.rs"));
    }
}

impl std::fmt::Debug for runtime::v1::AuthConfig {
    /// Shows whose credentials these are, and nothing that opens a door.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::runtime::v1::{AuthConfig, PullImageRequest};

    #[test]
    fn credentials_do_not_print() {
        let auth = AuthConfig {
            username: "u".into(),
            password: "hush".into(),
            auth: "hush".into(),
            identity_token: "hush".into(),
            registry_token: "hush".into(),
            server_address: "r.io".into(),
        };
        let request = PullImageRequest {
            auth: Some(auth),
            ..Default::default()
        };
        let text = format!("{request:?}");
        assert!(text.contains("r.io") && !text.contains("hush"), "{text}");
    }
}
