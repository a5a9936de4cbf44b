//! TLS: negotiation, refusals, and how a session ends. The scripts `over_tls` of the other modules show that the
//! protocol is the same over TLS.

use crate::harness::{
    Admin, Client, LONG, RawClient, Server, TempDir, UPGRADE_REQUEST, corecast, eventually, frame, opcode, output,
    shortened, subscribe, subscribed, text_frame,
};
use crate::transport::{Pair, Transport, authority, client_config};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustix::process::Signal;
use rustls::crypto::ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, HandshakeKind};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn both_versions_and_http_1_1_are_negotiated() {
    let server = Server::options(2).secure().start();
    for version in [&TLS12, &TLS13] {
        let mut config = client_config(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut client = connect(&server, &config.into());
        client.upgrade();
        let session = session(&mut client);
        assert_eq!(session.protocol_version(), Some(version.version));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    // No common version or protocol.
    let mut config = client_config(rustls::ALL_VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec()];
    connect(&server, &config.into()).expect_refusal("NoApplicationProtocol");
    eventually("the failed handshake is counted", || server.stat("tls_handshakes_failed") == 1);
    assert_eq!(server.stat("tls_handshakes"), 2);
}

/// A client that reconnects resumes its session on every shard, because the shards share the key of tickets.
#[test]
fn sessions_are_resumed_in_every_shard() {
    for version in [&TLS12, &TLS13] {
        let server = Server::options(4).secure().start();
        let config = Arc::new(client_config(&[version]));
        for round in 0..16 {
            let mut client = connect(&server, &config);
            client.upgrade();
            let kind = if round == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(session(&mut client).handshake_kind(), Some(kind), "{round}");
        }
        let reply = Admin::connect(&server).ok(json!({"id": 1, "command": "stats"}));
        assert_eq!(reply["stats"]["tls_handshakes_resumed"], 15);
        let shards = reply["shards"].as_array().expect("a list");
        assert!(shards.iter().filter(|shard| shard["tls_handshakes_resumed"] != 0).count() > 1, "{shards:?}");
    }
}

/// Anything other than a handshake is answered, counted and, if the reason is known, logged.
#[test]
fn bytes_that_are_not_a_handshake_are_refused() {
    let server = Server::options(1).secure().arg("--log", "debug").start();
    let mut failed = 0;
    let hello = client_hello();
    let mut long = vec![22, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFF];
    long.resize(5 + 0x4000, 0);
    let long = [long, [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat()].concat();
    for (what, bytes, why) in [
        ("plain HTTP", UPGRADE_REQUEST.as_bytes(), "InvalidContentType"),
        ("garbage", &[0xA5; 3000][..], "InvalidContentType"),
        ("a record that is not a hello", &[22, 3, 1, 0, 4, 2, 0, 0, 0], ""),
        ("a record of an old version", &[22, 0, 2, 0, 4, 1, 0, 0, 0], ""),
        ("application data first", &[23, 3, 3, 0, 4, 1, 2, 3, 4], ""),
        ("an alert", &[21, 3, 3, 0, 2, 2, 40], "HandshakeFailure"),
        ("a record longer than they get", &[22, 3, 1, 0xFF, 0xFF, 1], ""),
        ("a hello without an end", &long, "a handshake message over 18437 bytes"),
        ("a hello, then garbage", &[&hello[..], &[0xA5; 100]].concat(), ""),
    ] {
        let mut client = plain(&server);
        client.write_all(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        let said = rest(&mut client);
        assert!(said.is_empty() || said[0] == 21 || said[0] == 22, "{what}: an alert, not {said:?}");
        failed += 1;
        eventually(what, || server.stat("tls_handshakes_failed") == failed);
        assert_eq!(server.stat("closes_tls_failed"), failed, "{what}");
        eventually(what, || {
            let log = server.stderr();
            log.lines().filter(|line| line.contains("TLS failed")).nth(failed as usize - 1).is_some_and(|line| {
                assert!(line.contains(why), "{what}: {line}");
                true
            })
        });
    }
    // Other clients are not affected.
    let mut client = Client::connect(&server);
    client.expect_nothing_before_pong();
    assert_eq!(server.stat("tls_handshakes"), 1);
}

#[test]
fn tls_to_a_plain_port_is_refused() {
    let server = Server::start(1);
    let mut client = plain(&server);
    client.write_all(&client_hello()).expect("taken");
    let said = rest(&mut client);
    assert!(said.starts_with(b"HTTP/1.1 400 "), "{}", shortened(&String::from_utf8_lossy(&said)));
    eventually("the refused upgrade is counted", || server.stat("closes_upgrade_refused") == 1);
}

/// One handshake deadline covers everything before the upgrade is complete, at whichever step the client stops.
#[test]
fn an_incomplete_handshake_times_out() {
    let server = Server::options(1).secure().arg("--handshake-timeout", "0.3").start();
    let hello = client_hello();
    let mut stopped: Vec<TcpStream> = [0, 1, 5, hello.len() / 2, hello.len()]
        .into_iter()
        .map(|len| {
            let mut client = plain(&server);
            client.write_all(&hello[..len]).expect("taken");
            client
        })
        .collect();
    let mut silent = connect(&server, &client_config(rustls::ALL_VERSIONS).into());
    // If this machine stalled, the server may have timed this connection out already.
    silent.write_anyway(b"GET / HTTP/1.1\r\n");
    for client in &mut stopped {
        rest(client);
    }
    silent.expect_end();
    eventually("the timeouts are counted", || server.stat("closes_handshake_timeout") == 6);
    assert_eq!((server.stat("closes_tls_failed"), server.stat("connections_upgrading")), (0, 0));
    // A client that disconnects before the deadline counts as gone.
    let server = Server::options(1).secure().start();
    let mut client = plain(&server);
    client.write_all(&hello[..7]).expect("taken");
    drop(client);
    eventually("the disconnect is counted", || server.stat("closes_client_gone") == 1);
    assert_eq!((server.stat("closes_tls_failed"), server.stat("connections_upgrading")), (0, 0));
}

/// Records may arrive in pieces of any size, or several in one piece.
#[test]
fn a_handshake_in_single_bytes_is_accepted() {
    let server = Server::options(1).secure().start();
    for version in [&TLS12, &TLS13] {
        let mut socket = plain(&server);
        let mut session = client_session(client_config(&[version]));
        session.writer().write_all(UPGRADE_REQUEST.as_bytes()).expect("buffered");
        session.writer().write_all(&text_frame(&subscribe("c"))).expect("buffered");
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(&subscribed("c")) {
            let mut flight = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut flight).expect("a buffer");
            }
            for byte in flight {
                socket.write_all(&[byte]).expect("taken");
            }
            session.read_tls(&mut socket).expect("an answer");
            session.process_new_packets().expect("TLS");
            let _ = session.reader().read_to_end(&mut heard);
        }
    }
}

/// A close ends with close_notify, so that the client can tell it from a truncated stream.
#[test]
fn a_close_ends_with_close_notify() {
    let server = Server::options(1).secure().start();
    let mut client = RawClient::connect(&server);
    client.write(&frame(opcode::CLOSE, &1000_u16.to_be_bytes()));
    assert_eq!(client.frame(), (opcode::CLOSE, 1000_u16.to_be_bytes().to_vec()));
    // rustls reports an end without close_notify as an error.
    assert_eq!(client.transport().read(&mut [0; 1]).expect("an end that was announced"), 0);

    let mut client = RawClient::tcp(&server);
    client.write(b"GET / HTTP/1.1\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 4"));
    let mut end = [0; 4096];
    while client.transport().read(&mut end).expect("an end that was announced") > 0 {}
}

/// A client that sends close_notify still receives its reply. A client may also disconnect without close_notify.
#[test]
fn a_client_may_end_with_and_without_close_notify() {
    let server = Server::options(1).secure().start();
    let mut client = RawClient::connect(&server);
    client.write(&text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#));
    client.finish_writing();
    client.expect(r#"{"event":"socket:pong","data":{"reply":1}}"#);
    assert_eq!(client.transport().read(&mut [0; 1]).expect("an end that was announced"), 0);

    let mut client = Client::connect(&server);
    client.subscribe("c");
    drop(client);
    let mut client = RawClient::connect(&server);
    client.write(&text_frame(&subscribe("c")));
    client.expect(&subscribed("c"));
    client.transport().socket().shutdown(Shutdown::Both).expect("open");
    eventually("the disconnects are counted", || server.stat("closes_client_gone") == 3);
    assert_eq!((server.stat("subscriptions"), server.stat("closes_tls_failed")), (0, 0));
}

/// A session that fails after its handshake ends the connection, and the hub removes its subscriptions.
#[test]
fn a_record_that_was_tampered_with_ends_the_connection() {
    let server = Server::options(2).secure().start();
    let mut client = RawClient::connect(&server);
    client.write(&text_frame(&subscribe("c")));
    client.expect(&subscribed("c"));
    let mut socket = client.transport().socket();
    socket.write_all(&[23, 3, 3, 0, 32]).expect("taken");
    socket.write_all(&[0x5A; 32]).expect("taken");
    let error = client.transport().read(&mut [0; 64]).expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    eventually("the failed session is counted", || server.stat("closes_tls_failed") == 1);
    eventually("its subscription is removed", || server.stat("subscriptions") == 0);
    assert_eq!(server.stat("tls_handshakes_failed"), 0);
}

/// RFC 5246 §7.4.1.1: the first attempt is refused with a warning; a client that repeats it is disconnected.
#[test]
fn renegotiation_is_refused() {
    let server = Server::options(1).secure().start();
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256],
        ..rustls::crypto::ring::default_provider()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority().der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider.into()).with_protocol_versions(&[&TLS12]);
    let mut config = builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
    config.enable_secret_extraction = true;
    let mut session = client_session(config);
    let mut socket = plain(&server);
    while session.is_handshaking() {
        session.complete_io(&mut socket).expect("a handshake");
    }
    let secrets = session.dangerous_extract_secrets().expect("secrets");
    let (mut sequence, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets.tx else {
        panic!("the suite")
    };
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("a key"));
    // A hello, encrypted like the records of this session.
    let hello = &client_hello()[5..];
    let mut renegotiate = |socket: &mut TcpStream| {
        let mut nonce: [u8; 12] = iv.as_ref().try_into().expect("12 bytes");
        nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(nonce, sequence)| *nonce ^= sequence);
        let len = (hello.len() as u16).to_be_bytes();
        let aad = [&u64::to_be_bytes(sequence)[..], &[22, 3, 3], &len].concat();
        let mut sealed = hello.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed).expect("sealed");
        sequence += 1;
        let header = [&[22, 3, 3][..], &(sealed.len() as u16).to_be_bytes()].concat();
        socket.write_all(&[header, sealed].concat()).expect("taken");
    };
    renegotiate(&mut socket);
    let mut alert = [0; 5 + 2 + 16];
    socket.read_exact(&mut alert).expect("a warning");
    assert_eq!(alert[0], 21, "an alert: {alert:?}");
    assert_eq!((server.stat("connections_upgrading"), server.stat("closes_tls_failed")), (1, 0));
    renegotiate(&mut socket);
    assert!(rest(&mut socket).first().is_none_or(|kind| *kind == 21));
    eventually("the client is disconnected", || server.stat("closes_tls_failed") == 1);
}

/// Output that the kernel does not take yet waits, encrypted or not, and is later sent completely and in order.
#[test]
fn a_blocked_write_goes_on() {
    let server = Server::options(2).secure().arg("--outbox-limit", "16MiB").start();
    let mut client = RawClient::tcp_with_small_buffer(&server);
    client.upgrade();
    client.write(&text_frame(&subscribe("c")));
    client.expect(&subscribed("c"));
    let mut admin = Admin::connect(&server);
    // Sizes below and above that of a record.
    let data = |n: usize| format!("{n} {}", "x".repeat(1 + n % 50 * 1999));
    let mut published = 0;
    while server.stat("outbox_bytes") < 200_000 {
        assert_eq!(admin.publish("c", "e", json!(data(published))), 1);
        published += 1;
    }
    for n in 0..published {
        client.expect(&format!(r#"{{"event":"e","channel":"c","data":"{}"}}"#, data(n)));
    }
    eventually("nothing waits", || server.stat("outbox_bytes") == 0);
    assert!(server.stat("writes_blocked") > 0);
}

/// A client that does not read is closed at its outbox limit, as without TLS, and receives everything sent until then.
#[test]
fn a_slow_reader_is_closed_at_its_limit() {
    let server = Server::options(1).secure().arg("--outbox-limit", "64KiB").start();
    let mut client = RawClient::tcp_with_small_buffer(&server);
    client.upgrade();
    client.write(&text_frame(&subscribe("c")));
    client.expect(&subscribed("c"));
    let mut admin = Admin::connect(&server);
    let mut published = 0;
    while server.stat("closes_slow_consumer") == 0 {
        let data = format!("{published} {}", "x".repeat(8000));
        admin.publish("c", "e", json!(data));
        published += 1;
        assert!(published < 10_000, "the slow reader was not closed");
    }
    for n in 0.. {
        let Some((opcode, payload)) = client.try_frame() else { break };
        if opcode == opcode::CLOSE {
            assert_eq!(payload[..2], 4100_u16.to_be_bytes());
            break;
        }
        let text = String::from_utf8(payload).expect("UTF-8");
        assert!(text.starts_with(&format!(r#"{{"event":"e","channel":"c","data":"{n} "#)), "{n}: {}", shortened(&text));
        assert!(n < published);
    }
}

/// With more handshakes at once than fit into a turn, all are finished, and connected clients are answered meanwhile.
#[test]
fn many_handshakes_at_once_are_finished() {
    const CLIENTS: usize = 100;
    let server = Server::options(1).secure().arg("--handshake-timeout", 3600).start();
    let mut connected = Client::connect(&server);
    let hello = client_hello();
    // Each client stops its handshake after the server's part.
    let mut storm: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = plain(&server);
            client.write_all(&hello).expect("taken");
            client
        })
        .collect();
    connected.expect_nothing_before_pong();
    for client in &mut storm {
        let mut record = [0; 5];
        client.read_exact(&mut record).expect("the server's hello");
        assert_eq!(record[0], 22);
    }
    let clients: Vec<Client> = (0..8).map(|_| Client::connect(&server)).collect();
    assert_eq!(server.stat("tls_handshakes"), 1 + clients.len() as u64);
    drop(storm);
    eventually("the disconnects are counted", || server.stat("closes_client_gone") == CLIENTS as u64);
    assert_eq!(server.stat("newcomers_waiting"), 0);
}

/// New connections get the new certificate, old ones continue. A certificate and key that do not match change nothing.
#[test]
fn a_certificate_is_renewed_under_live_connections() {
    let server = Server::options(2).secure().start();
    let pair = server.pair.as_ref().expect("a pair");
    let mut old = Client::connect(&server);
    old.subscribe("c");
    let shown = |server: &Server| {
        // With its own configuration, so that it does not resume a session with the old certificate.
        let mut client = connect(server, &client_config(rustls::ALL_VERSIONS).into());
        client.upgrade();
        session(&mut client).peer_certificates().expect("a chain")[0].clone()
    };
    assert_eq!(shown(&server), pair.der);

    // The key belongs to another certificate.
    let dir = TempDir::new();
    let other = Pair::make(dir.path());
    let key = std::fs::read(&pair.key).expect("a key");
    std::fs::copy(&other.key, &pair.key).expect("copied");
    let reply = Admin::connect(&server).request(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["ok"], false, "{reply}");
    assert!(reply["error"].as_str().expect("a text").contains("is not that of the first certificate"), "{reply}");
    assert_eq!(shown(&server), pair.der);
    std::fs::write(&pair.key, key).expect("written");

    // A reload with the same files changes nothing, and tickets stay valid.
    let config = Arc::new(client_config(rustls::ALL_VERSIONS));
    connect(&server, &config).upgrade();
    let reply = Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["changes"], json!([]));
    let mut client = connect(&server, &config);
    client.upgrade();
    assert_eq!(session(&mut client).handshake_kind(), Some(HandshakeKind::Resumed));

    let renewed = Pair::make(pair.cert.parent().expect("a directory"));
    let reply = Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(reply["changes"].as_array().map(Vec::len), Some(1), "{reply}");
    assert_eq!(reply["changes"][0]["option"], "tls-cert");
    assert_eq!(shown(&server), renewed.der);
    Admin::connect(&server).publish("c", "e", json!(1));
    old.expect(r#"{"event":"e","channel":"c","data":1}"#);

    let again = Pair::make(pair.cert.parent().expect("a directory"));
    server.signal(Signal::HUP);
    eventually("new connections get the new certificate", || shown(&server) == again.der);
    old.expect_nothing_before_pong();
}

#[test]
fn an_expiring_certificate_causes_a_warning() {
    let day = Duration::from_secs(24 * 3600);
    // A limit that every machine can hold, so that it causes no other warning.
    let server = Server::options(2).secure().arg("--max-connections", 50).start();
    assert_eq!(server.stat("tls_certificate_days"), 89);
    assert!(!server.stderr().contains("WARN"), "{}", server.stderr());

    let pair = server.pair.as_ref().expect("a pair");
    Pair::expiring(pair.cert.parent().expect("a directory"), 5 * day + day / 2);
    Admin::connect(&server).ok(json!({"id": 1, "command": "reload"}));
    assert_eq!(server.stat("tls_certificate_days"), 5);
    let warning = format!("the certificate in {} expires in 5 days; renew it, then reload", pair.cert.display());
    eventually("it is logged", || server.stderr().contains(&warning));

    let mut check = corecast(&["serve", "--check-config", "--max-connections", "50", "--tls-cert"]);
    check.arg(&pair.cert).arg("--tls-key").arg(&pair.key);
    let checked = output(check, b"");
    assert!(checked.status.success());
    assert_eq!(String::from_utf8_lossy(&checked.stderr), format!("warning: {warning}\n"));
    assert_eq!(Server::start(1).stat("tls_certificate_days"), 0);
}

#[test]
fn subscribe_speaks_tls() {
    let server = Server::options(1).secure().start();
    let dir = TempDir::new();
    let ca = dir.path().join("authority.pem");
    std::fs::write(&ca, authority().pem()).expect("written");
    let url = format!("wss://localhost:{}", server.address.port());
    let ca = ca.to_str().expect("UTF-8");
    let mut admin = Admin::connect(&server);
    for trust in [&["--ca", ca][..], &["--insecure"]] {
        let args = [&["subscribe", "c", "--count", "1", "--url", &url][..], trust].concat();
        let heard = std::thread::scope(|scope| {
            let heard = scope.spawn(|| output(corecast(&args), b""));
            eventually("it is subscribed", || admin.subscribers("c") == 1);
            admin.publish("c", "e", json!(7));
            heard.join().expect("no panic")
        });
        assert_eq!(String::from_utf8_lossy(&heard.stdout), "{\"event\":\"e\",\"channel\":\"c\",\"data\":7}\n");
        eventually("it is gone", || admin.subscribers("c") == 0);
    }
    let refused = output(corecast(&["subscribe", "c", "--url", &url]), b"");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("UnknownIssuer"), "{text}");
}

/// A client with this configuration; nothing is sent yet.
fn connect(server: &Server, config: &Arc<ClientConfig>) -> RawClient {
    RawClient::over_transport(Transport::tls(plain(server), config.clone()))
}

/// A bare socket.
fn plain(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.address).expect("the server accepts");
    socket.set_read_timeout(Some(LONG)).expect("socket option");
    socket.set_write_timeout(Some(LONG)).expect("socket option");
    socket.set_nodelay(true).expect("socket option");
    socket
}

fn session(client: &mut RawClient) -> &ClientConnection {
    match client.transport() {
        Transport::Tls(tls) => &tls.conn,
        Transport::Plain(_) => panic!("no session"),
    }
}

fn client_session(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(config.into(), ServerName::try_from("localhost").expect("a name")).expect("a session")
}

/// The first record of a client that speaks both versions.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    client_session(client_config(rustls::ALL_VERSIONS)).write_tls(&mut hello).expect("a buffer");
    hello
}

/// Everything that arrives until the server closes the connection.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("waiting for the end of the connection: {error}"),
    }
    rest
}

impl RawClient {
    /// The handshake ends with this alert.
    #[track_caller]
    fn expect_refusal(&mut self, alert: &str) {
        let error = self.transport().read(&mut [0; 1]).expect_err("a refusal");
        assert!(error.to_string().contains(alert), "{error}");
    }
}
