//! The HTTP listener under load: health checks are answered, connections end in time, heads are checked.

use crate::harness::{Server, eventually};
use crate::http::{Http, signed, start, start_with_key};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};

/// Connections with a place for every path, and those for health checks alone.
const GENERAL: usize = 256;
const RESERVED: usize = 8;

fn silent(server: &Server, count: usize) -> Vec<Http> {
    (0..count).map(|_| Http::connect(server)).collect()
}

#[test]
fn health_is_answered_beside_any_number_of_silent_connections() {
    let server = start();
    for count in [GENERAL, GENERAL + RESERVED, 2 * GENERAL] {
        let _silent = silent(&server, count);
        for (path, expected) in [("/live", "live\n"), ("/ready", "ready\n")] {
            let answer = Http::connect(&server).get(path);
            assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path} beside {count} connections");
        }
    }
}

#[test]
fn other_paths_are_refused_while_all_places_are_taken() {
    let server = start();
    // A round lasts longer than a silent connection may only if the machine stalls.
    eventually("a refusal", || {
        let _silent = silent(&server, GENERAL);
        let mut http = Http::connect(&server);
        let refused = http.get("/metrics");
        let head = refused.head.to_ascii_lowercase();
        refused.status == 503
            && head.contains("retry-after: 1")
            && head.contains("\r\ndate: ")
            && http.try_response().is_none()
    });
    eventually("room again", || Http::connect(&server).get("/metrics").status == 200);
}

#[test]
fn the_connection_that_was_idle_longest_makes_room() {
    let server = start();
    let mut idle = silent(&server, 0);
    for _ in 0..GENERAL {
        let mut http = Http::connect(&server);
        assert_eq!(http.get("/live").status, 200);
        idle.push(http);
    }
    assert_eq!(idle[0].get("/live").status, 200);
    let mut new = Http::connect(&server);
    let metrics = new.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("\ncorecast_http_evicted_total 1\n"), "one connection is closed");
    assert!(idle[1].try_response().is_none(), "the one that was idle longest");
    assert_eq!(idle[0].get("/live").status, 200);
    assert_eq!(idle[2].get("/live").status, 200);
}

#[test]
fn health_is_answered_beside_clients_that_do_not_read() {
    let server = start();
    let ask = "GET /console/main.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    let unread: Vec<Http> = (0..32)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(4096).expect("socket option");
            socket.connect(&server.http().into()).expect("the HTTP listener accepts");
            let mut http = Http::over(socket.into());
            http.write(&ask);
            http
        })
        .collect();
    let mut others = silent(&server, GENERAL - unread.len());
    let mut answered = 0;
    eventually("full sockets", || {
        let metrics = others[0].get("/metrics").body;
        let count = metrics.lines().find_map(|line| line.strip_prefix("corecast_http_requests_total ")?.parse().ok());
        let before = std::mem::replace(&mut answered, count.expect("a count"));
        answered == before + 1
    });
    others.iter_mut().for_each(|other| _ = other.get("/live"));
    for _ in 0..2 * unread.len() {
        let mut new = Http::connect(&server);
        assert_eq!(new.get("/live").status, 200);
        others.push(new);
    }
}

#[test]
fn a_first_head_is_due_soon_and_the_next_one_late() {
    let server = start();
    let mut idle = Http::connect(&server);
    assert_eq!(idle.get("/live").status, 200);
    for begun in ["", "GET /live HTTP/1.1\r\nHost: a\r\n"] {
        let mut silent = Http::connect(&server);
        silent.write(begun);
        let mut said = Vec::new();
        let end = silent.stream.read_to_end(&mut said);
        assert!(matches!(end, Ok(0)), "{end:?} after {begun:?}: {said:?}");
    }
    assert_eq!(idle.get("/live").status, 200, "an idle connection stays longer than those that never sent a head");
    assert!(idle.get("/metrics").body.contains("\ncorecast_http_heads_overdue_total 2\n"));
}

#[test]
fn health_takes_any_host_and_no_request_of_another_site() {
    let server = start();
    let mut http = Http::connect(&server);
    for path in ["/live", "/ready", "/metrics"] {
        for (head, expected) in [
            ("Host: 10.1.2.3:9001", 200),
            ("Host: evil.example\r\nOrigin: https://evil.example", 200),
            ("Host: [fd00::1]", 200),
            ("Host: a\r\nSec-Fetch-Site: none", 200),
            ("Host: a\r\nSec-Fetch-Site: same-origin", 200),
            ("Host: a\r\nSec-Fetch-Site: cross-site", 403),
            ("Host: a\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site", 403),
        ] {
            http.write(&format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n"));
            let answer = http.response();
            assert_eq!(answer.status, expected, "{path} {head}");
            assert!(!answer.head.to_ascii_lowercase().contains("access-control-"), "{}", answer.head);
        }
    }
}

#[test]
fn heads_are_checked_on_every_path() {
    let server = start_with_key();
    let gzip = "Host: a\r\nTransfer-Encoding: gzip, chunked";
    for target in ["GET /live", "GET /metrics", "GET /nowhere", "POST /apps/1/events", "GET /console"] {
        for (version, head, expected) in [
            ("1.1", "Accept: */*", 400),
            ("1.1", "Host: a\r\nHost: a", 400),
            ("1.1", "Host: a b", 400),
            ("1.1", "Host: a/b", 400),
            ("1.0", "Host: a b", 400),
            ("1.1", gzip, 501),
            ("1.1", "Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ] {
            let mut http = Http::connect(&server);
            http.write(&format!("{target} HTTP/{version}\r\n{head}\r\n\r\n0\r\n\r\n"));
            let answer = http.response();
            assert_eq!(answer.status, expected, "{target} {head}");
            assert!(answer.head.to_ascii_lowercase().contains("\r\ndate: "), "{}", answer.head);
            assert!(http.try_response().is_none(), "the connection ends");
        }
    }
    let mut http = Http::connect(&server);
    http.write("GET /live HTTP/1.0\r\n\r\n");
    assert_eq!(http.response().status, 200, "HTTP/1.0 does not ask for a Host");
}

#[test]
fn every_answer_has_a_date() {
    let server = start_with_key();
    for (request, expected) in [
        ("GET /live HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("DELETE /live HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("POST /apps/1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 401),
        ("not HTTP\r\n\r\n", 400),
    ] {
        let mut http = Http::connect(&server);
        http.write(request);
        let answer = http.response();
        assert_eq!(answer.status, expected, "{request:?}");
        let head = answer.head.to_ascii_lowercase();
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
    }
}

#[test]
fn the_refusal_of_an_upload_reaches_the_client() {
    let server = start_with_key();
    let body = "x".repeat(8 * 1024 * 1024);
    for (path, expected) in [
        ("/nowhere".into(), 404),
        ("/live".into(), 405),
        ("/apps/1/events".into(), 401),
        (signed("POST", "/apps/1/events", &[], &body), 413),
    ] {
        let mut http = Http::connect(&server);
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        http.stream.write_all(head.as_bytes()).expect("an open connection");
        http.stream.write_all(body.as_bytes()).expect("the server reads what it refuses");
        assert_eq!(http.response().status, expected, "{path}");
        assert!(http.try_response().is_none(), "the connection ends");
    }
}

#[test]
fn an_upload_without_end_is_cut_off() {
    const MIB: usize = 1024 * 1024;
    let server = start();
    let mut http = Http::connect(&server);
    http.write(&format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1024 * MIB));
    let part = vec![b'x'; MIB];
    let written = (0..1024).take_while(|_| http.stream.write_all(&part).is_ok()).count();
    assert!((8..256).contains(&written), "{written} MiB");
}
