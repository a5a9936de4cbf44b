//! Clients and operators that mean no good, or know no better: what they must not be able to do.

use crate::harness::{
    RawClient, Server, UPGRADE_REQUEST, for_shards, subscribe, subscribed, text_frame, unsubscribe, unsubscribed,
};

for_shards!(pipelined_requests_are_all_answered);

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

/// So many requests in one write that the connection is not read until their replies are on their way: each is answered,
/// without anything else happening in the server that would wake it.
fn pipelined_requests_are_all_answered(shards: usize) {
    const REQUESTS: usize = 5000;
    let server = Server::options(shards).heart(3600, 3600).start();
    for channel in 0..2 * shards {
        let channel = format!("c{channel}");
        let mut client = RawClient::connect(&server);
        let pair = [text_frame(&subscribe(&channel)), text_frame(&unsubscribe(&channel))].concat();
        client.write(&pair.repeat(REQUESTS / 2));
        for _ in 0..REQUESTS / 2 {
            client.expect(&subscribed(&channel));
            client.expect(&unsubscribed(&channel));
        }
    }
}
