//! Short runs of the scenarios that start a corecast, with rules for channels, with Pusher's protocol, or with clients that
//! read no reply. The corecast is the one that was built beside the load generator (`cargo test --workspace` builds both).

use std::process::Command;

/// Runs the load generator. Returns its numbers; all expectations must have been met.
fn load(args: &str) -> serde_json::Value {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args.split(' ')).arg("--json").output().unwrap();
        let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return serde_json::from_str(&said).unwrap();
        }
        // Runs are short, and a machine can stall for all of the measured time.
        let has_stalled = complaints.contains("nothing arrived within the measured time");
        assert!(has_stalled && attempts < 5, "loadtest {args}: {said}{complaints}");
    }
}

#[test]
fn a_fan_out_is_compared_with_one_to_channels_with_history() {
    for shards in [1, 2] {
        let numbers = load(&format!(
            "fanout --start -n 10 -d 0.3 --warmup 0.1 --verify --history 50 --rounds 1 --shards {shards}"
        ));
        assert!(numbers["ratio.rate"].as_f64().unwrap() > 0.0, "{numbers}");
        assert!(numbers["plain.server_rss_peak"].as_f64().unwrap() > 0.0, "{numbers}");
    }
}

#[test]
fn subscribers_recover_what_they_missed() {
    for (shards, processes) in [(1, 2), (2, 1), (4, 1)] {
        // Few publishes, because more than 1 000 cannot be recovered, and a busy machine may be slow.
        let numbers = load(&format!(
            "recover -n 50 -r 100 -d 0.2 --rounds 1 --shards {shards} --processes {processes} --expect since.caught_up>0"
        ));
        assert!(numbers["ratio.caught_up"].as_f64().unwrap() > 0.0, "{numbers}");
    }
}

#[test]
fn slow_readers_of_a_keyed_channel_end_with_the_last_values() {
    // Long enough to fill the readers' outboxes.
    let numbers = load("conflate -n 20 -k 10 -r 1000 -d 6 --neighbours 10 --expect closed=0 --expect behind=0");
    assert!(numbers["conflated"].as_f64().unwrap() > 0.0, "{numbers}");
}

#[test]
fn replies_that_are_not_read_take_little_memory() {
    // 64 KiB of replies and the last one. A server that reads on keeps eight times as much in the first case, and closes the
    // connections in the second.
    let numbers = load(
        "unread -n 30 -d 0.5 --resumed 10 --pingers 5 --rounds 1 --expect limited.waiting.each<80k --expect unlimited.closed=0 \
         --expect unlimited.waiting.each<80k --expect limited.resumed.missing=0",
    );
    assert!(numbers["unlimited.resumed.replies"].as_f64().unwrap() > 0.0, "{numbers}");
}

#[test]
fn views_of_presence_channels_are_right_at_rest() {
    for (shards, processes, grace) in [(1, 2, 1), (2, 1, 0), (4, 1, 1)] {
        let numbers = load(&format!(
            "presence -n 40 -c 10 -r 20 -d 1 --away 0.5 --grace {grace} --shards {shards} --processes {processes} \
             --expect views_wrong=0"
        ));
        assert!(numbers["joins"].as_f64().unwrap() > 0.0, "{numbers}");
    }
}

#[test]
fn subscribers_with_pushers_protocol_miss_nothing() {
    let expect = "-d 0.4 --warmup 0.1 --expect lost=0 --expect invalid=0 --expect unanswered=0 --expect refused=0";
    for (target, options) in [
        ("corecast-pusher", "-c 3 --shards 2 --verify"),
        ("corecast-pusher-rest", "--batch 10 --pipeline 2"),
        ("corecast-both", "-c 3 --pusher-share 0.3 --shards 2 --verify"),
        ("corecast-rest", "--verify"),
    ] {
        let numbers = load(&format!("fanout --start --target {target} -n 20 {options} {expect}"));
        assert!(numbers["metrics"]["events"].as_f64().unwrap() > 0.0, "{numbers}");
    }
    for scenario in ["ping -n 10 --depth 4 --verify", "churn -n 10 -r 500 --shards 2"] {
        load(&format!("{scenario} --start --target corecast-pusher {expect} --expect duplicated=0"));
    }
    load("idle --start --target corecast-both -n 20 -c 2 -d 0.5 --warmup 0.1 --heartbeat 0.1 --expect connected>=20");
    load("connect --start --target corecast-pusher --hold 20 -d 0.5 --warmup 0.1 --expect disconnected=0");
    load("soak --target corecast-both -d 1");
}
