//! The streaming server: started before any record is read, so that an address that is taken or a
//! certificate that cannot be used is told at once and has changed nothing.

use crisp_streaming::{Config, Error, Server};

use crate::exit::{Exit, Fatal};

/// Starts the server.
///
/// # Errors
/// When it cannot listen, or its certificate cannot be used: with the key to set.
pub async fn start(config: Config) -> Result<Server, Fatal> {
    if !config.listen.ip().is_loopback() && config.tls.is_none() {
        tracing::warn!(
            listen = %config.listen,
            "exec, attach and port-forward pass in the clear: set streaming.certificate and \
             streaming.key, or listen on loopback"
        );
    }
    let server = Server::start(config).await.map_err(|error| match error {
        Error::Listen { .. } => Fatal::new(
            Exit::CannotCreate,
            format!("{error}: set streaming.listen to an address of this node that is free"),
        ),
        other => Fatal::new(
            Exit::Config,
            format!("streaming.certificate: {other}: mend the files, or set others"),
        ),
    })?;
    tracing::info!(address = %server.address(), "the streaming server listens");
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisp_streaming::TlsFiles;

    #[tokio::test]
    async fn a_server_that_cannot_start_says_which_key_to_set() {
        let first = start(Config::default()).await.unwrap();
        let busy = Config {
            listen: first.address(),
            ..Config::default()
        };
        let refused = start(busy).await.unwrap_err();
        assert_eq!(refused.exit, Exit::CannotCreate);
        let text = refused.reason;
        assert!(
            text.contains(&first.address().to_string()) && text.contains("streaming.listen"),
            "{text}"
        );
        let dir = tempfile::tempdir().unwrap();
        let missing = Config {
            tls: Some(TlsFiles {
                certificate: dir.path().join("c.pem"),
                key: dir.path().join("k.pem"),
            }),
            ..Config::default()
        };
        let refused = start(missing).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Config);
        let text = refused.reason;
        assert!(
            text.contains("c.pem") && text.contains("streaming.certificate"),
            "{text}"
        );
    }
}
