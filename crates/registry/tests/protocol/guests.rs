//! Hosts that a registry redirects to, and that want a token of their own.

use crisp_registry::{Credentials, Error};

use crate::server::{Answer, Seen, Server};
use crate::{MANIFEST, MANIFEST_TYPE, client, client_with, image, sha256};

/// A registry that gives a manifest and a blob to those who have a token from its own `/token`,
/// which it gives to those whose `Authorization` there is `wanted`.
async fn second(wanted: Option<&'static str>) -> Server {
    Server::start(move |seen| {
        let host = seen.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="b""#);
        match seen.header("authorization") {
            shown if seen.target.starts_with("/token") => match shown == wanted {
                true => Answer::new(200).body(r#"{"token":"guest","expires_in":300}"#),
                false => Answer::new(401),
            },
            Some("Bearer guest") if seen.target.contains("/blobs/") => {
                Answer::new(200).body("blob")
            }
            Some("Bearer guest") => Answer::new(200)
                .header("content-type", MANIFEST_TYPE)
                .body(MANIFEST),
            _ => Answer::new(401).header("www-authenticate", challenge),
        }
    })
    .await
}

/// A registry that sends all on to another one.
async fn front(second: &Server) -> Server {
    let second = second.address.clone();
    let onward = move |seen: &Seen| {
        let location = format!("http://{second}{}", seen.target);
        Answer::new(307).header("location", location)
    };
    Server::start(onward).await
}

/// No request to this registry carried an `Authorization`.
fn assert_no_secret(server: &Server) {
    let shown = server.seen();
    let mut shown = shown.iter().map(|seen| seen.header("authorization"));
    assert!(shown.all(|secret| secret.is_none()));
}

const DOCKER: &str = "Basic aDpi";

#[tokio::test]
async fn the_challenge_of_a_second_host_is_answered() {
    let second = second(None).await;
    let front = front(&second).await;
    let client = client();
    let image = image(&front.address);
    let found = client.resolve(&image, None).await.unwrap();
    assert_eq!(&found.body[..], MANIFEST);
    let digest = sha256(b"blob");
    let blob = client.small_blob(&image, &digest, 10, None).await.unwrap();
    assert_eq!(&blob[..], b"blob");
    assert_eq!(second.count("/token"), 1, "the token is kept");
    assert_no_secret(&front);
}

#[tokio::test]
async fn what_is_meant_for_a_second_host_by_name_is_shown_to_it_alone() {
    let second = second(Some(DOCKER)).await;
    let front = front(&second).await;
    let named = Credentials {
        auth: "aDpi".to_owned(),
        server_address: second.address.clone(),
        ..Credentials::default()
    };
    let image = image(&front.address);
    client().resolve(&image, Some(&named)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"aDpi"}}}}}}"#, second.address);
    let with_file = client_with(dir.path(), Some(&text));
    with_file.resolve(&image, None).await.unwrap();
    assert_no_secret(&front);
}

#[tokio::test]
async fn what_is_meant_for_the_first_host_is_not_shown_to_the_second() {
    let second = second(Some(DOCKER)).await;
    let front = front(&second).await;
    let image = image(&front.address);
    for server_address in [String::new(), front.address.clone()] {
        let own = Credentials {
            auth: "aDpi".to_owned(),
            server_address,
            ..Credentials::default()
        };
        let error = client().resolve(&image, Some(&own)).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("token server {}", second.address)),
            "{text}"
        );
    }
    assert_no_secret(&second);
}

#[tokio::test]
async fn a_second_host_that_is_never_content_is_left() {
    let second = Server::start(|seen| {
        let host = seen.header("host").unwrap();
        match seen.target.starts_with("/token") {
            true => Answer::new(200).body(r#"{"token":"guest"}"#),
            false => Answer::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token""#),
            ),
        }
    })
    .await;
    let front = front(&second).await;
    let client = client();
    for _ in 0..2 {
        let error = client
            .resolve(&image(&front.address), None)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&second.address), "{text}");
    }
    // The second time with what is known first, and with a new token then.
    assert_eq!(second.count("/v2/"), 2 + 3);
    assert_eq!(second.count("/token"), 2);
}
