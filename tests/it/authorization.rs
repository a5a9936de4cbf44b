//! The time within which Pusher's clients must be authorized.

use crate::harness::{Client, for_shards};
use crate::pusher_peer::{Pusher, connect, options};

for_shards!(and_over_tls, anonymous_connections_of_pushers_clients_are_closed);

fn anonymous_connections_of_pushers_clients_are_closed(shards: usize) {
    // The clients may stall for less than that before they are authorized.
    let server = options(shards).arg("--pusher-authorize-within", 10).start();
    let mut signed_in = connect(&server);
    signed_in.sign_in(r#"{"id":"7"}"#);
    let mut subscribed = connect(&server);
    subscribed.join("private-a");
    subscribed.leave("private-a");
    let mut native = Client::connect(&server);
    let mut anonymous: Vec<Client> = (0..4).map(|_| connect(&server)).collect();
    for client in &mut anonymous {
        client.join("news");
        client.ask_to_subscribe("private-a b");
        client.expect_event("pusher:subscription_error", Some("private-a b"));
        assert!(client.text().contains(r#""code":null"#));
    }
    for mut client in anonymous {
        assert_eq!(client.expect_close(4009), "Connection not authorized within timeout");
    }
    signed_in.expect_silence();
    subscribed.expect_silence();
    native.expect_nothing_before_pong();
    let stats = server.stats();
    assert_eq!(stats["closes_not_authorized"], 4);
}
