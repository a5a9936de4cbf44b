//! HTTP connections: how many, how long they may take, and how they end.

use super::Face;
use crate::api::Phase;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The client that sent a request: the peer of its connection, or the address that a trusted proxy names.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Accepts connections until the server has ended; then waits briefly for the requests in progress.
pub async fn serve(listener: TcpListener, face: Arc<Face>, router: Router, phase: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    let mut end = phase.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if connections.len() < CONNECTIONS_MAX => {
                    face.count(|counters| counters.http_accepts += 1);
                    connections.spawn(connection(stream, Peer(peer.ip()), router.clone(), phase.clone()));
                }
                Ok((stream, _)) => {
                    face.count(|counters| counters.http_refused += 1);
                    refuse(stream);
                }
                Err(error) => {
                    face.count(|counters| counters.http_accept_errors += 1);
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    // Most likely out of descriptors, which does not change at once.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = end.wait_for(|phase| *phase == Phase::Ended) => break,
        }
    }
    drop(listener);
    let all_over = async { while connections.join_next().await.is_some() {} };
    // A client that reads its reply too slowly is cut off.
    let _ = tokio::time::timeout(END_GRACE, all_over).await;
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, mut phase: watch::Receiver<Phase>) {
    // Without it, replies are sometimes 40 ms late.
    let _ = stream.set_nodelay(true);
    // hyper has no time limit for a slow reader.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(READER_TIMEOUT));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A client that has closed its sending side still gets its reply.
        .half_close(true)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // Errors of one connection concern only its client.
        _ = connection.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Sends the refusal of a connection over the limit, as far as the socket takes it at once.
fn refuse(mut stream: TcpStream) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(REFUSAL)).await;
    });
}

/// Open HTTP connections. Publishers keep theirs; a connection that is not used for [`HEAD_TIMEOUT`] is closed.
pub const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// From the end of one request, or the start of the connection, until the head of the next is read.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a reply may stay unacknowledged by the client's kernel.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the requests in progress when the server has stopped.
const END_GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 26\r\n\
    Content-Type: text/plain\r\n\r\ntoo many HTTP connections\n";
