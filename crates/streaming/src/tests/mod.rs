//! Clients over loopback against the server, with processes that are played.

mod backend;
mod bounds;
mod forward;
mod hostile;
mod http;
mod process;
mod spdy_client;
mod tls;
mod websocket;

use crate::{Config, Server, Streams};

/// A server on a free port of loopback.
async fn server() -> Server {
    Server::start(Config::default()).await.unwrap()
}

/// All streams of a process without a terminal.
fn all() -> Streams {
    Streams::STDIN
        .with(Streams::STDOUT, true)
        .with(Streams::STDERR, true)
}

/// All streams of a process with a terminal.
fn terminal() -> Streams {
    Streams::STDIN
        .with(Streams::STDOUT, true)
        .with(Streams::TERMINAL, true)
}
