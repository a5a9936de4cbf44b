//! Sends one POST over HTTP or HTTPS, in bounded time and memory.

use super::post::{Failure, Post, Signed};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time limits.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To connect to the host, TLS not included. hyper divides it among the host's addresses of one family.
    pub connect: Duration,
    /// From the start, the lookup of the host and connecting included, to the head of the answer.
    pub answer: Duration,
    /// For the rest of it, which is ignored: a connection that is read to the end can be used again.
    pub rest: Duration,
}

/// * `connect`: Linux sends a lost SYN again after 1, 3 and 7 s. The first two fit, with one address.
/// * `answer`: twice the 5 s after which a resolver repeats a lost DNS query, and what GitHub gives receivers of its webhooks.
///   Proxies before the receiver give up later: AWS API Gateway after 29 s, Heroku 30 s, nginx and AWS ALB 60 s. So does the
///   receiver itself: gunicorn and PHP after 30 s. Their answer (502 or 504) would hide that the receiver is slow.
/// * `rest`: half of the time for which gunicorn, the shortest, keeps an idle connection.
impl Default for Times {
    fn default() -> Times {
        Times { connect: Duration::from_secs(5), answer: Duration::from_secs(10), rest: Duration::from_secs(1) }
    }
}

/// Keeps a connection to each host. Clones share them.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    times: Times,
}

impl Client {
    /// `has_secure`: there are URLs of https, so the roots that the system trusts are read.
    pub fn new(has_secure: bool, times: Times) -> Client {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(times.connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(has_secure))
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector);
        Client { http, times }
    }
}

impl Post for Client {
    async fn post(&self, request: Signed) -> Result<(), Failure> {
        let Signed { url, key, signature, body } = request;
        let request = Request::post(url.uri())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("corecast/", env!("CARGO_PKG_VERSION")))
            .header("X-Pusher-Key", key)
            .header("X-Pusher-Signature", signature)
            .body(Full::new(body))
            .map_err(failed)?;
        let answer = timeout(self.times.answer, self.http.request(request)).await.map_err(|_| Failure::Timeout)?;
        let (head, body) = answer.map_err(failed)?.into_parts();
        // Where the rest is too long or takes too long, the connection is dropped.
        let _ = timeout(self.times.rest, Limited::new(body, REST_BYTES_MAX).collect()).await;
        if head.status.is_success() { Ok(()) } else { Err(Failure::Status(head.status)) }
    }
}

/// The error with its causes.
fn failed(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Connection(format!("{:#}", error.into()))
}

fn tls(has_secure: bool) -> ClientConfig {
    let builder = || {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        builder.with_safe_default_protocol_versions().expect("ring speaks them")
    };
    let trusts_none = || builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    if !has_secure {
        return trusts_none();
    }
    match builder().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::error!(
                %error,
                "webhooks: this system trusts no certificate authority, so nothing is sent to https: install ca-certificates, \
                 or name a file of certificates in SSL_CERT_FILE, and reload"
            );
            trusts_none()
        }
    }
}

/// After that an unused connection is closed. A client that keeps a connection longer than its server can send a request as
/// the server closes. So this is below the servers' defaults: gunicorn 2 s, Node, Apache and uvicorn 5 s, Puma 20 s, nginx 75 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields of an answer.
const HEADERS_MAX: usize = 64;
/// Bytes of an answer that are read behind its head.
const REST_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::WebhookUrl;
    use hyper::StatusCode;
    use socket2::{Domain, Socket, Type};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;
    use std::time::Instant;

    const TIMES: Times =
        Times { connect: Duration::from_secs(60), answer: Duration::from_secs(60), rest: Duration::from_millis(100) };

    /// Serves connections, one after the other, until the test ends.
    pub fn endpoint(serve: impl Fn(BufReader<TcpStream>) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(BufReader::new(stream))));
        address
    }

    /// Reads a request: its head, and its body.
    pub fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).ok().filter(|read| *read > 0)?;
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).ok()?;
        Some((head, String::from_utf8(body).expect("UTF-8")))
    }

    fn post(times: Times, urls: &[String]) -> Vec<Result<(), Failure>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let results = runtime.block_on(async {
            let client = Client::new(false, times);
            let mut results = Vec::new();
            for url in urls {
                let url = WebhookUrl::parse(url).expect("a URL");
                let request = Signed { url, key: "app".into(), signature: "5160".into(), body: "{\"a\":1}".into() };
                results.push(client.post(request).await);
            }
            results
        });
        runtime.shutdown_background();
        results
    }

    fn answered(answer: impl Into<Vec<u8>>) -> Result<(), Failure> {
        let answer = answer.into();
        let address = endpoint(move |mut stream| {
            request(&mut stream).expect("a request");
            // The client closes when it has read enough.
            let _ = stream.get_mut().write_all(&answer);
        });
        post(TIMES, &[format!("http://{address}/hooks")]).remove(0)
    }

    #[test]
    fn requests_go_over_one_connection_with_the_headers_of_pusher() {
        let (seen, requests) = std::sync::mpsc::channel();
        let address = endpoint(move |mut stream| {
            while let Some(request) = request(&mut stream) {
                let peer = stream.get_ref().peer_addr().expect("an address");
                seen.send((peer, request)).expect("the test waits");
                stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("the client reads");
            }
        });
        // The name is looked up.
        let url = format!("http://localhost:{}/hooks?a=b", address.port());
        // A connection is kept for a second, so not each time if this machine stalls.
        let head_and_body = (0..5).find_map(|_| {
            assert_eq!(post(TIMES, &[url.clone(), url.clone()]), [Ok(()), Ok(())]);
            let (first, second) = (requests.recv().expect("a request"), requests.recv().expect("another"));
            assert_eq!(first.1, second.1);
            (first.0 == second.0).then_some(first.1)
        });
        let (head, body) = head_and_body.expect("one connection");
        assert!(head.starts_with("POST /hooks?a=b HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        for header in [
            &format!("host: localhost:{}", address.port()),
            "content-type: application/json",
            "x-pusher-key: app",
            "x-pusher-signature: 5160",
            "user-agent: corecast/",
        ] {
            assert!(head.contains(header), "{header:?} is not in {head}");
        }
        assert_eq!(body, "{\"a\":1}");
    }

    #[test]
    fn any_status_from_200_to_299_is_taken_and_no_other() {
        let with = |status: &str| answered(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        for status in ["200 OK", "202 Accepted", "299 Whatever"] {
            assert_eq!(with(status), Ok(()), "{status}");
        }
        for status in [400, 404, 410, 429, 500, 503] {
            let expected = Failure::Status(StatusCode::from_u16(status).expect("a status"));
            assert_eq!(with(&format!("{status} No")), Err(expected));
        }
    }

    #[test]
    fn redirects_are_not_followed() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        other.set_nonblocking(true).expect("socket option");
        let there = other.local_addr().expect("an address");
        let result = answered(format!("HTTP/1.1 307 There\r\nLocation: http://{there}/\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(result, Err(Failure::Status(StatusCode::TEMPORARY_REDIRECT)));
        assert!(other.accept().is_err(), "the redirect was not followed");
    }

    #[test]
    fn a_missing_server_or_another_protocol_is_a_failure() {
        // The port stays reserved, and connections to it are refused.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        let gone = silent.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let failed = |result: Result<(), Failure>| match result {
            Err(Failure::Connection(why)) => why,
            other => panic!("{other:?}"),
        };
        let [refused] = &post(TIMES, &[format!("http://{gone}/")])[..] else { panic!("one result") };
        assert!(failed(refused.clone()).contains("refused"), "{refused:?}");
        for answer in [
            "".into(),
            "garbage\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Le".into(),
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)),
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(1000)),
        ] {
            failed(answered(answer));
        }
        // The server does not speak TLS.
        let address = endpoint(|mut stream| _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n"));
        failed(post(TIMES, &[format!("https://{address}/")]).remove(0));
    }

    #[test]
    fn a_server_that_does_not_answer_times_out() {
        let address = endpoint(|mut stream| _ = stream.read_to_end(&mut Vec::new()));
        let times = Times { answer: Duration::from_millis(100), ..TIMES };
        let urls = ["http", "https"].map(|scheme| format!("{scheme}://{address}/"));
        assert_eq!(post(times, &urls[..1]), [Err(Failure::Timeout)]);
        assert_eq!(post(times, &urls[1..]), [Err(Failure::Timeout)]);
    }

    #[test]
    fn the_rest_of_an_answer_is_read_within_bounds() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Ok(()));
        let large = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 64 << 20]].concat();
        assert_eq!(answered(large), Ok(()));
        let address = endpoint(|mut stream| {
            request(&mut stream).expect("a request");
            let _ = stream.get_mut().write_all(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let start = Instant::now();
        let expected = Failure::Status(StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(post(TIMES, &[format!("http://{address}/")]), [Err(expected)]);
        assert!(start.elapsed() < TIMES.answer, "the rest has a time of its own");
    }
}
