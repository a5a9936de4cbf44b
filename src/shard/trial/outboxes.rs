//! The limit of the memory of all outboxes together.

use super::{House, text_frame};
use crate::hub::Urgency;
use crate::ids::Slot;
use crate::protocol::close::CloseReason;
use crate::shard::Shard;
use crate::shard::clients::Clients;
use crate::wire::frame::{self, Opcode};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const LIMIT: usize = 1 << 20;

fn house(clients: usize) -> (House, Vec<TcpStream>) {
    let mut house = House::new(1, |live| live.limits.shard_outboxes_bytes_max = LIMIT);
    let clients = house.connect(0, clients);
    house.pass(Duration::from_secs(2));
    clients.iter().for_each(|client| client.set_nonblocking(true).expect("a socket option"));
    (house, clients)
}

fn closed(clients: &Clients) -> u64 {
    clients.closes()[CloseReason::OutboxMemory { limit: 0, pending: 0 }.kind()]
}

/// Reads all that is there. Returns whether the client has been told why it was closed, or has been cut off.
fn is_told(client: &mut TcpStream, inbound: &mut Vec<u8>) -> bool {
    let is_cut_off = !matches!(client.read_to_end(inbound), Err(error) if error.kind() == ErrorKind::WouldBlock);
    let is_close = |bytes: &[u8]| bytes[0] == 0x88 && bytes[2..] == 4100_u16.to_be_bytes();
    let text = inbound.windows(4).position(is_close).map(|at| str::from_utf8(&inbound[at + 4..]).expect("text"));
    assert!(text.is_none_or(|text| text.starts_with("all outboxes over 1048576 bytes (")), "{text:?}");
    text.is_some() || is_cut_off
}

/// Some of the clients send pings and read no reply.
#[test]
fn clients_that_do_not_read_their_replies_are_closed_until_the_rest_fits() {
    const DEAF: usize = 30;
    let (mut house, mut clients) = house(DEAF + 5);
    let ping = text_frame(r#"{"event":"socket:ping","data":{"id":1}}"#);
    let pings = ping.repeat(10_000);
    let (deaf, others) = clients.split_at_mut(DEAF);
    let mut sent = [0; DEAF];
    let mut idle_turns = 0;
    while idle_turns < 100 {
        idle_turns += 1;
        for (client, sent) in deaf.iter_mut().zip(&mut sent) {
            let taken = client.write(&pings[*sent..]).unwrap_or(0);
            *sent += taken;
            idle_turns = if taken > 0 { 0 } else { idle_turns };
        }
        house.turn(0);
        let used = house.shards[0].hub.pages().used_bytes();
        assert!(used <= LIMIT, "{used} bytes after a turn");
    }
    // Each of them waits for 64 to 128 KiB of replies, on pages of which half may be empty.
    let closed_first = closed(&house.shards[0].clients);
    assert!((DEAF as u64 - 16..=DEAF as u64 - 4).contains(&closed_first), "{closed_first} of {DEAF} are closed");
    assert_eq!(house.shards[0].clients.count_open() as u64, (DEAF + 5) as u64 - closed_first);
    for client in others {
        client.write_all(&ping).expect("room");
        house.rest();
        let mut inbound = Vec::new();
        assert!(!is_told(client, &mut inbound) && inbound.ends_with(b"{\"reply\":1}}"), "{inbound:?}");
    }
    // The kernel may take a while to send what waits. What the others sent may close some more.
    let (mut inbound, mut told) = (vec![Vec::new(); DEAF], 0);
    while told != closed(&house.shards[0].clients) {
        assert!(told < closed(&house.shards[0].clients), "{told} are told, and fewer are closed");
        house.turn(0);
        told = deaf
            .iter_mut()
            .zip(&mut inbound)
            .filter_map(|(client, inbound)| is_told(client, inbound).then_some(1))
            .sum();
    }
}

/// What many wait for is held once, so closing one of them frees nothing.
#[test]
fn a_share_of_what_many_wait_for_counts_less_than_what_one_waits_for() {
    const MANY: Slot = 30;
    let (mut house, _peers) = house(MANY as usize + 3);
    let Shard { clients, hub, .. } = &mut house.shards[0];
    let mut append = |to: std::ops::Range<Slot>, frames: usize| {
        let page = hub.pages_mut().open();
        let chunk =
            hub.pages_mut().append(page, |out| (0..frames).for_each(|_| frame::encode_header(out, Opcode::Text, 0)));
        to.for_each(|slot| clients.output.append(hub.pages_mut(), slot, chunk, Urgency::Soon, || false));
        hub.pages_mut().release(page);
    };
    append(0..MANY, 250_000);
    (MANY..MANY + 3).for_each(|slot| append(slot..slot + 1, 125_000));
    house.rest();
    let clients = &house.shards[0].clients;
    // 512 KiB that many wait for, and 256 KiB for each of the three.
    assert_eq!(closed(clients), 2);
    assert!((0..MANY).all(|slot| clients.output.waiting(slot) > 2), "one of the many was cut off");
}
