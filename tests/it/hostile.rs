//! Clients and operators that mean no good, or know no better: what they must not be able to do.

use crate::harness::{RawClient, Server, UPGRADE_REQUEST};

/// A parser that takes a bare line feed for the end of a line sees such a request end before the server does.
#[test]
fn a_request_of_bare_line_feeds_is_refused() {
    let server = Server::start(1);
    let mut client = RawClient::tcp(&server);
    client.write(format!("{}and more", UPGRADE_REQUEST.replace("\r\n", "\n")).as_bytes());
    // Until the first part has been read: the server answers each connection in turn.
    RawClient::connect(&server);
    client.write(b"\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 400 "));
    RawClient::connect(&server);
}
