//! Limits on untrusted clients: origins of pages, connections of an address, rates, and addresses that proxies report.

use crate::harness::*;
use crate::transport::over_tls;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

for_shards!(
    connections_of_an_address_are_limited,
    places_are_given_back_however_connections_end,
    proxies_report_where_a_connection_comes_from,
    refused_requests_are_those_of_the_client_behind_the_proxy,
    requests_beyond_the_rate_are_answered_429,
    subscribes_beyond_the_rate_are_refused,
    all_subscriptions_may_be_made_at_once,
);

/// Browsers send the origin of the page that connects; other programs send none, or any.
#[test]
fn pages_connect_from_the_origins_allowed() {
    let server = Server::options(1)
        .arg("--allow-origin", "https://example.com")
        .arg("--allow-origin", "https://*.example.org")
        .start();
    for allowed in ["Origin: https://example.com\r\n", "Origin: https://a.example.org\r\n", ""] {
        assert_eq!(status(&server, &request("/", allowed)), "101", "{allowed}");
    }
    for refused in ["Origin: https://example.com.evil.net\r\n", "Origin: https://example.org\r\n", "Origin: null\r\n"] {
        assert_eq!(status(&server, &request("/", refused)), "403", "{refused}");
    }
    let stats = server.stats();
    assert_eq!((&stats["upgrades_refused_origin_not_allowed"], &stats["upgrades_refused"]), (&json!(3), &json!(3)));
}

/// Refused requests are counted by reason.
#[test]
fn requests_have_a_path_and_a_size() {
    let server = Server::options(1).arg("--path", "/live").arg("--max-request", 512).start();
    assert_eq!(status(&server, &request("/live?a=b", "")), "101");
    assert_eq!(status(&server, &request("/other", "")), "404");
    assert_eq!(status(&server, &request("/live", &format!("Cookie: {}\r\n", "x".repeat(512)))), "431");
    let stats = server.stats();
    for why in ["path_not_served", "request_too_large"] {
        assert_eq!(stats[format!("upgrades_refused_{why}")], 1, "{why}");
    }
    assert_eq!(stats["closes_upgrade_refused"], 2);
}

/// The limit holds for all shards together, for whole IPv6 networks, and for each address by itself.
fn connections_of_an_address_are_limited(shards: usize) {
    const PLACES: usize = 5;
    let server = behind_proxy(shards).arg("--max-connections-per-address", PLACES).start();
    let mut admin = Admin::connect(&server);
    for sources in
        [["203.0.113.7", "203.0.113.7", "203.0.113.8"], ["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:3::1"]]
    {
        let mut inside: Vec<RawClient> = (0..PLACES).map(|_| enter(&server, sources[0])).collect();
        let mut refused = tcp_for(&server, sources[1]);
        refused.write(request("/", "").as_bytes());
        let head = refused.head();
        assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nRetry-After: 10\r\n"), "{head}");
        enter(&server, sources[2]);

        inside.pop();
        eventually("the place is free again", || status_for(&server, sources[1]) == "101");
    }
    eventually("no connection is counted any more", || admin.stats()["addresses"] == 0);
    let stats = admin.stats();
    assert_eq!(stats["closes_address_connections"], stats["upgrades_refused_address_connections"]);
    eventually("the log says so", || server.stderr().contains("refusing connections of an address"));
}

/// Connections end before, while and after the owner of their address decides, in every possible way. Afterwards none is
/// counted, and the limit is as it was.
fn places_are_given_back_however_connections_end(shards: usize) {
    const PLACES: usize = 4;
    let options = behind_proxy(shards).config("handshake-timeout = 0.5\n");
    let server = options.arg("--max-connections-per-address", PLACES).start();
    let mut admin = Admin::connect(&server);
    let addresses = ["203.0.113.7", "203.0.113.8", "2001:db8::1", "2001:db8:0:1::1"];
    let mut kept = Vec::new();
    for number in 0..240 {
        let header = header_for(addresses[number % 4]);
        let mut client = RawClient::tcp(&server);
        let request = request("/", "");
        let bytes = match number % 7 {
            0 => header[..number % header.len()].to_owned(),
            1 => header,
            2 => header + &request[..number % request.len()],
            3 => header + "nonsense\r\n\r\n",
            _ => header + &request,
        };
        client.write_anyway(bytes.as_bytes());
        match number % 5 {
            0 => drop(client),
            1 => client.reset(),
            2 => client.finish_writing(),
            3 if number % 7 > 2 => drop(client.head()),
            _ => kept.push(client),
        }
    }
    drop(kept);
    eventually("no connection is counted any more", || {
        let stats = admin.stats();
        let held = ["addresses", "connections", "connections_upgrading", "connections_closing"];
        held.into_iter().all(|name| stats[name] == 0)
    });
    let stats = admin.stats();
    let members = stats.as_object().expect("an object").iter();
    let closes: u64 = members.filter(|(name, _)| name.starts_with("closes_")).filter_map(|(_, n)| n.as_u64()).sum();
    assert_eq!(stats["accepts"], closes, "{stats}");
    // From here on no handshake times out, however slow this machine is.
    server.write_config("");
    admin.ok(json!({"id": 1, "command": "reload"}));
    for address in addresses {
        let _inside: Vec<RawClient> = (0..PLACES).map(|_| enter(&server, address)).collect();
        assert_eq!(status_for(&server, address), "429");
    }
}

/// A number limits all clients, also those on this machine; "auto" and 0 do not limit those.
#[test]
fn clients_on_this_machine_are_limited_by_a_number() {
    let server = Server::options(2).arg("--max-connections-per-address", 3).start();
    let _inside: Vec<RawClient> = (0..3).map(|_| RawClient::connect(&server)).collect();
    assert_eq!(status(&server, &request("/", "")), "429");
    RawClient::tcp_from(&server, [127, 0, 0, 2]).upgrade();
    for limit in ["auto", "0"] {
        let server =
            Server::options(2).arg("--max-connections", 10).arg("--max-connections-per-address", limit).start();
        let _inside: Vec<RawClient> = (0..10).map(|_| RawClient::connect(&server)).collect();
        assert_eq!(server.stats()["addresses"], 0);
    }
}

/// A loopback address that a proxy names is that of another machine, or of one more proxy.
#[test]
fn clients_behind_a_proxy_are_never_on_this_machine() {
    for forwarded_for in ["127.0.0.9", "::1", "::ffff:127.0.0.9"] {
        let server = Server::options(2).arg("--trust-proxy", "127.0.0.1").arg("--max-connections", 4).start();
        let request = request("/", &format!("X-Forwarded-For: 203.0.113.7, {forwarded_for}\r\n"));
        let inside: Vec<(RawClient, String)> = (0..3)
            .map(|_| {
                let mut client = RawClient::tcp(&server);
                client.write(request.as_bytes());
                let head = client.head();
                (client, head)
            })
            .collect();
        let refused = inside.iter().filter(|(_, head)| head.starts_with("HTTP/1.1 429 ")).count();
        assert_eq!(refused, 1, "{forwarded_for}");
    }
    let server = behind_proxy(2).arg("--max-connections", 4).start();
    let _inside: Vec<RawClient> = (0..2).map(|_| enter(&server, "127.0.0.9")).collect();
    assert_eq!(status_for(&server, "127.0.0.9"), "429");
}

/// A connection over the limit holds a descriptor only until its refusal is sent, and only some get a refusal.
#[test]
fn a_flood_from_one_address_is_dropped() {
    let options = behind_proxy(2).arg("--max-connections-per-address", 1).arg("--handshake-timeout", 3600);
    let server = options.start();
    let mut admin = Admin::connect(&server);
    let _inside = enter(&server, "203.0.113.7");
    let mut flood: Vec<RawClient> = (0..50).map(|_| tcp_for(&server, "203.0.113.7")).collect();
    // One has a place, and 16 may wait for their refusal: they have not sent a request yet.
    eventually("the others are dropped", || admin.stats()["address_drops"] == 34);
    let stats = admin.stats();
    assert_eq!((&stats["closes_address_connections"], &stats["connections_upgrading"]), (&json!(34), &json!(16)));
    let mut ended =
        || flood.iter_mut().filter_map(|client| client.ends_within(Duration::from_millis(1)).then_some(())).count();
    eventually("their connections have ended", || ended() >= 34);
    assert_eq!(ended(), 34);
}

#[test]
fn the_rate_of_new_connections_of_an_address_is_limited() {
    let server = behind_proxy(2).arg("--max-upgrades-per-address", 1).start();
    let statuses: Vec<String> = (0..30).map(|_| status_for(&server, "203.0.113.7")).collect();
    assert!(statuses[..10].iter().all(|status| status == "101"), "ten seconds' worth may come at once: {statuses:?}");
    assert!(statuses[10..].iter().any(|status| status == "429"), "{statuses:?}");
    let stats = server.stats();
    assert_eq!(stats["closes_address_upgrades"], stats["upgrades_refused_address_upgrades"]);
    // An address is remembered for a second for each of its connections, so not if this machine stalls for as long.
    eventually("both addresses are remembered", || {
        for address in ["203.0.113.7", "203.0.113.8"] {
            (0..5).for_each(|_| drop(status_for(&server, address)));
        }
        server.stat("recent_addresses") == 2
    });
}

/// Limits, operators and the log use the address that trusted proxies report. Reports of other clients are ignored.
fn proxies_report_where_a_connection_comes_from(shards: usize) {
    let options = Server::options(shards).arg("--log", "debug").arg("--trust-proxy", "127.0.0.1");
    let server = options.clone().arg("--trust-proxy", "10.0.0.0/8").arg("--proxy-protocol", "on").start();
    let mut admin = Admin::connect(&server);
    let v4 = |source: [u8; 4]| {
        let addresses = [&source[..], &[192, 0, 2, 1], &50_000u16.to_be_bytes(), &443u16.to_be_bytes()].concat();
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
    };
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let without_address = |family: u8| [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family, 0, 216], &[10; 216]].concat();
    let forwarded = "X-Forwarded-For: 198.51.100.9, 203.0.113.9\r\nX-Forwarded-For: 10.9.9.9\r\n";
    for (header, headers, address, source) in [
        (header_for("203.0.113.7").into_bytes(), "", "203.0.113.7:50000", "PROXY header"),
        (header_for("2001:db8::7").into_bytes(), "", "[2001:db8::7]:50000", "PROXY header"),
        // Not a trusted proxy, so its own headers are ignored.
        (v4([203, 0, 113, 8]), forwarded, "203.0.113.8:50000", "PROXY header"),
        // A trusted proxy behind a trusted proxy.
        (v4([10, 1, 1, 1]), forwarded, "203.0.113.9", "X-Forwarded-For"),
        (v4([10, 1, 1, 1]), "X-Forwarded-For: who knows\r\n", "10.1.1.1:50000", "PROXY header"),
        (local.clone(), "", "127.0.0.1", "peer"),
        // Behind a header without an address, the client itself may have sent the X-Forwarded-For.
        (b"PROXY UNKNOWN\r\n".to_vec(), forwarded, "127.0.0.1", "peer"),
        (b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(), forwarded, "127.0.0.1", "peer"),
        (local, forwarded, "127.0.0.1", "peer"),
        (without_address(0x00), forwarded, "127.0.0.1", "peer"),
        (without_address(0x12), forwarded, "127.0.0.1", "peer"),
        (without_address(0x31), forwarded, "127.0.0.1", "peer"),
    ] {
        let mut client = RawClient::tcp(&server);
        client.write(&header);
        client.write(request("/", headers).as_bytes());
        check_address(&server, &mut admin, client, address, source);
    }
    // From other clients the header is not a valid request.
    let mut client = RawClient::tcp_from(&server, [127, 0, 0, 2]);
    client.write(request("/", forwarded).as_bytes());
    check_address(&server, &mut admin, client, "127.0.0.2", "peer");
    let mut client = RawClient::tcp_from(&server, [127, 0, 0, 2]);
    client.write(header_for("203.0.113.7").as_bytes());
    client.write(request("/", "").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 400 "));

    let server = options.arg("--max-connections-per-address", 1).start();
    let mut admin = Admin::connect(&server);
    for (headers, address, source) in [
        ("X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7", "X-Forwarded-For"),
        ("X-Forwarded-For: 6.6.6.6, [2001:db8::7]:99\r\n", "[2001:db8::7]:99", "X-Forwarded-For"),
        ("X-Forwarded-For: 203.0.113.7, unknown\r\n", "127.0.0.1", "peer"),
        ("", "127.0.0.1", "peer"),
    ] {
        // Requests that arrive in parts, and the first frames with them.
        let request = request("/", headers);
        let (start, end) = request.split_at(request.len() / 2);
        let mut client = RawClient::tcp(&server);
        client.write(start.as_bytes());
        client.write(&[end.as_bytes(), &text_frame(&subscribe("a")), &text_frame(&subscribe("b"))].concat());
        let mut client = check_address(&server, &mut admin, client, address, source);
        client.expect(&subscribed("a"));
        client.expect(&subscribed("b"));
        if source == "X-Forwarded-For" {
            assert_eq!(status(&server, &request), "429", "{headers}");
        }
    }
}

/// A refused request counts as one of the client that the proxy names: in the log, in the live tap, and in the rate of its address.
fn refused_requests_are_those_of_the_client_behind_the_proxy(shards: usize) {
    let server = Server::options(shards)
        .arg("--log", "debug")
        .arg("--trust-proxy", "127.0.0.1")
        .arg("--path", "/live")
        .arg("--max-upgrades-per-address", 1)
        .start();
    let mut tail = Admin::connect(&server);
    tail.ok(json!({"id": 1, "command": "tail", "events": ["refuse"]}));
    let from = |path: &str, client: &str| status(&server, &request(path, &format!("X-Forwarded-For: {client}\r\n")));
    // Ten may come at once, and one more a second.
    let statuses = std::iter::repeat_with(|| from("/other", "203.0.113.7")).take(1000);
    let unlimited: Vec<String> = statuses.take_while(|status| status != "429").collect();
    assert!(unlimited.len() >= 10 && unlimited.iter().all(|status| status == "404"), "{unlimited:?}");
    // The sightings of different shards have no order.
    let mut seen: Vec<Value> = Vec::new();
    for _ in 0..=unlimited.len() {
        let sighting: Value = serde_json::from_str(&tail.line()).expect("JSON");
        assert!(sighting["address"].as_str().is_some_and(|it| it.starts_with("203.0.113.7")), "{sighting}");
        seen.push(sighting["why"].clone());
    }
    let of = |why: &str| seen.iter().filter(|seen| *seen == why).count();
    assert_eq!((of("path_not_served"), of("address_upgrades")), (unlimited.len(), 1), "{seen:?}");
    let refused = |line: &str| line.contains("upgrade refused") && line.contains("why=\"address_upgrades\"");
    eventually("the log has the refusal", || server.stderr().lines().any(refused));
    let logged = server.stderr();
    let mut lines = logged.lines().filter(|line| line.contains("upgrade refused"));
    assert!(lines.all(|line| line.contains("address=\"203.0.113.7\" source=\"X-Forwarded-For\"")), "{logged}");
    assert_eq!(from("/live", "203.0.113.8"), "101", "other clients of the proxy are not limited");
    eventually("no address is counted any more", || server.stats()["addresses"] == 0);
}

/// A client beyond its rate learns nothing but that, whatever it asks for.
fn requests_beyond_the_rate_are_answered_429(shards: usize) {
    let server = Server::options(shards)
        .arg("--path", "/live")
        .arg("--max-upgrades-per-address", 1)
        .arg("--max-connections-per-address", 0)
        .start();
    let ask = |request: &str| {
        let mut client = RawClient::tcp_from(&server, [127, 0, 0, 2]);
        client.write(request.as_bytes());
        String::from_utf8(client.rest()).expect("a text")
    };
    // Ten may come at once. The next second has one more, at most.
    (0..10).for_each(|_| assert!(ask(&request("/other", "")).starts_with("HTTP/1.1 404 ")));
    for request in [request("/other", ""), "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "\u{16}\u{3}\u{1}".into()] {
        let mut answers = std::iter::repeat_with(|| ask(&request)).take(1000);
        let answer = answers.find(|answer| answer.starts_with("HTTP/1.1 429 ")).expect("a refusal");
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{answer}");
    }
}

/// Asserts that the connection opens, and that operators and the log see this address.
#[track_caller]
fn check_address(server: &Server, admin: &mut Admin, mut client: RawClient, address: &str, source: &str) -> RawClient {
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let connected = client.expect_connected();
    let socket_id = connected["data"]["socket_id"].as_str().expect("a text");
    let reply = admin.ok(json!({"id": 1, "command": "connection", "socket_id": socket_id}));
    let found = reply["address"].as_str().expect("a text");
    let is_found = found == address || found.strip_prefix(address).is_some_and(|rest| rest.starts_with(':'));
    assert!(is_found, "{found} instead of {address}");
    let line = || server.stderr().lines().find(|line| line.contains(socket_id)).map(str::to_owned);
    eventually("the log has a line", || line().is_some());
    let line = line().expect("a line");
    assert!(line.contains(&format!("address=\"{address}")), "{line}");
    assert!(line.contains(&format!("source=\"{source}\"")), "{line}");
    client
}

/// In the clear, before TLS.
#[test]
fn a_proxy_header_comes_before_tls() {
    over_tls(|| {
        let server = behind_proxy(2).arg("--log", "debug").start();
        let mut admin = Admin::connect(&server);
        let mut stream = TcpStream::connect(server.address).expect("the server accepts");
        let header = header_for("203.0.113.7");
        let (start, end) = header.split_at(20);
        stream.write_all(start.as_bytes()).expect("the server takes bytes");
        stream.write_all(end.as_bytes()).expect("the server takes bytes");
        let mut client = RawClient::over(stream);
        client.write(request("/", "X-Forwarded-For: 6.6.6.6\r\n").as_bytes());
        check_address(&server, &mut admin, client, "203.0.113.7:50000", "PROXY header");

        let mut client = RawClient::over(TcpStream::connect(server.address).expect("the server accepts"));
        assert!(!client.write_anyway(request("/", "").as_bytes()), "a ClientHello is not a PROXY header");
        assert_eq!(admin.stats()["closes_proxy_header_malformed"], 1);
    });
}

/// The header may arrive in any pieces. Bytes that cannot begin a header end the connection at once.
#[test]
fn a_proxy_header_comes_first_and_whole() {
    let server = behind_proxy(1).arg("--handshake-timeout", 3600).start();
    let header = header_for("203.0.113.7");
    for cut in 1..header.len() {
        let mut client = RawClient::tcp(&server);
        let (start, end) = header.split_at(cut);
        client.write(start.as_bytes());
        client.write(end.as_bytes());
        client.upgrade();
    }
    let mut client = RawClient::tcp(&server);
    (header + &request("/", "")).bytes().for_each(|byte| client.write(&[byte]));
    assert!(client.head().starts_with("HTTP/1.1 101 "));

    for malformed in ["GET / HTTP/1.1\r\n", "PROXY TCP4 203.0.113.7\r\n", "\r\n\r\nG", &"PROXY UNKNOWN ".repeat(9)] {
        let mut client = RawClient::tcp(&server);
        client.write(malformed.as_bytes());
        client.expect_end();
    }
    let mut half = RawClient::tcp(&server);
    half.write(b"PROXY TCP4 203");
    half.finish_writing();
    half.expect_end();
    let stats = server.stats();
    assert_eq!((&stats["closes_proxy_header_malformed"], &stats["upgrades_refused"]), (&json!(4), &json!(0)));
}

/// Slow loris: a byte now and then is not progress, before the request or within it.
#[test]
fn a_client_that_sends_byte_by_byte_is_dropped_at_the_handshake_deadline() {
    let server = behind_proxy(1).arg("--handshake-timeout", 0.5).start();
    for start in ["PROXY UNKNOWN ".to_owned(), header_for("203.0.113.7") + "GET /"] {
        let mut client = RawClient::tcp(&server);
        client.write(start.as_bytes());
        eventually("the server closes the connection", || {
            !client.write_anyway(b"x") || client.ends_within(Duration::from_millis(50))
        });
    }
    let mut admin = Admin::connect(&server);
    let stats = admin.stats();
    assert_eq!(stats["closes_handshake_timeout"], 2);
    assert_eq!((&stats["addresses"], &stats["connections_upgrading"]), (&json!(0), &json!(0)));
}

/// Each request gets one reply, in order. A client that goes on is closed, with the limit in the reason.
#[test]
fn messages_beyond_the_rate_are_refused_and_then_the_connection_closed() {
    let server = Server::options(1).arg("--max-messages-per-second", 1).start();
    let mut client = RawClient::connect(&server);
    let ping = |id: usize| text_frame(&format!(r#"{{"event":"socket:ping","data":{{"id":{id}}}}}"#));
    let pings: Vec<u8> = (0..10).flat_map(ping).collect();
    let requests = [subscribe("a"), unsubscribe("a"), "nonsense".into(), r#"{"event":"socket:pong"}"#.into()];
    let requests: Vec<u8> = requests.iter().flat_map(|request| text_frame(request)).collect();
    // As one read, so that no second passes in between.
    client.write(&[pings, requests, ping(10), frame(opcode::PING, b"x")].concat());
    for id in 0..10 {
        client.expect(&format!(r#"{{"event":"socket:pong","data":{{"reply":{id}}}}}"#));
    }
    assert_error(&client.text(), "socket:subscribe.error", Some("a"), "rate_limited");
    assert_error(&client.text(), "socket:unsubscribe.error", Some("a"), "rate_limited");
    assert_error(&client.text(), "socket:error", None, "rate_limited");
    // Nothing answers a pong, and a WebSocket ping counts in bytes only.
    assert_error(&client.text(), "socket:error", None, "rate_limited");
    assert_eq!(client.frame(), (opcode::PONG, b"x".to_vec()));
    client.write_anyway(&ping(11).repeat(30));
    let (opcode, payload) =
        std::iter::repeat_with(|| client.frame()).find(|(opcode, _)| *opcode == opcode::CLOSE).expect("an end");
    assert_eq!((opcode, &payload[..2]), (opcode::CLOSE, &4102u16.to_be_bytes()[..]));
    assert_eq!(&payload[2..], b"over 1 messages a second for too long: send fewer");
    let mut admin = Admin::connect(&server);
    eventually("it is counted", || admin.stats()["closes_rate_limited"] == 1);
    assert!(admin.stat("messages_rate_limited") >= 6);
    RawClient::connect(&server).write(&ping(0));
}

/// Ten seconds' worth may come at once, subscribes and unsubscribes together. The connection stays open, and others are not
/// limited by it.
fn subscribes_beyond_the_rate_are_refused(shards: usize) {
    let server = Server::options(shards).arg("--max-subscribes-per-second", 5).arg("--max-subscriptions", 50).start();
    let mut client = RawClient::connect(&server);
    let name = |n: usize| format!("channel-{n}");
    let pair = |n| [text_frame(&subscribe(&name(n))), text_frame(&unsubscribe(&name(n)))].concat();
    client.write(&(0..200).flat_map(pair).collect::<Vec<u8>>());
    let replies: Vec<[String; 2]> = (0..200).map(|_| [client.text(), client.text()]).collect();
    for (n, replies) in replies[..25].iter().enumerate() {
        assert_eq!(replies, &[subscribed(&name(n)), unsubscribed(&name(n))]);
    }
    let mut refused = 0;
    for (n, replies) in replies.iter().enumerate() {
        for (event, reply) in ["socket:subscribe.error", "socket:unsubscribe.error"].into_iter().zip(replies) {
            if reply.contains("rate_limited") {
                assert_error(reply, event, Some(&name(n)), "rate_limited");
                assert!(reply.contains("more than 5 times a second"), "{reply}");
                refused += 1;
            }
        }
    }
    // Five a second were not refused, in the time that this took.
    assert!(refused > 0 && refused <= 350, "{refused}");
    let counted = server.stats();
    assert_eq!(counted["subscribes_rate_limited"], refused);
    assert_eq!((&counted["messages_rate_limited"], &counted["closes_rate_limited"]), (&json!(0), &json!(0)));

    client.write(&text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#));
    client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
    let mut other = RawClient::connect(&server);
    other.write(&text_frame(&subscribe("a")));
    other.expect(&subscribed("a"));
    eventually("the client may subscribe again", || {
        client.write(&text_frame(&subscribe("a")));
        client.text() == subscribed("a")
    });
}

/// A client subscribes to all of its channels when it connects. A reload changes the rate of open connections, too.
fn all_subscriptions_may_be_made_at_once(shards: usize) {
    let server = Server::options(shards).config("max-subscribes-per-second = 1\n").start();
    let mut client = RawClient::connect(&server);
    let name = |n: usize| format!("channel-{n}");
    client.write(&(0..128).flat_map(|n| text_frame(&subscribe(&name(n)))).collect::<Vec<u8>>());
    (0..128).for_each(|n| client.expect(&subscribed(&name(n))));
    client.write(&text_frame(&unsubscribe("none")).repeat(200));
    let replies: Vec<String> = (0..200).map(|_| client.text()).collect();
    assert!(replies.iter().any(|reply| reply.contains("rate_limited")), "refused requests count");

    server.write_config("max-subscribes-per-second = 0\n");
    Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    client.write(&text_frame(&unsubscribe("none")).repeat(200));
    (0..200).for_each(|_| client.expect(&not_subscribed("none")));
}

/// Fragments count as they arrive, so that a message without end is not free; WebSocket pings and pongs count in bytes only.
#[test]
fn the_rate_of_messages_counts_data_frames() {
    let server = Server::options(1).arg("--max-messages-per-second", 10).start();
    let fragment = |fin: bool, first: bool, payload: &[u8]| {
        let opcode = if first { opcode::TEXT } else { opcode::CONTINUATION };
        frame_bytes(opcode | if fin { 0x80 } else { 0 }, payload, true)
    };
    // A hundred frames may come at once: a message of more fragments is refused at its last one.
    let mut client = RawClient::connect(&server);
    for _ in 0..500 {
        client.write(&frame(opcode::PING, b"x"));
        assert_eq!(client.frame(), (opcode::PONG, b"x".to_vec()));
    }
    let text = subscribe("a");
    client.write(&fragment(false, true, text.as_bytes()));
    client.write(&fragment(false, false, b"").repeat(150));
    client.write(&fragment(true, false, b""));
    assert_error(&client.text(), "socket:subscribe.error", Some("a"), "rate_limited");

    let mut client = RawClient::connect(&server);
    client.write(&fragment(false, true, b""));
    client.write_anyway(&fragment(false, false, b"").repeat(1000));
    client.expect_close(4102);
}

#[test]
fn bytes_beyond_the_rate_are_refused_and_then_the_connection_closed() {
    let server = Server::options(1).arg("--max-bytes-per-second", 10).arg("--max-message", 1024).start();
    let mut client = RawClient::connect(&server);
    // 1 024 bytes at once: one message may be as long as that.
    let long = text_frame(&format!(r#"{{"event":"socket:pong","data":"{}"}}"#, "x".repeat(900)));
    client.write(&long);
    client.write(&text_frame(&subscribe(&"a".repeat(200))));
    client.expect(&subscribed(&"a".repeat(200)));
    client.write(&text_frame(&subscribe("b")));
    assert_error(&client.text(), "socket:subscribe.error", Some("b"), "rate_limited");
    client.write(&long);
    client.expect_close(4102);

    // Fragments of a message that never ends count as they arrive.
    let mut client = RawClient::connect(&server);
    client.write(&frame_bytes(opcode::TEXT, b"", true));
    let parts = frame_bytes(opcode::CONTINUATION, b"", true).repeat(100);
    for _ in 0..10 {
        client.write_anyway(&parts);
    }
    client.expect_close(4102);
    let mut admin = Admin::connect(&server);
    eventually("both are counted", || admin.stats()["closes_rate_limited"] == 2);
}

/// A reload changes the limits and rules for new connections, in every shard.
#[test]
fn a_reload_changes_which_clients_may_connect() {
    let text = "max-connections-per-address = 2\nallow-origin = [\"https://a.example\", \"http://example.com\"]\n";
    let server = behind_proxy(4).config(text).start();
    let mut admin = Admin::connect(&server);
    let from = |origin: &str| {
        let mut client = tcp_for(&server, "203.0.113.9");
        client.write(request("/", &format!("Origin: https://{origin}\r\n")).as_bytes());
        client.head().split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let mut inside: Vec<RawClient> = (0..2).map(|_| enter(&server, "203.0.113.7")).collect();
    assert_eq!(status_for(&server, "203.0.113.7"), "429");
    assert_eq!((from("a.example"), from("b.example")), ("101".into(), "403".into()));

    server.write_config(
        "max-connections-per-address = 20\nallow-origin = [\"https://b.example\", \"http://example.com\"]\n",
    );
    admin.ok(json!({"id": 1, "command": "reload"}));
    inside.extend((0..18).map(|_| enter(&server, "203.0.113.7")));
    assert_eq!(status_for(&server, "203.0.113.7"), "429");
    (0..8).for_each(|_| assert_eq!((from("a.example"), from("b.example")), ("403".into(), "101".into())));

    // Rates change too, also for an existing connection.
    let mut client = enter(&server, "203.0.113.8");
    server.write_config("max-connections-per-address = 20\nmax-messages-per-second = 1\n");
    admin.ok(json!({"id": 1, "command": "reload"}));
    client.write(&text_frame(&unsubscribe("a")).repeat(11));
    let codes: Vec<Value> =
        (0..11).map(|_| serde_json::from_str::<Value>(&client.text()).expect("JSON")["data"]["code"].clone()).collect();
    assert!(codes[..10].iter().all(|code| code == "not_subscribed") && codes[10] == "rate_limited", "{codes:?}");

    drop(client);

    // Existing connections stay, even if a lower limit has room for fewer.
    server.write_config("max-connections-per-address = 1\n");
    admin.ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(status_for(&server, "203.0.113.7"), "429");
    for client in &mut inside {
        client.write(&text_frame(&subscribe("a")));
        client.expect(&subscribed("a"));
    }
    drop(inside);
    eventually("no connection is counted any more", || admin.stats()["addresses"] == 0);
    let _inside = enter(&server, "203.0.113.7");
    assert_eq!(status_for(&server, "203.0.113.7"), "429");
}

/// A server whose clients come through a load balancer.
fn behind_proxy(shards: usize) -> Options {
    Server::options(shards).arg("--trust-proxy", "127.0.0.1").arg("--proxy-protocol", "on")
}

/// The header that a load balancer sends for a client of this address.
fn header_for(source: &str) -> String {
    let (family, to) = if source.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "192.0.2.1") };
    format!("PROXY {family} {source} {to} 50000 443\r\n")
}

/// A TCP connection through the load balancer, for a client of this address.
fn tcp_for(server: &Server, source: &str) -> RawClient {
    let mut client = RawClient::tcp(server);
    client.write(header_for(source).as_bytes());
    client
}

/// As [`tcp_for`], upgraded.
#[track_caller]
fn enter(server: &Server, source: &str) -> RawClient {
    let mut client = tcp_for(server, source);
    client.upgrade();
    client
}

/// The status that a client of this address gets.
fn status_for(server: &Server, source: &str) -> String {
    let mut client = tcp_for(server, source);
    client.write(request("/", "").as_bytes());
    client.head().split(' ').nth(1).unwrap_or_default().to_owned()
}

/// An upgrade request with these header lines beside those that it needs.
fn request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The status that the request is answered with.
fn status(server: &Server, request: &str) -> String {
    let mut client = RawClient::tcp(server);
    client.write(request.as_bytes());
    client.head().split(' ').nth(1).unwrap_or_default().to_owned()
}
