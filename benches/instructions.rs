//! The program of `make instructions`: the data path of one shard without its sockets, for a number of turns. callgrind counts
//! its instructions for two numbers of turns; the difference is the cost of the turns between, whatever the load of the machine.
//!
//! `instructions publish-1|publish-256|line-0|line-1|kept-0|kept-1|ping-1|ping-16 TURNS`

#[path = "../tests/support/data_path.rs"]
mod data_path;

use data_path::{DataPath, KEPT, PLAIN, ping_frame, publish_line};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [what, turns] = &arguments[..] else {
        // `cargo bench` runs every bench, but there is nothing to time here.
        println!("counted by `make instructions`");
        return;
    };
    let turns: usize = turns.parse().expect("a number of turns");
    let subscribers = match what.as_str() {
        "line-0" | "kept-0" => 0,
        "line-1" | "kept-1" => 1,
        _ => 1000,
    };
    let channel = if what.starts_with("kept") { KEPT } else { PLAIN };
    let mut path = DataPath::new(channel, subscribers);
    let line = publish_line(channel);
    match what.as_str() {
        "line-0" | "line-1" | "kept-0" | "kept-1" => publishes(&mut path, &line, 100, turns),
        "publish-1" => publishes(&mut path, &line, 1, turns),
        "publish-256" => publishes(&mut path, &line, 256, turns),
        "ping-1" => pings(&mut path, 1, turns),
        "ping-16" => pings(&mut path, 16, turns),
        other => panic!("unknown: {other}"),
    }
    println!("{} bytes written", path.sink.bytes);
}

fn pings(path: &mut DataPath, depth: usize, turns: usize) {
    let read = ping_frame().repeat(depth);
    let mut bytes = read.clone();
    for _ in 0..turns {
        for slot in 0..100 {
            bytes.copy_from_slice(&read);
            path.frames(slot, &mut bytes);
        }
        path.flush();
    }
}

fn publishes(path: &mut DataPath, line: &[u8], messages: usize, turns: usize) {
    for _ in 0..turns {
        (0..messages).for_each(|_| path.line(line));
        path.flush();
    }
}
