//! Images as callers name them, and their credentials.

use crisp_api::runtime::v1 as cri;
use crisp_model::ImageSpec;
use crisp_registry::Credentials;

use super::Result;
use super::check::{labels, line, required, some_text};

/// An image that must be named.
pub(crate) fn spec(at: &str, wire: Option<cri::ImageSpec>) -> Result<ImageSpec> {
    let wire = required(at, wire)?;
    let image = some_text(&format!("{at}.image"), wire.image)?;
    let user_specified_image = line(
        &format!("{at}.user_specified_image"),
        wire.user_specified_image,
    )?;
    Ok(ImageSpec {
        image,
        user_specified_image,
        runtime_handler: line(&format!("{at}.runtime_handler"), wire.runtime_handler)?,
        annotations: labels(&format!("{at}.annotations"), wire.annotations)?,
    })
}

/// Credentials that say something.
pub(crate) fn credentials(wire: Option<cri::AuthConfig>) -> Option<Credentials> {
    let wire = wire.filter(|auth| {
        let parts = [&auth.username, &auth.password, &auth.auth];
        let tokens = [&auth.identity_token, &auth.registry_token];
        parts.iter().chain(&tokens).any(|part| !part.is_empty())
    })?;
    Some(Credentials {
        username: wire.username,
        password: wire.password,
        auth: wire.auth,
        identity_token: wire.identity_token,
        registry_token: wire.registry_token,
        server_address: wire.server_address,
    })
}
