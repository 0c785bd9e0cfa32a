//! Tests of credentials: which host is shown which secret.

use crisp_registry::{Client, Credentials, Error};

use crate::server::{Answer, Seen, Server};
use crate::{MANIFEST, MANIFEST_TYPE, client, client_with, image, sha256};

fn manifest() -> Answer {
    Answer::new(200)
        .header("content-type", MANIFEST_TYPE)
        .body(MANIFEST)
}

fn password() -> Credentials {
    Credentials {
        username: "u".to_owned(),
        password: "p".to_owned(),
        ..Credentials::default()
    }
}

const BASIC: &str = "Basic dTpw";

/// A registry that wants a token from its own `/token`.
async fn with_tokens(token: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        let host = seen.header("host").unwrap();
        let challenge = format!(
            r#"Bearer realm="http://{host}/token",service="s",scope="repository:a/b:pull""#
        );
        if seen.target.starts_with("/token") {
            token(seen)
        } else if seen.header("authorization") == Some("Bearer good") {
            manifest()
        } else {
            Answer::new(401).header("www-authenticate", challenge)
        }
    })
    .await
}

async fn pull(client: &Client, server: &Server, who: Option<&Credentials>) -> Result<(), Error> {
    client.resolve(&image(&server.address), who).await.map(drop)
}

#[tokio::test]
async fn anonymous_token_is_asked_for_once() {
    let server = with_tokens(|seen| {
        assert!(seen.target.contains("service=s"), "{}", seen.target);
        assert!(
            seen.target.contains("scope=repository%3Aa%2Fb%3Apull"),
            "{}",
            seen.target
        );
        assert_eq!(seen.header("authorization"), None);
        Answer::new(200).body(r#"{"token":"good","expires_in":300}"#)
    })
    .await;
    let client = client();
    for _ in 0..3 {
        pull(&client, &server, None).await.unwrap();
    }
    assert_eq!(server.count("/token"), 1);
    assert_eq!(server.count("/manifests/"), 4);
    // Another identity has its own token.
    pull(&client, &server, Some(&password())).await.unwrap_err();
}

#[tokio::test]
async fn a_password_is_shown_to_the_token_server() {
    let server = with_tokens(|seen| match seen.header("authorization") {
        Some(BASIC) => Answer::new(200).body(r#"{"access_token":"good"}"#),
        _ => Answer::new(401),
    })
    .await;
    pull(&client(), &server, Some(&password())).await.unwrap();
    let error = pull(&client(), &server, None).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let server = with_tokens(|seen| {
        assert_eq!(seen.method, "POST");
        assert!(
            seen.body.contains("grant_type=refresh_token"),
            "{}",
            seen.body
        );
        assert!(seen.body.contains("refresh_token=idt"), "{}", seen.body);
        Answer::new(200).body(r#"{"access_token":"good"}"#)
    })
    .await;
    let who = Credentials {
        identity_token: "idt".to_owned(),
        ..Credentials::default()
    };
    pull(&client(), &server, Some(&who)).await.unwrap();
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let server = with_tokens(|_| Answer::new(500)).await;
    let mut who = Credentials {
        registry_token: "good".to_owned(),
        ..Credentials::default()
    };
    pull(&client(), &server, Some(&who)).await.unwrap();
    who.registry_token = "bad".to_owned();
    let error = pull(&client(), &server, Some(&who)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert_eq!(server.count("/token"), 0);
}

#[tokio::test]
async fn basic_challenges_get_the_password() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some(BASIC) => manifest(),
        _ => Answer::new(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    pull(&client(), &server, Some(&password())).await.unwrap();
    let auth = Credentials {
        auth: "dTpw".to_owned(),
        server_address: server.address.clone(),
        ..Credentials::default()
    };
    pull(&client(), &server, Some(&auth)).await.unwrap();
    for who in [
        None,
        Some(Credentials {
            password: "wrong".to_owned(),
            ..password()
        }),
        Some(Credentials {
            server_address: "other.io".to_owned(),
            ..password()
        }),
    ] {
        let error = pull(&client(), &server, who.as_ref()).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        r#"{{"auths":{{"http://{}":{{"auth":"dTpw"}}}}}}"#,
        server.address
    );
    pull(&client_with(dir.path(), Some(&config)), &server, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_expired_token_is_renewed() {
    let round = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(move |seen| {
        use std::sync::atomic::Ordering::SeqCst;
        let host = seen.header("host").unwrap();
        if seen.target.starts_with("/token") {
            let n = round.fetch_add(1, SeqCst) + 1;
            return Answer::new(200).body(format!(r#"{{"token":"t{n}","expires_in":900}}"#));
        }
        let current = format!("Bearer t{}", round.load(SeqCst));
        // Each token is good for one request only.
        let fresh = seen.header("authorization") == Some(current.as_str());
        if fresh && seen.target.contains("/manifests/") {
            round.fetch_add(10, SeqCst);
            return manifest();
        }
        let challenge = format!(r#"Bearer realm="http://{host}/token",error="invalid_token""#);
        Answer::new(401).header("www-authenticate", challenge)
    })
    .await;
    let client = client();
    pull(&client, &server, None).await.unwrap();
    pull(&client, &server, None).await.unwrap();
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn credentials_do_not_follow_redirects_to_other_hosts() {
    let storage = Server::start(|_| Answer::new(200).body("blob")).await;
    let target = format!("http://{}/signed?x=1", storage.address);
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some(BASIC) if seen.target.starts_with("/v2/a/b/blobs/") => {
            Answer::new(307).header("location", "/own")
        }
        Some(BASIC) => Answer::new(307).header("location", target.clone()),
        _ => Answer::new(401).header("www-authenticate", "Basic"),
    })
    .await;
    let digest = sha256(b"blob");
    let (image, who) = (image(&server.address), password());
    let body = client()
        .small_blob(&image, &digest, 10, Some(&who))
        .await
        .unwrap();
    assert_eq!(&body[..], b"blob");
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
    assert_eq!(seen[0].target, "/signed?x=1");
}

#[tokio::test]
async fn a_foreign_host_cannot_ask_for_credentials() {
    let thief = Server::start(|_| Answer::new(401).header("www-authenticate", "Basic")).await;
    let target = format!("http://{}/x", thief.address);
    let server = Server::start(move |_| Answer::new(307).header("location", target.clone())).await;
    let error = pull(&client(), &server, Some(&password()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert!(
        thief
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    assert_eq!(thief.seen().len(), 1);
}
