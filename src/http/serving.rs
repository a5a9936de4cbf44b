//! HTTP connections: their number, time limits, and end. [`places`](super::places) decides which connection gets a
//! place, and which one loses its place.

use super::Face;
use super::places::{Admission, Place, Places};
use crate::api::Phase;
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::pending;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

/// The client of a request: the peer of its connection, or the client that a trusted proxy names.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Accepts connections until the server ends; then waits briefly for the requests in progress.
pub async fn serve(listener: TcpListener, face: Arc<Face>, router: Router, phase: watch::Receiver<Phase>) {
    let mut connections = JoinSet::new();
    let mut places = Places::default();
    let mut end = phase.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    while let Some(ended) = connections.try_join_next() {
                        ended.iter().for_each(|place| places.release(place));
                    }
                    let admission = if connections.len() < TASKS_MAX { places.admit() } else { None };
                    let Some(Admission { place, evicts }) = admission else {
                        face.count(|counters| counters.http_refused += 1);
                        refuse(stream);
                        continue;
                    };
                    face.count(|counters| {
                        counters.http_accepts += 1;
                        counters.http_evicted += u64::from(evicts);
                    });
                    let served = connection(stream, Peer(peer.ip()), place, face.clone(), router.clone(), phase.clone());
                    connections.spawn(served);
                    // Lets the connection read its first bytes before many more are accepted and compete for its place.
                    yield_now().await;
                }
                Err(error) => {
                    face.count(|counters| counters.http_accept_errors += 1);
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    // The usual cause is a lack of descriptors, which may last for a while.
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => ended.iter().for_each(|place| places.release(place)),
            _ = end.wait_for(|phase| *phase == Phase::Ended) => break,
        }
    }
    drop(listener);
    let all_over = async { while connections.join_next().await.is_some() {} };
    // The system closes connections of clients that read too slowly.
    let _ = timeout(END_GRACE, all_over).await;
}

/// Serves a connection to its end, and releases its place.
async fn connection(
    stream: TcpStream,
    peer: Peer,
    place: Arc<Place>,
    face: Arc<Face>,
    router: Router,
    mut phase: watch::Receiver<Phase>,
) -> Arc<Place> {
    // Without this option, a response is sometimes 40 ms late.
    let _ = stream.set_nodelay(true);
    // hyper does not limit the time for which a client may fail to read.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(READER_TIMEOUT));
    let mut server_ends = pin!(async move {
        let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
    });
    let router = TowerToHyperService::new(router);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A client that shuts down its sending side still gets its response.
        .half_close(true)
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| respond(request, peer, place.clone(), face.clone(), router.clone())),
        );
    tokio::select! {
        // Polled first: a request that has arrived is served even if a deadline has passed.
        biased;
        served = &mut connection => {
            // hyper answers a head that it cannot read.
            let is_refused = u64::from(served.is_err_and(|error| error.is_parse()));
            face.count(|counters| {
                counters.http_requests += is_refused;
                counters.http_client_errors += is_refused;
            });
            place.end();
            let stream = connection.into_parts().io.into_inner();
            tokio::select! {
                () = linger(stream) => {}
                () = place.evicted() => {}
                () = &mut server_ends => {}
            }
            return place;
        }
        () = place.evicted() => {}
        () = first_head_is_overdue(&place) => {
            face.count(|counters| counters.http_heads_overdue += 1);
            return place;
        }
        () = &mut server_ends => {}
    }
    if !place.awaits_first_head() {
        // Closes an idle connection at once, otherwise after its response.
        Pin::new(&mut connection).graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = place.cut_off() => {}
        }
    }
    place
}

/// Answers a request. A reserved place serves one request, to one of the [`HEALTH_PATHS`].
async fn respond(
    mut request: Request<Incoming>,
    peer: Peer,
    place: Arc<Place>,
    face: Arc<Face>,
    router: TowerToHyperService<Router>,
) -> Result<hyper::Response<super::places::Answer<Body>>, Infallible> {
    let is_reserved = place.is_reserved();
    let answering = place.answer();
    let mut response = if is_reserved && !HEALTH_PATHS.contains(&request.uri().path()) {
        face.count(|counters| counters.http_refused += 1);
        too_many_connections()
    } else {
        request.extensions_mut().insert(peer);
        router.call(request).await?
    };
    if is_reserved {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| answering.with(body)))
}

fn too_many_connections() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], REFUSAL).into_response()
}

async fn first_head_is_overdue(place: &Place) {
    sleep(FIRST_HEAD_TIMEOUT).await;
    if !place.awaits_first_head() {
        pending().await
    }
}

/// Reads and drops the client's remaining input. Closing a socket with unread input resets the connection, and a reset
/// can destroy a response that the client has not read: an upload would end in "broken pipe" instead of its 413.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let drop_input = async {
        let mut buffer = vec![0; LINGER_BUFFER_BYTES];
        let mut dropped = 0;
        while dropped < LINGER_BYTES_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => dropped += read,
            }
        }
    };
    let _ = timeout(LINGER_TIMEOUT, drop_input).await;
}

/// Answers a connection without a place with 503, if the socket takes the answer at once.
fn refuse(stream: TcpStream) {
    let Ok(mut stream) = stream.into_std() else { return };
    let date = httpdate::fmt_http_date(SystemTime::now());
    let length = REFUSAL.len();
    let _ = write!(
        stream,
        "HTTP/1.1 503 Service Unavailable\r\nDate: {date}\r\nRetry-After: 1\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{REFUSAL}"
    );
    // Unread input would reset the connection.
    let _ = stream.read(&mut [0; 4096]);
}

/// The paths that reserved places serve.
const HEALTH_PATHS: [&str; 2] = ["/live", "/ready"];
const REFUSAL: &str = "too many HTTP connections\n";
/// Most bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields of a request.
const HEADERS_MAX: usize = 64;

/// Tasks of connections: those with a place, those that lost it and still write their last response, and a few that have
/// been told to end and have not run since.
pub const TASKS_MAX: usize = super::places::GENERAL + super::places::RESERVED + super::places::LEAVING + 8;

/// From accept to the end of the first head. Clients send it at once. Probes wait for their answer for 1 s (kubelet), 2 s
/// (HAProxy) or 5 s (AWS ALB). Browsers also open connections in advance, and open another one if such a connection is
/// closed.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// From the end of a response to the end of the next head. If the server closes first, the client's next request may
/// already be under way, and proxies answer it with 502. So this is longer than clients keep idle connections: nginx
/// and AWS ALB 60 s, Go 90 s, Firefox 115 s, Azure 240 s, Chrome and Prometheus 300 s, Google Cloud's load balancers
/// 600 s. It may be long, because an idle connection loses its place when another one needs it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(620);
/// How long a response may stay unacknowledged by the client's system. nginx and AWS ALB give up a request after 60 s.
/// This is shorter, so that connections of dead proxies do not outlive their requests.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time and byte limits of [`linger`]: enough for an upload of 1 MiB, the longest body, at 1 Mbit/s. Without limits the
/// client would decide how long it sends. The place is released as soon as another connection needs it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
const LINGER_BUFFER_BYTES: usize = 16 * 1024;
/// Time for the requests in progress after the server has stopped.
const END_GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
