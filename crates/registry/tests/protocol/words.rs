//! Refusals name who refused, and why.

use crisp_registry::Error;

use crate::server::{Answer, Server};
use crate::{client, image};

async fn refusal(answer: Answer) -> String {
    let server = Server::start(move |_| answer.clone()).await;
    let error = client().resolve(&image(&server.address), None).await;
    let text = error.unwrap_err().to_string();
    text.replace(&server.address, "HOST")
}

#[tokio::test]
async fn the_registrys_own_words_are_told() {
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#;
    assert_eq!(
        refusal(Answer::new(404).body(unknown)).await,
        "HOST/a/b:t not found at HOST: 404 Not Found: NAME_UNKNOWN: repository name not known; \
         check the name and the tag or digest"
    );
    let page = "<html><head><title>Blocked by policy</title></head></html>";
    assert_eq!(
        refusal(Answer::new(403).body(page)).await,
        "HOST denies access to HOST/a/b:t: 403 Forbidden: Blocked by policy; ask for pull rights"
    );
    let long = refusal(Answer::new(404).body("x".repeat(1 << 20))).await;
    assert!(long.len() < 600, "{}", long.len());
}

/// A registry whose token server is elsewhere.
async fn with_realm(realm: String) -> (Server, Error) {
    let challenge = format!(r#"Bearer realm="{realm}""#);
    let server =
        Server::start(move |_| Answer::new(401).header("www-authenticate", challenge.clone()))
            .await;
    let error = client().resolve(&image(&server.address), None).await;
    (server, error.unwrap_err())
}

#[tokio::test]
async fn a_token_server_is_named_as_such() {
    // A port that was free a moment ago: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let (_server, error) = with_realm(format!("http://{nobody}/token")).await;
    let text = error.to_string();
    let start = format!("token server {nobody} is unavailable for ");
    assert!(text.starts_with(&start), "{text}");
    let tokens = Server::start(|_| Answer::new(404).body("no such path")).await;
    let (_server, error) = with_realm(format!("http://{}/token", tokens.address)).await;
    let text = error.to_string();
    assert!(matches!(error, Error::Protocol { .. }), "{text}");
    assert!(
        text.starts_with(&format!("token server {}", tokens.address)),
        "{text}"
    );
    assert!(text.ends_with("404 Not Found: no such path"), "{text}");
}
