//! Decoding and encoding frames, beside tungstenite on the same bytes.
//!
//! Both decoders get their input by a copy, as a read from a socket would make it. `cargo bench --bench frame`

use corecast::config::Access;
use corecast::wire::{
    decoder::{Decoder, Message},
    frame::{Opcode, encode_header},
    upgrade::{Upgrade, upgrade},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{
    hint::black_box,
    io,
    time::{Duration, SystemTime},
};
use tungstenite::{
    handshake::{
        derive_accept_key,
        machine::TryParse,
        server::{Request, create_response, write_response},
    },
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

#[expect(clippy::too_many_lines, reason = "a bench for each shape of input")]
fn decode(c: &mut Criterion) {
    let ping = br#"{"event":"socket:ping","data":{"id":1}}"#;
    assert_eq!(ping.len(), 39);
    let text = [b'x'; 128];
    let whole = |payload: &[u8]| masked(0x81, payload);
    let fragments: Vec<u8> =
        text.chunks(32).enumerate().flat_map(|(index, chunk)| masked([0x01, 0x00, 0x00, 0x80][index], chunk)).collect();
    let large = [b'x'; 16 * 1024];

    for (name, message, messages) in [
        ("ping_39B_1_per_read", whole(ping), 1),
        ("ping_39B_16_per_read", whole(ping), 16),
        ("text_128B_1_per_read", whole(&text), 1),
        ("text_128B_16_per_read", whole(&text), 16),
        ("text_128B_in_4_fragments_1_per_read", fragments, 1),
        ("text_16KiB_1_per_read", whole(&large), 1),
    ] {
        let read = message.repeat(messages);
        let mut group = c.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Elements(messages as u64));

        group.bench_function("corecast", |b| {
            let mut decoder = Decoder::default();
            let mut buffer = vec![0; read.len() + PAGE];
            let input = away_from(&read, &mut buffer);
            b.iter(|| {
                input.copy_from_slice(black_box(&read));
                let mut at = 0;
                let mut text_bytes = 0;
                while let Some(message) = decoder.next(input, &mut at, 1 << 20, &mut 0).unwrap() {
                    let Message::Text(text) = message else { panic!("{message:?}") };
                    text_bytes += text.len();
                }
                text_bytes
            });
        });

        group.bench_function("tungstenite", |b| {
            let config = WebSocketConfig::default().read_buffer_size(64 * 1024);
            let mut context = WebSocketContext::new(Role::Server, Some(config));
            b.iter(|| {
                let mut pipe = Pipe(black_box(&read));
                (0..messages).map(|_| context.read(&mut pipe).unwrap().len()).sum::<usize>()
            });
        });

        // Reads that end in the middle of a frame.
        group.bench_function("corecast_cut_in_two", |b| {
            let mut decoder = Decoder::default();
            let mut buffer = vec![0; read.len() + PAGE];
            let input = away_from(&read, &mut buffer);
            let cut = read.len() / 2 + 20;
            b.iter(|| {
                input.copy_from_slice(black_box(&read));
                let (head, tail) = input.split_at_mut(cut);
                let mut text_bytes = 0;
                for piece in [head, tail] {
                    let mut at = 0;
                    while let Some(message) = decoder.next(piece, &mut at, 1 << 20, &mut 0).unwrap() {
                        let Message::Text(text) = message else { panic!("{message:?}") };
                        text_bytes += text.len();
                    }
                }
                text_bytes
            });
        });
        group.finish();
    }
}

fn encode(c: &mut Criterion) {
    let payload = [b'x'; 128];
    let mut out = Vec::with_capacity(256);
    c.bench_function("encode/header_and_128B", |b| {
        b.iter(|| {
            out.clear();
            encode_header(&mut out, Opcode::Text, black_box(&payload).len());
            out.extend_from_slice(black_box(&payload));
            out.len()
        });
    });
}

fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("upgrade");
    group.throughput(Throughput::Elements(1));
    let mut out = Vec::with_capacity(512);
    let access = Access::default();
    for (name, request) in [("lean", LEAN), ("browser", BROWSER)] {
        group.bench_function(format!("{name}/corecast"), |b| {
            b.iter(|| {
                out.clear();
                let upgrade =
                    upgrade(black_box(request.as_bytes()), &access, false, SystemTime::UNIX_EPOCH.into(), &mut out);
                assert!(matches!(upgrade, Upgrade::Accepted { .. }));
            });
        });
        group.bench_function(format!("{name}/tungstenite"), |b| {
            b.iter(|| {
                out.clear();
                let (_, request) = Request::try_parse(black_box(request.as_bytes())).unwrap().unwrap();
                write_response(&mut out, &create_response(&request).unwrap()).unwrap();
            });
        });
    }
    group.bench_function("browser/parse_alone", |b| {
        b.iter(|| Request::try_parse(black_box(BROWSER.as_bytes())).unwrap())
    });
    group.bench_function("accept_key_alone", |b| b.iter(|| derive_accept_key(black_box(b"dGhlIHNhbXBsZSBub25jZQ=="))));
    group.bench_function("browser/byte_by_byte", |b| {
        b.iter(|| {
            out.clear();
            for len in 1..=BROWSER.len() {
                black_box(upgrade(
                    black_box(&BROWSER.as_bytes()[..len]),
                    &access,
                    false,
                    SystemTime::UNIX_EPOCH.into(),
                    &mut out,
                ));
            }
        });
    });
    group.finish();
}

/// The part of `buffer` that is as long as `read` and half a page away from it, modulo a page: a copy between addresses
/// that are equal modulo a page stalls on most processors, and took 20 times as long for 16 KiB.
fn away_from<'a>(read: &[u8], buffer: &'a mut [u8]) -> &'a mut [u8] {
    let start = (read.as_ptr() as usize + PAGE / 2).wrapping_sub(buffer.as_ptr() as usize) % PAGE;
    &mut buffer[start..start + read.len()]
}

/// A source that fills one buffer in one read.
struct Pipe<'a>(&'a [u8]);

impl io::Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl io::Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = Vec::new();
    encode_header(&mut bytes, Opcode::Text, payload.len());
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

const PAGE: usize = 4096;

const LEAN: &str = "GET / HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    Connection: Upgrade\r\n\
    Upgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    \r\n";

const BROWSER: &str = "GET /live?token=abcdef HTTP/1.1\r\n\
    Host: push.example.com\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: https://www.example.com\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
    \r\n";

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = decode, encode, handshake
}
criterion_main!(benches);
