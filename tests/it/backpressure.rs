//! Backpressure reaches a publisher that is faster than the shards of its subscribers: no message is lost or reordered,
//! and memory stays bounded.

use crate::harness::{Admin, Client, Server, for_shards, unreplied_publishes};
use serde_json::{Value, json};
use std::io::BufRead;
use std::thread;

for_shards!(a_fast_publisher_loses_nothing_and_memory_stays_bounded);

fn a_fast_publisher_loses_nothing_and_memory_stays_bounded(shards: usize) {
    let server = Server::start(shards);
    let clients: Vec<Client> = (0..CHANNELS)
        .map(|channel| {
            let mut client = Client::connect(&server);
            client.subscribe(&format!("c{channel}"));
            client
        })
        .collect();
    let before = server.memory_bytes();
    let peak = thread::scope(|scope| {
        // Written as fast as the socket takes it, while another thread reads the replies.
        let (writer, reader) = Admin::connect(&server).split();
        scope.spawn(move || unreplied_publishes(writer, PUBLISHES, CHANNELS));
        let replies = scope.spawn(move || {
            for (number, line) in reader.lines().take(PUBLISHES).enumerate() {
                let reply: Value = serde_json::from_str(&line.expect("a reply")).expect("a reply is JSON");
                assert_eq!(reply, json!({"id": number, "ok": true, "subscribers": 1}));
            }
        });
        for (channel, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for number in (channel..PUBLISHES).step_by(CHANNELS) {
                    client.expect(&format!(r#"{{"event":"e","channel":"c{channel}","data":{number}}}"#));
                }
                client.expect_nothing_before_pong();
            });
        }
        let mut peak = 0;
        while !replies.is_finished() {
            peak = peak.max(server.memory_bytes());
            thread::sleep(std::time::Duration::from_millis(5));
        }
        peak
    });
    assert!(peak < before + MEMORY_MAX, "{before} bytes before, {peak} at the peak");
}

const CHANNELS: usize = 20;
/// All messages for one subscriber fit into its outbox limit, so no subscriber can be too slow.
const PUBLISHES: usize = 40_000;
/// The messages that wait for the subscribers, the publisher's window and its replies, with room to spare.
const MEMORY_MAX: u64 = 48 << 20;
