//! Each subcommand as a process against a running server: text without `--json`, JSON with it.

use crate::harness::{
    Admin, Client, LONG, RawClient, Server, TempDir, UPGRADE_REQUEST, corecast, eventually, for_shards, output,
    shortened, unsubscribed,
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

for_shards!(
    ping,
    publish,
    publish_from_stdin,
    channels,
    channel,
    connections,
    subscribers,
    connection,
    disconnect,
    unsubscribe,
    busiest,
    stats,
);

/// Stdout of a successful run.
#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

/// The JSON values, one or several, on stdout of a successful run.
#[track_caller]
fn json_values(output: &Output) -> Vec<Value> {
    let text = stdout(output);
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let values = values.unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {text}"));
    assert!(!values.is_empty(), "--json prints nothing");
    values
}

/// Runs a subcommand without and with --json; returns the text, and the JSON in compact form.
#[track_caller]
fn both(server: &Server, args: &[&str]) -> (String, String) {
    let human = stdout(&server.run(args));
    let json = json_values(&server.run(&[args, &["--json"]].concat()));
    let json = json.iter().map(Value::to_string).collect();
    (human, json)
}

/// Asserts that a run failed and that stderr mentions this.
#[track_caller]
fn assert_fails(output: &Output, mention: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(stderr.contains(mention), "stderr does not mention {mention:?}: {stderr}");
}

#[track_caller]
fn assert_contains(text: &str, part: impl ToString) {
    let part = part.to_string();
    assert!(text.contains(&part), "no {part} in {}", shortened(text));
}

fn ping(shards: usize) {
    let server = Server::start(shards);
    let (_, json) = both(&server, &["ping"]);
    assert_contains(&json, "true");
}

fn publish(shards: usize) {
    let server = Server::start(shards);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.subscribe("user:13");
    }
    for data in [r#"{ "id": 1e999 }"#, "42", r#""text""#, "null", "-1", "[]"] {
        let (human, json) = both(&server, &["publish", "user:13", "order.paid", data]);
        assert_contains(&human, 3);
        assert_contains(&json, r#""subscribers":3"#);
        for client in &mut clients {
            for _ in 0..2 {
                client.expect(&format!(r#"{{"event":"order.paid","channel":"user:13","data":{data}}}"#));
            }
        }
    }
    stdout(&server.run(&["publish", "user:13", "tick"]));
    for client in &mut clients {
        client.expect(r#"{"event":"tick","channel":"user:13"}"#);
    }
    // A channel that is named twice gets one message.
    stdout(&server.run(&["publish", "user:13", "tick", "2", "--also", "user:13"]));
    for client in &mut clients {
        client.expect(r#"{"event":"tick","channel":"user:13","data":2}"#);
        client.expect_nothing_before_pong();
    }
    let left_out = clients[0].socket_id.clone();
    let (_, json) = both(&server, &["publish", "user:13", "tick", "1", "--exclude", &left_out]);
    assert_contains(&json, r#""subscribers":2"#);
    clients[0].expect_nothing_before_pong();
    for client in &mut clients[1..] {
        client.expect(r#"{"event":"tick","channel":"user:13","data":1}"#);
    }
    assert!(!server.run(&["publish", "user:13", "socket:ping"]).status.success());
    assert!(!server.run(&["publish", "bad name", "e"]).status.success());
    assert!(!server.run(&["publish", "user:13", "e", "{no json"]).status.success());
}

fn publish_from_stdin(shards: usize) {
    const COUNT: usize = 5_000;
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let input = (0..COUNT).fold(String::new(), |mut input, n| {
        writeln!(input, r#"{{"channel":"user:13","event":"e","data":{{ "n": {n} }}}}"#).expect("a String takes text");
        input
    });
    let output = server.run_with_input(&["publish", "--stdin"], input.as_bytes());
    assert!(output.status.success(), "{output:?}");
    for n in 0..COUNT {
        client.expect(&format!(r#"{{"event":"e","channel":"user:13","data":{{ "n": {n} }}}}"#));
    }
    client.expect_nothing_before_pong();

    // A bad line among good ones makes the run fail, but the good ones are published.
    let input = "{\"channel\":\"user:13\",\"event\":\"first\"}\n{\"channel\":\"user:13\",\"event\":\"socket:x\"}\n";
    let output = server.run_with_input(&["publish", "--stdin"], input.as_bytes());
    assert!(!output.status.success(), "{output:?}");
    assert!(!output.stderr.is_empty(), "stderr does not name the refused line");
    client.expect(r#"{"event":"first","channel":"user:13"}"#);
    client.expect_nothing_before_pong();
    // Empty input is not a failure.
    stdout(&server.run_with_input(&["publish", "--stdin"], b""));
}

fn channels(shards: usize) {
    let server = Server::start(shards);
    both_may_be_empty(&server, &["channels"]);
    let mut client = Client::connect(&server);
    let mut other = Client::connect(&server);
    for channel in ["room:1", "room:2", "user:13"] {
        client.subscribe(channel);
    }
    other.subscribe("room:2");
    let (human, json) = both(&server, &["channels"]);
    for text in [&human, &json] {
        for channel in ["room:1", "room:2", "user:13"] {
            assert_contains(text, channel);
        }
    }
    assert_contains(&json, r#""subscribers":2"#);
    let (human, json) = both(&server, &["channels", "--prefix", "room:"]);
    for text in [&human, &json] {
        assert_contains(text, "room:1");
        assert_contains(text, "room:2");
        assert!(!text.contains("user:13"), "{text}");
    }
}

/// Runs a subcommand without and with --json, whose output may be empty.
#[track_caller]
fn both_may_be_empty(server: &Server, args: &[&str]) {
    stdout(&server.run(args));
    stdout(&server.run(&[args, &["--json"]].concat()));
}

fn channel(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let (human, json) = both(&server, &["channel", "user:13"]);
    assert_contains(&human, 1);
    assert_contains(&json, r#""channel":"user:13""#);
    assert_contains(&json, r#""subscribers":1"#);
    let (_, json) = both(&server, &["channel", "empty"]);
    assert_contains(&json, r#""subscribers":0"#);
}

fn subscribers(shards: usize) {
    let server = Server::start(shards);
    let (human, json) = both(&server, &["subscribers", "user:13"]);
    assert_eq!(human, "no subscribers\n");
    assert_contains(&json, r#""subscribers":[]"#);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    clients[1..].iter_mut().for_each(|client| client.subscribe("user:13"));
    let (human, json) = both(&server, &["subscribers", "user:13", "--limit", "1", "--all"]);
    assert!(human.starts_with("SOCKET_ID ") && human.lines().count() == 3, "{human}");
    for client in &clients[1..] {
        assert_contains(&human, &client.socket_id);
        assert_contains(&json, &client.socket_id);
    }
    assert_fails(&server.run(&["subscribers", "not legal"]), "invalid_channel");
}

fn connections(shards: usize) {
    let server = Server::start(shards);
    both_may_be_empty(&server, &["connections"]);
    let clients: Vec<Client> = (0..5).map(|_| Client::connect(&server)).collect();
    let (human, json) = both(&server, &["connections"]);
    for client in &clients {
        for text in [&human, &json] {
            assert_contains(text, &client.socket_id);
            assert_contains(text, client.address());
        }
    }
}

fn connection(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    client.subscribe("user:13");
    let (human, json) = both(&server, &["connection", &client.socket_id]);
    for text in [&human, &json] {
        assert_contains(text, &client.socket_id);
        assert_contains(text, client.address());
        assert_contains(text, "user:13");
    }
    let output = server.run(&["connection", "1ba1b6cb-0127-48f8-b5a5-9fd79a7c68a6"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(!output.stderr.is_empty(), "stderr does not report the missing connection");
}

fn disconnect(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    stdout(&server.run(&["disconnect", &client.socket_id]));
    client.expect_close(4000);
    let mut client = Client::connect(&server);
    let arguments = ["disconnect", &client.socket_id, "--code", "4321", "--reason", "go away", "--json"];
    json_values(&server.run(&arguments));
    assert_eq!(client.expect_close(4321), "go away");
    let mut client = Client::connect(&server);
    assert!(!server.run(&["disconnect", &client.socket_id, "--code", "1000"]).status.success());
    client.expect_nothing_before_pong();
}

fn unsubscribe(shards: usize) {
    let server = Server::start(shards);
    let mut client = Client::connect(&server);
    for args in [&[][..], &["--json"]] {
        client.subscribe("user:13");
        let output = server.run(&[&["unsubscribe", client.socket_id.as_str(), "user:13"], args].concat());
        assert!(output.status.success(), "{output:?}");
        client.expect(&unsubscribed("user:13"));
    }
    let output = server.run(&["unsubscribe", &client.socket_id, "user:13"]);
    assert!(!output.status.success(), "{output:?}");
}

fn busiest(shards: usize) {
    let server = Server::start(shards);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&server)).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news"));
    clients[0].subscribe("user:13");
    Admin::connect(&server).publish("user:13", "e", json!(1));
    for (by, first) in [("subscribers", "news"), ("messages", "user:13")] {
        let (human, json) = both(&server, &["busiest", "--by", by, "--limit", "1"]);
        assert_contains(human.lines().nth(1).expect("a channel"), first);
        assert_contains(&human, "--max-connections-per-address");
        assert_contains(&json, format!(r#""channels":[{{"channel":"{first}""#));
    }
    assert!(!server.run(&["busiest", "--by", "bytes"]).status.success());
}

fn stats(shards: usize) {
    let server = Server::start(shards);
    let names = server.stats();
    let (human, json) = both(&server, &["stats"]);
    for name in names.as_object().expect("an object").keys() {
        assert_contains(&json, name);
    }
    assert!(human.lines().count() > 1, "{human}");
}

#[test]
fn output_of_another_server_cannot_control_the_terminal() {
    let dir = TempDir::new();
    let path = dir.path().join("other.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let replies = [
        "\u{1b}]0;title\u{7} 220 another protocol\n",
        "{\"ok\":false,\"code\":\"\u{9b}2J\",\"error\":\"\\u001b[2J\"}\n",
    ];
    let other = thread::spawn(move || {
        for reply in replies {
            let (mut stream, _) = listener.accept().expect("a client");
            BufReader::new(&stream).read_line(&mut String::new()).expect("a request");
            stream.write_all(reply.as_bytes()).expect("a client that reads");
        }
    });
    for mention in ["]0;title", "2J: \u{fffd}[2J"] {
        let refused = output(corecast(&["ping", "--admin-socket", path.to_str().expect("UTF-8")]), b"");
        assert_fails(&refused, mention);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!said.trim_end().contains(char::is_control), "{said:?}");
    }
    other.join().expect("no panic");
}

#[test]
fn subscribe_prints_any_message_as_json_on_one_line_without_control_characters() {
    let server = Server::start(1);
    let url = format!("ws://{}", server.address);
    let subscriber = thread::spawn(move || output(corecast(&["subscribe", "a", "--count", "2", "--url", &url]), b""));
    let mut admin = Admin::connect(&server);
    eventually("it has subscribed", || {
        admin.ok(json!({"id": 1, "command": "channel", "channel": "a"}))["subscribers"] == 1
    });
    let deep = format!("{}1e999{}", "[".repeat(500), "]".repeat(500));
    for (event, data) in [("\u{9b}2J", "[\t\"é\u{7f}\\ud83c\"]"), ("deep", &deep)] {
        admin.ask(&format!(r#"{{"id":1,"command":"publish","channel":"a","event":"{event}","data":{data}}}"#));
    }
    let printed = stdout(&subscriber.join().expect("no panic"));
    let first = r#"{"event":"\u009b2J","channel":"a","data":[ "é\u007f\ud83c"]}"#;
    let second = format!(r#"{{"event":"deep","channel":"a","data":{deep}}}"#);
    assert_eq!(printed, format!("{first}\n{second}\n"));
}

/// As by Ctrl-Z and `fg`.
#[test]
fn subscribe_goes_on_after_it_was_stopped() {
    let server = Server::start(1);
    let mut command = corecast(&["subscribe", "a", "--count", "1", "--url", &format!("ws://{}", server.address)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut admin = Admin::connect(&server);
    eventually("it has subscribed", || admin.subscribers("a") == 1);
    let pid = Pid::from_child(&child);
    // Each time more likely while it reads.
    for _ in 0..5 {
        kill_process(pid, Signal::STOP).expect("it runs");
        waitpid(Some(pid), WaitOptions::UNTRACED).expect("it stops");
        kill_process(pid, Signal::CONT).expect("it runs");
        thread::sleep(Duration::from_millis(20));
    }
    admin.publish("a", "e", json!(1));
    let printed = stdout(&child.wait_with_output().expect("it ends"));
    assert_eq!(printed, "{\"event\":\"e\",\"channel\":\"a\",\"data\":1}\n");
}

#[test]
fn without_a_server_every_client_names_the_socket_that_it_tried() {
    let dir = TempDir::new();
    let path = dir.path().join("missing.sock");
    let path = path.to_str().expect("UTF-8");
    for args in [
        &["ping"][..],
        &["publish", "c", "e"],
        &["publish", "--stdin"],
        &["channels"],
        &["channel", "c"],
        &["connections"],
        &["connection", "1.2"],
        &["disconnect", "1.2"],
        &["unsubscribe", "1.2", "c"],
        &["busiest"],
        &["stats"],
    ] {
        let output = output(corecast(&[args, &["--admin-socket", path]].concat()), b"{}\n");
        assert_fails(&output, path);
    }
}

/// Names of the subcommands, as the help lists them.
fn subcommands() -> Vec<String> {
    let help = stdout(&output(corecast(&["--help"]), b""));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A name is indented by two spaces, a continuation line further.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The long options in a subcommand's help.
fn long_options(subcommand: &str) -> Vec<String> {
    let help = stdout(&output(corecast(&[subcommand, "--help"]), b""));
    // `-h, --help  Print help`: the names are the words before the description.
    let words = help.lines().flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')));
    words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches(',').to_owned()).collect()
}

#[test]
fn completions_hold_every_subcommand_and_option() {
    let subcommands = subcommands();
    assert!(subcommands.len() > 10 && subcommands.iter().any(|name| name == "publish"), "{subcommands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&output(corecast(&["completions", shell]), b""));
        for subcommand in &subcommands {
            assert_contains(&script, subcommand);
            for option in long_options(subcommand) {
                // fish writes an option as `-l name`.
                let option = if shell == "fish" { format!("-l {}", &option[2..]) } else { option };
                assert_contains(&script, option);
            }
        }
    }
    let script = stdout(&output(corecast(&["completions", "bash"]), b""));
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", "source /dev/stdin && COMP_WORDS=(corecast pub) COMP_CWORD=1 && _corecast corecast pub corecast && echo $COMPREPLY"]);
    assert_eq!(stdout(&output(bash, script.as_bytes())).trim(), "publish");
}

#[test]
fn man_pages_hold_every_subcommand_and_option() {
    let dir = TempDir::new();
    let pages = dir.path().join("man");
    stdout(&output(corecast(&["man", pages.to_str().expect("UTF-8")]), b""));
    let page = |name: &str| {
        let text = std::fs::read_to_string(pages.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        text.replace("\\-", "-")
    };
    let overview = page("corecast.1");
    assert_contains(&overview, "\ncorecast - A WebSocket publish/subscribe server");
    for subcommand in subcommands() {
        assert_contains(&overview, format!("corecast-{subcommand}(1)"));
        let page = page(&format!("corecast-{subcommand}.1"));
        for option in long_options(&subcommand) {
            assert_contains(&page, option);
        }
    }
}

#[test]
fn help_names_every_subcommand() {
    let help = stdout(&output(corecast(&["--help"]), b""));
    for name in [
        "serve",
        "publish",
        "sign",
        "keygen",
        "channels",
        "channel",
        "connections",
        "connection",
        "disconnect",
        "unsubscribe",
        "stats",
        "ping",
    ] {
        assert!(help.split_whitespace().any(|word| word == name), "no {name} in:\n{help}");
        assert!(!stdout(&output(corecast(&[name, "--help"]), b"")).trim().is_empty());
    }
    let version = stdout(&output(corecast(&["--version"]), b""));
    assert_contains(&version, env!("CARGO_PKG_VERSION"));
}

const SECRET: &str = "7ad3773142a6692b25b8";

#[test]
fn print_config_redacts_secrets() {
    let args = [
        "serve",
        "--print-config",
        "--listen",
        "127.0.0.1:4567",
        "--heart-interval",
        "77",
        "--key",
        "some-key:7ad3773142a6692b25b8",
    ];
    let output = output(corecast(&args), b"");
    let text = stdout(&output);
    assert_contains(&text, "127.0.0.1:4567");
    assert_contains(&text, 77);
    assert_contains(&text, "some-key");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains(SECRET) && !stderr.contains(SECRET), "a secret was printed:\n{text}{stderr}");
}

#[test]
fn check_config_reports_whether_the_configuration_is_valid() {
    let good = output(corecast(&["serve", "--check-config"]), b"");
    assert!(good.status.success(), "{good:?}");
    let dir = TempDir::new();
    let socket = dir.path().join("admin.sock");
    let socket = socket.to_str().expect("UTF-8");
    let good = output(corecast(&["serve", "--check-config", "--admin-socket", socket, "--shards", "2"]), b"");
    assert!(good.status.success(), "{good:?}");
    assert!(!dir.path().join("admin.sock").exists(), "the check started a server");

    for bad in [&["--heart-interval", "0"][..], &["--heart-timeout", "0"], &["--shards", "0"], &["--key", "no-secret"]]
    {
        let output = output(corecast(&[&["serve", "--check-config"], bad].concat()), b"");
        assert!(!output.status.success(), "{bad:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{bad:?}: stderr names no error");
    }

    let file = dir.path().join("corecast.toml");
    let name = file.to_str().expect("UTF-8");
    std::fs::write(&file, "").expect("a file");
    let good = output(corecast(&["serve", "--check-config", "--config", name]), b"");
    assert!(good.status.success(), "an empty file is valid: {good:?}");
    for text in ["no toml [", "no_such_option = 1\n"] {
        std::fs::write(&file, text).expect("a file");
        assert_fails(&output(corecast(&["serve", "--check-config", "--config", name]), b""), name);
    }
    let missing = dir.path().join("missing.toml");
    let missing = missing.to_str().expect("UTF-8");
    assert_fails(&output(corecast(&["serve", "--check-config", "--config", missing]), b""), missing);
}

/// `--key-file <(command)` keeps secrets out of files.
#[test]
fn a_key_file_may_be_a_pipe_at_the_start() {
    let mut bash = std::process::Command::new("bash");
    let script = "\"$0\" serve --print-config --key-file <(echo piped:0123456789abcdef)";
    bash.args(["-c", script, env!("CARGO_BIN_EXE_corecast")]);
    assert_contains(&stdout(&output(bash, b"")), "key-file = \"/dev/fd/");
}

/// What `serve --check-config` prints to stderr, and its exit status.
fn checked(options: &[&str], env: &[(&str, &OsStr)]) -> (String, Option<i32>) {
    let mut command = corecast(&[&["serve", "--check-config"], options].concat());
    command.envs(env.iter().copied());
    let output = output(command, b"");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn environment_variables_that_are_not_utf_8_are_errors() {
    let bytes = OsStr::from_bytes(b"app:s\xFFcret-s\xFEcret-secret");
    for name in ["CORECAST_KEY", "CORECAST_LOG", "CORECAST_CONFIG", "CORECAST_ADMIN_SOCKET", "XDG_RUNTIME_DIR"] {
        let (stderr, status) = checked(&[], &[(name, bytes)]);
        assert_eq!(
            (status, stderr),
            (Some(2), format!("error: {name} is not valid UTF-8. Correct {name}, or unset it\n"))
        );
    }
    let (stderr, status) = checked(&["--key", "a:0123456789abcdef"], &[("CORECAST_KEY", bytes)]);
    assert_eq!((status, &*stderr), (Some(0), ""), "the command line wins");
}

#[test]
fn readable_or_weak_secrets_cause_warnings() {
    let dir = TempDir::new();
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let long = "0123456789abcdef";
    let pair = format!("a:{long}\n");
    let check = |options: &[&str], expected: &[&str]| {
        let (stderr, status) = checked(options, &[]);
        assert_eq!(status, Some(0), "{options:?}: {stderr}");
        assert_eq!(stderr.lines().count(), expected.len(), "{options:?}: {stderr}");
        for (line, part) in stderr.lines().zip(expected) {
            assert!(line.starts_with("warning: ") && line.contains(part), "{options:?} does not say {part:?}: {line}");
        }
        assert!(!stderr.contains(long), "{stderr}");
    };
    check(&["--key-file", &write("closed", &pair, 0o600)], &[]);
    let open = write("open", &pair, 0o644);
    check(&["--key-file", &open], &[&open]);
    let console = write("console", long, 0o604);
    check(&["--console-key-file", &console], &[&console]);
    let file = write("corecast.toml", &format!("key = [\"a:{long}\"]\n"), 0o644);
    check(&["--config", &file], &[&file]);
    check(&["--config", &write("keyless.toml", "log = \"info\"\n", 0o644)], &[]);
    check(&["--key", "a:0123456789abcde"], &["\"a\" is shorter than 16 bytes"]);
    check(&["--key-file", &write("short", "b:1\n", 0o600)], &["\"b\" is shorter"]);
    check(&["--http", "off", "--console-key-file", &write("idle", long, 0o600)], &["console-key-file has no effect"]);
    let token = write("token", long, 0o600);
    let served_at = |http: &str, expected: &[&str]| check(&["--http", http, "--publish-token-file", &token], expected);
    served_at("10.0.0.7:9001", &["publish-token-file has no effect: http is an address"]);
    served_at("[2001:db8::7]:9001", &["publish-token-file has no effect: http is an address"]);
    for local in ["127.0.0.9:9001", "[::1]:9001", "[::ffff:127.0.0.1]:9001", "0.0.0.0:9001", "[::]:9001"] {
        served_at(local, &[]);
    }
    let empty = write("empty", "# a:1\n", 0o600);
    check(&["--key-file", &empty], &["key-file has no effect: no key pair in"]);
    check(&["--webhook-retry", "7"], &["webhook-retry has no effect: webhook is not set"]);
    check(
        &["--max-connections", "5", "--max-connections-per-address", "9"],
        &["max-connections-per-address has no effect"],
    );
    check(&["--webhook-retry", "300", "--http", "off", "--app-id", "1"], &[]);
}

/// Options that need another one say so.
#[test]
fn options_of_features_that_are_off_cause_warnings() {
    let check = |options: &[&str], expected: &[&str]| {
        let (stderr, status) = checked(options, &[]);
        assert_eq!(status, Some(0), "{options:?}: {stderr}");
        let said: Vec<&str> = stderr.lines().map(|line| line.trim_start_matches("warning: ")).collect();
        assert_eq!(said, expected, "{options:?}");
    };
    for (option, value) in [
        ("pusher-activity-timeout", "60"),
        ("pusher-client-events", "off"),
        ("pusher-watchlist", "off"),
        ("pusher-authorize-within", "5"),
        ("pusher-subscription-count", "on"),
    ] {
        let option_name = format!("--{option}");
        check(&[&option_name, value], &[]);
        check(&["--pusher", "off", &option_name, value], &[&format!("{option} has no effect: pusher is off")]);
    }
    let counts =
        ["--key", "a:0123456789abcdef", "--webhook", "http://localhost/", "--webhook-events", "subscription_count"];
    check(&counts, &["webhook-events: subscription_count has no effect: pusher-subscription-count is off"]);
    let on = ["--pusher-subscription-count", "on"];
    check(&[&counts[..], &on].concat(), &[]);
    check(&[&counts[..], &on, &["--pusher", "off"]].concat(), &[]);
}

/// A byte-order mark at the start of a file is not part of its first key.
#[test]
fn files_may_begin_with_a_byte_order_mark() {
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (keys, file, wide) = (path("keys"), path("corecast.toml"), path("utf-16"));
    std::fs::write(&keys, "\u{feff}a:0123456789abcdef\n").expect("a file");
    std::fs::write(&file, format!("\u{feff}key-file = {keys:?}\n")).expect("a file");
    std::fs::write(&wide, b"\xFF\xFEa\0:\x001\0").expect("a file");
    let signed = output(corecast(&["sign", "1.2", "private-a", "--config", &file]), b"");
    assert!(stdout(&signed).starts_with("a:"), "{signed:?}");
    assert_fails(&output(corecast(&["serve", "--check-config", "--key-file", &wide]), b""), "UTF-16");
}

/// A value that can never match is an error, in each spelling. A value in the form that the server prints is accepted.
#[test]
fn values_that_can_never_match_are_refused() {
    let refused = [
        ("listen", "[fe80::1%eth0]:9000", "[fe80::1%2]:9000"),
        ("http", "[fe80::1%eth0]:9001", "[fe80::1%2]:9000"),
        ("http", "127.0.0.1:9000", "overlaps with the value of listen"),
        ("http", "0.0.0.0:9000", "overlaps with the value of listen"),
        ("listen", "[::]:9001", "127.0.0.1:9001 overlaps"),
        ("path", "/a/../b", "segments . or .."),
        ("path", "/{app}", "percent-encoded"),
        ("echo-path", "/café", "percent-encoded"),
        ("allow-origin", "wss://example.com", "http:// or https://"),
        ("allow-origin", "https://example.com:99999", "65535"),
        ("allow-origin", "http://127.1", "IPv4"),
        ("allow-origin", "https://*.127.0.0.1", "IP address"),
        ("trust-proxy", "fe80::1%2", "without a port or zone"),
        ("trust-proxy", "10.0.0.1:80", "without a port or zone"),
        ("trust-proxy", "::ffff:10.0.0.0/90", "without a port or zone"),
        ("listen", "224.0.0.1:9000", "multicast or broadcast"),
        ("listen", "255.255.255.255:9000", "multicast or broadcast"),
        ("http", "[ff02::1]:9001", "multicast or broadcast"),
        ("key", "\u{feff}a:0123456789abcdef", "not ASCII"),
        ("key", "a:0123456789abcdef\u{200b}", "invisible"),
        ("key", "\"a:0123456789abcdef\"", "in quotes"),
        ("key", "'a:0123456789abcdef'", "in quotes"),
        ("webhook", "http://[fe80::1%25eth0]/", "http or https URL"),
    ];
    for (option, value, said) in refused {
        let (stderr, status) = checked(&[&format!("--{option}"), value], &[]);
        assert_eq!(status, Some(2), "{option} {value}: {stderr}");
        assert!(stderr.contains(option) && stderr.contains(said), "{option} {value}: {stderr}");
    }
    let long = format!("/{}", "x".repeat(500));
    assert_contains(&checked(&["--path", &long, "--max-request", "512"], &[]).0, "does not fit into max-request");

    let shown = [
        ("allow-origin", "file://", "file://"),
        ("allow-origin", "https://Example.com:0443", "https://example.com"),
        ("allow-origin", "http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("trust-proxy", "::ffff:10.0.0.7", "10.0.0.7/32"),
        ("trust-proxy", "::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ];
    for (option, value, expected) in shown {
        let option = format!("--{option}");
        for value in [value, expected] {
            let printed = stdout(&output(corecast(&["serve", "--print-config", &option, value]), b""));
            assert_contains(&printed, format!("= [{expected:?}]"));
        }
    }
}

/// Cordova and Electron load pages from files.
#[test]
fn pages_from_files_may_connect_if_their_origin_is_allowed() {
    let server = Server::options(1).arg("--allow-origin", "file://").start();
    for (origin, status) in [("file://", 101), ("null", 403), ("https://example.com", 403)] {
        let mut client = RawClient::tcp(&server);
        client.write(UPGRADE_REQUEST.replace("http://example.com", origin).as_bytes());
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {head}");
    }
}

/// The costs of the limits are printed by kind, with warnings and remedies for what the machine cannot hold.
#[test]
fn check_config_prints_what_the_limits_can_cost() {
    let check = |options: &[&str]| {
        let shell = "ulimit -n 2000 && exec \"$@\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", shell, "sh", env!("CARGO_BIN_EXE_corecast"), "serve", "--check-config"]).args(options);
        let output = output(command, b"");
        assert!(output.status.success(), "{output:?}");
        (stdout(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (costs, warnings) = check(&["--shards", "1", "--max-connections", "50", "--http", "off"]);
    for term in [
        "50 x 1 ",
        "outboxes, what is held back",
        "messages partly received",
        "admin connections",
        "the kernel's sockets",
    ] {
        assert!(costs.contains(term), "{term}: {costs}");
    }
    assert!(
        !costs.contains("HTTP connections") && !costs.contains("HTTP requests") && !costs.contains("TLS"),
        "a feature that is off has costs: {costs}"
    );
    assert_eq!(warnings, "");

    let (costs, warnings) = check(&["--shards", "2"]);
    let auto = "2 shards, at most 1640 client connections (max-connections is auto: descriptors allow no more)";
    assert!(costs.contains(auto), "{costs}");
    assert_eq!(warnings, "", "automatic limits cause no warning");

    let outboxes = ["--outbox-limit", "1GiB", "--outbox-memory", "900GiB"];
    let (costs, warnings) = check(&[&["--shards", "2", "--max-connections", "100000"][..], &outboxes].concat());
    assert!(costs.contains("2 shards, at most 1640 client connections (of 100000 configured"), "{costs}");
    for remedy in ["raise the hard limit to 100360 (LimitNOFILE=", "Lower max-connections to that, or outbox-memory"] {
        assert!(warnings.contains(remedy), "{remedy}: {warnings}");
    }
    let (costs, warnings) = check(&["--shards", "2", "--outbox-limit", "1GiB", "--outbox-memory", "64MiB"]);
    assert!(costs.contains("1 x 64 MiB"), "{costs}");
    assert!(warnings.contains("a shard's share of 32 MiB is less than the"), "{warnings}");
}

/// The errors of common mistakes say what is wrong and what to do.
#[test]
fn errors_of_common_mistakes_name_the_remedy() {
    let server = Server::options(1).arg("--http", "127.0.0.1:0").start();
    let (plain, http) = (server.address.to_string(), server.http().to_string());
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, nowhere) = (path("file"), path("nowhere/admin.sock"));
    std::fs::write(&file, "").expect("a file");
    let check = |args: &[&str], status: i32, expected: &[&str]| {
        let output = output(corecast(args), b"");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
        for part in expected {
            assert!(stderr.contains(part), "{args:?} does not say {part:?}: {stderr}");
        }
    };
    let serve = |listen: &str, http: &str, socket: &str, expected: &[&str]| {
        let line = ["serve", "--shards", "1", "--listen", listen, "--http", http, "--admin-socket", socket];
        check(&line, 1, expected);
    };
    let (any, free) = ("127.0.0.1:0", path("admin.sock"));
    serve(&plain, "off", &free, &[&plain, "something listens there already", "--listen chooses another"]);
    serve("203.0.113.7:9000", "off", &free, &["203.0.113.7:9000", "no such address", "0.0.0.0"]);
    serve(any, &http, &free, &[&http, "something listens there already", "--http chooses another"]);
    serve(any, "off", &file, &[&file, "is not a socket; remove it", "--admin-socket"]);
    serve(any, "off", &nowhere, &[&nowhere, "--admin-socket chooses another", "No such file"]);
    check(&["stats", "--admin-socket", &file], 1, &[&file, "That file is not a socket"]);
    for url in ["http://127.0.0.1:9000", "127.0.0.1:9000", "ws://", "ws://127.0.0.1:99999", "ws://127.0.0.1:"] {
        check(&["subscribe", "a", "--url", url], 2, &[url, "ws://HOST:PORT"]);
    }
    let secure_server = Server::options(1).secure().start();
    let secure = secure_server.address.to_string();
    let url = |scheme: &str, at: &str, expected: &[&str]| {
        check(&["subscribe", "a", "--url", &format!("{scheme}://{at}")], 1, &[&[at][..], expected].concat());
    };
    url("ws", &http, &["answers 404", "--url names another"]);
    url("wss", &plain, &["use ws:// for a server without a certificate"]);
    url("wss", &secure, &["UnknownIssuer", "--ca PATH"]);
    url("ws", &secure, &["use wss:// for a server with a certificate"]);
}

#[test]
fn keygen_makes_new_keys() {
    let first = stdout(&output(corecast(&["keygen"]), b""));
    let second = stdout(&output(corecast(&["keygen"]), b""));
    assert!(first.trim().len() >= 32, "{first:?} is too short for a key and a secret");
    assert_ne!(first, second);
}

/// Each write to a datagram socket is a message.
#[test]
fn the_line_that_scripts_wait_for_is_written_at_once() {
    let dir = TempDir::new();
    let admin_socket = dir.path().join("admin.sock");
    let (read, stderr) = UnixDatagram::pair().expect("a socket pair");
    read.set_read_timeout(Some(LONG)).expect("socket option");
    let mut command = corecast(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--shards", "1", "--log", "off"]);
    let mut child =
        command.arg("--admin-socket").arg(admin_socket).stderr(OwnedFd::from(stderr)).spawn().expect("a server");
    let mut line = [0; 1024];
    let len = read.recv(&mut line);
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    let line = std::str::from_utf8(&line[..len.expect("a line")]).expect("text");
    assert!(line.starts_with("corecast ") && line.ends_with("http off)\n"), "{line:?}");
}
