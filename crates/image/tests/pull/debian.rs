//! A pull from Debian's `docker-registry`, an implementation that is not ours.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::maker::{Image, Packing, image, tar};
use crate::open;
use crate::served::serve;

/// One request; answers status and `Location`.
async fn send(host: &str, method: &str, target: &str, body: (&str, &[u8])) -> (u16, String) {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let (kind, body) = body;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("Location: "));
    let location = location.unwrap_or_default().trim();
    let path = location.split_once(host).map_or(location, |(_, path)| path);
    (status, path.to_owned())
}

async fn push(host: &str, image: &Image, repository: &str, tag: &str) {
    let binary = "application/octet-stream";
    for (digest, body) in &image.blobs {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let (status, location) = send(host, "POST", &target, (binary, b"")).await;
        assert_eq!(status, 202);
        let target = format!("{location}&digest={digest}");
        assert_eq!(send(host, "PUT", &target, (binary, body)).await.0, 201);
    }
    for (digest, kind, body) in &image.documents {
        let name = if *digest == image.root {
            tag
        } else {
            digest.as_str()
        };
        let target = format!("/v2/{repository}/manifests/{name}");
        assert_eq!(send(host, "PUT", &target, (kind, body)).await.0, 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_real_registry_serves_a_real_pull() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path(), "127.0.0.1:0", "}\n");
    let layers: Vec<(Packing, Vec<u8>)> = [Packing::Gzip, Packing::Zstd, Packing::Plain]
        .into_iter()
        .enumerate()
        .map(|(n, packing)| {
            let name = format!("data/file{n}");
            (
                packing,
                tar(&[(name.as_str(), &"0123456789abcdef".repeat(40_000))]),
            )
        })
        .collect();
    let made = image(&layers);
    push(&served.address, &made, "team/app", "v1").await;
    let root = dir.path().join("root");
    let images = open(&root);
    let name = format!("{}/team/app:v1", served.address);
    assert_eq!(images.pull(&name, None).await.unwrap(), made.id);
    let found = images.find(&name).unwrap().unwrap();
    for n in 0..3 {
        let read = images
            .lookup(&found, &format!("/data/file{n}"), 1 << 20)
            .await
            .unwrap();
        assert_eq!(read.map(|content| content.len()), Some(640_000));
    }
    let by_digest = format!("{}/team/app@{}", served.address, made.root);
    assert_eq!(images.pull(&by_digest, None).await.unwrap(), made.id);
    let missing = format!("{}/team/app:v2", served.address);
    let error = images.pull(&missing, None).await.unwrap_err().to_string();
    assert!(error.contains("not found"), "{error}");
}
