//! Streams are measured by how much a second passes: the output and the input of a command, and a
//! connection into a pod, over both transports, each beside the same bytes on a plain way.
//!
//! The plain way is the floor of any runtime that copies: `dd` writes to a pipe, a thread copies from
//! there to a socket of the loopback, another reads that.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crisp_api::runtime::v1 as cri;
use crisp_e2e::netns::Net;
use rustix::pipe::fcntl_setpipe_size;

use crate::client::Client;
use crate::figures::Figures;
use crate::stream_client::{Session, StreamClient, Transport};

/// The port in the pod behind which `dd` writes.
const PORT: u16 = 9000;
/// Bytes that `dd` writes at once.
const BLOCK: u64 = 64 << 10;
/// Bytes that are copied at once on the plain way, and the room of its pipe.
const COPY: usize = 256 << 10;
const ROOM: usize = 1 << 20;
/// How long the pod may take until something listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

const TRANSPORTS: [Transport; 2] = [Transport::Spdy, Transport::WebSocket];

/// The container that streams lead to.
#[derive(Debug)]
pub struct Target<'a> {
    pub pod: &'a str,
    pub container: &'a str,
    /// The network in which the streaming server is reached; the present one without.
    pub net: Option<&'a Net>,
    /// Bytes to pass.
    pub bytes: u64,
}

/// The command of such a container.
pub fn command(bytes: u64) -> Vec<String> {
    let words = dd(bytes).join(" ");
    let line = format!("nc -ll -p {PORT} -e {words} & exec sleep 1000000");
    vec!["sh".to_owned(), "-c".to_owned(), line]
}

fn dd(bytes: u64) -> Vec<String> {
    let count = format!("count={}", bytes / BLOCK);
    ["dd", "if=/dev/zero", "bs=64k", &count]
        .map(str::to_owned)
        .into()
}

/// One pass through everything.
pub async fn measure(
    client: &mut Client,
    target: &Target<'_>,
    figures: &mut Figures,
) -> Result<()> {
    figures.rate(
        "a pipe copied to a socket",
        target.bytes,
        plain(target.bytes)?,
    );
    for transport in TRANSPORTS {
        let (output, input, ports) = match transport {
            Transport::Spdy => (
                "exec, output over SPDY",
                "exec, input over SPDY",
                "port-forward over SPDY",
            ),
            Transport::WebSocket => (
                "exec, output over WebSocket",
                "exec, input over WebSocket",
                "port-forward over WebSocket",
            ),
        };
        let time = exec_output(client, target, transport).await;
        note(figures, target, output, time)?;
        let time = exec_input(client, target, transport).await;
        note(figures, target, input, time)?;
        let time = port_forward(client, target, transport).await;
        note(figures, target, ports, time)?;
    }
    Ok(())
}

/// Notes a figure. Where another runtime does not do it, that is told, and the others are measured.
fn note(
    figures: &mut Figures,
    target: &Target<'_>,
    name: &'static str,
    time: Result<Duration>,
) -> Result<()> {
    match time.context(name) {
        Ok(time) => figures.rate(name, target.bytes, time),
        Err(error) if target.net.is_none() => eprintln!("not measured: {error:#}"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The streams of an exec: that of its last word, that of its output, and its input if it has one.
fn exec_session(has_input: bool) -> Session {
    let stream = |channel, kind: &str| (channel, vec![("streamtype", kind.to_owned())]);
    let mut streams = vec![stream(3, "error"), stream(1, "stdout")];
    if has_input {
        streams.push(stream(0, "stdin"));
    }
    Session {
        protocol: ["v4.channel.k8s.io", "v5.channel.k8s.io"],
        streams,
    }
}

async fn exec_output(
    client: &mut Client,
    target: &Target<'_>,
    transport: Transport,
) -> Result<Duration> {
    let url = client.exec(exec(target, dd(target.bytes), false)).await?;
    let mut stream = StreamClient::open(target.net, &url, transport, &exec_session(false))?;
    let heard = stream.hear(target.bytes, true)?;
    succeeded(&heard.error)?;
    let (came, bytes) = (heard.data, target.bytes);
    ensure!(came == bytes, "{came} bytes came of {bytes}");
    Ok(heard.time)
}

async fn exec_input(
    client: &mut Client,
    target: &Target<'_>,
    transport: Transport,
) -> Result<Duration> {
    // Blocks that it counts as whole tell how much has come.
    let line = "dd of=/dev/null bs=64k iflag=fullblock 2>&1";
    let command = ["sh", "-c", line].map(str::to_owned).into();
    let url = client.exec(exec(target, command, true)).await?;
    let mut stream = StreamClient::open(target.net, &url, transport, &exec_session(true))?;
    let begun = Instant::now();
    stream.send(target.bytes)?;
    let heard = stream.hear(1, true)?;
    let time = begun.elapsed();
    succeeded(&heard.error)?;
    let said = String::from_utf8_lossy(&heard.beginning);
    let (whole, bytes) = (target.bytes / BLOCK, target.bytes);
    let has_all = said.contains(&format!("{whole}+0 records in"));
    ensure!(has_all, "of {bytes} bytes came: {said}");
    Ok(time)
}

fn exec(target: &Target<'_>, command: Vec<String>, stdin: bool) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: target.container.to_owned(),
        cmd: command,
        stdin,
        stdout: true,
        ..Default::default()
    }
}

fn succeeded(word: &[u8]) -> Result<()> {
    let word = String::from_utf8_lossy(word);
    ensure!(word.contains("\"Success\""), "the command ended so: {word}");
    Ok(())
}

/// Asks again until the pod listens.
async fn port_forward(
    client: &mut Client,
    target: &Target<'_>,
    transport: Transport,
) -> Result<Duration> {
    let headers = |kind: &str| {
        let port = PORT.to_string();
        let all = [("streamtype", kind), ("port", &port), ("requestid", "0")];
        all.map(|(name, value)| (name, value.to_owned())).into()
    };
    let session = Session {
        protocol: ["portforward.k8s.io", "v4.channel.k8s.io"],
        streams: vec![(1, headers("error")), (0, headers("data"))],
    };
    // On WebSocket each channel begins with the port.
    let begins = if transport == Transport::WebSocket {
        2
    } else {
        0
    };
    let begun = Instant::now();
    loop {
        let url = client.port_forward(target.pod, PORT).await?;
        let mut stream = StreamClient::open(target.net, &url, transport, &session)?;
        let heard = stream.hear(target.bytes + begins, false)?;
        let (came, bytes) = (heard.data.saturating_sub(begins), target.bytes);
        if came == bytes {
            return Ok(heard.time);
        }
        let why = String::from_utf8_lossy(&heard.error);
        let is_early = came == 0 && begun.elapsed() < LISTENS_WITHIN;
        ensure!(is_early, "{came} bytes came of {bytes}: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The plain way.
fn plain(bytes: u64) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (mut from, to) = std::io::pipe()?;
    fcntl_setpipe_size(&to, ROOM)?;
    let words = dd(bytes);
    let mut writer = Command::new(&words[0]);
    writer.args(&words[1..]).stdout(to).stderr(Stdio::null());
    let mut child = writer.spawn().context("start dd")?;
    // It would hold the pipe's end.
    drop(writer);
    let copying = std::thread::spawn(move || -> std::io::Result<()> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut buffer = vec![0; COPY];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(()),
                read => socket.write_all(&buffer[..read])?,
            }
        }
    });
    let (mut socket, _) = listener.accept()?;
    let mut buffer = vec![0; COPY];
    let (mut came, mut begun) = (0_u64, None);
    loop {
        let read = socket.read(&mut buffer)?;
        let begun = *begun.get_or_insert_with(Instant::now);
        came += read as u64;
        if read == 0 {
            let time = begun.elapsed();
            child.wait()?;
            let copied = copying.join();
            copied.map_err(|_| anyhow::anyhow!("the copying panicked"))??;
            ensure!(
                came == bytes,
                "{came} bytes came of {bytes} on the plain way"
            );
            return Ok(time);
        }
    }
}
