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

/// Who sent a request: whoever is at the other end of its connection, or whom a trusted proxy there names.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Accepts until the face is to end; then waits for the requests under way, but not long.
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
    // Whoever reads its reply too slowly is cut off.
    let _ = tokio::time::timeout(END_GRACE, all_over).await;
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, mut phase: watch::Receiver<Phase>) {
    // Nothing is lost without it but 40 ms now and then.
    let _ = stream.set_nodelay(true);
    // hyper gives a slow reader all the time in the world.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(READER_TIMEOUT));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Whoever says that this was all is answered all the same.
        .half_close(true)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How it ended is the client's business.
        _ = connection.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Beyond the limit: told so, as far as the socket takes it at once.
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
/// How long a reply may lie unacknowledged by the client's system.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the requests under way when the server has stopped.
const END_GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 26\r\n\
    Content-Type: text/plain\r\n\r\ntoo many HTTP connections\n";
