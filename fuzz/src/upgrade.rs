//! An upgrade request: judged once, as soon as enough of it has arrived, and later bytes do not change the verdict. That of a
//! Pusher client names a key and a version, or is refused for the first reason.

use super::json;
use corecast::config::{Access, Endpoint};
use corecast::protocol::pusher::event;
use corecast::protocol::pusher::handshake::{Version, version};
use corecast::wire::upgrade::{Upgrade, upgrade};
use std::time::SystemTime;

/// The first byte selects the configuration, the rest is the request. Panics where a part of it gets another verdict than all of it.
pub fn check(data: &[u8]) {
    let Some((&choice, input)) = data.split_first() else { return };
    let is_proxied = choice & 1 != 0;
    let mut access = Access { request_bytes_max: 600, ..Access::default() };
    if choice & 2 != 0 {
        access.paths = vec!["/".into(), "/live".into()];
        access.echo_path = Some("/echo".into());
    }
    if choice & 4 != 0 {
        access.origins = Vec::from_iter(corecast::config::Origin::parse("https://*.example.com"));
    }
    let decide = |input: &[u8]| {
        let mut response = Vec::new();
        let decision = upgrade(input, &access, is_proxied, SystemTime::UNIX_EPOCH.into(), &mut response);
        let (accepted, refused) = match &decision {
            Upgrade::Partial => (None, None),
            Upgrade::Accepted { request_len, endpoint, target, forwarded_for } => {
                assert_eq!(target.is_empty(), *endpoint != Endpoint::Pusher);
                if *endpoint == Endpoint::Pusher {
                    check_pusher(input, access.pusher_target(target), &access.paths);
                }
                assert!(is_proxied || forwarded_for.is_none(), "an untrusted X-Forwarded-For is used");
                (Some((*request_len, *endpoint, *forwarded_for)), None)
            }
            Upgrade::Refused { refusal, forwarded_for } => {
                assert!(is_proxied || forwarded_for.is_none(), "an untrusted X-Forwarded-For is used");
                (None, Some((refusal.why, *forwarded_for)))
            }
        };
        (accepted, refused, response)
    };
    let whole = decide(input);
    let (accepted, refused, response) = &whole;
    let is_partial = accepted.is_none() && refused.is_none();
    assert_eq!(is_partial, response.is_empty());
    assert!(!is_partial || input.len() < access.request_bytes_max, "no verdict at the limit");
    if let Some((request_len, ..)) = *accepted {
        assert!(request_len <= input.len().min(access.request_bytes_max));
        assert!(input[..request_len].ends_with(b"\r\n\r\n"));
    }
    if refused.is_some() {
        check_http(response);
    }
    for cut in 0..input.len() {
        let part = decide(&input[..cut]);
        if !part.2.is_empty() {
            assert_eq!(part, whole, "the first {cut} bytes");
        }
    }
}

/// PUSHER, section 2: `/app/{key}` behind a served prefix, a known key, a version, in this order.
/// `target`: what follows the prefix.
fn check_pusher(input: &[u8], target: &str, prefixes: &[String]) {
    let judged = version(target, |key| key == "k-1");
    let (_, query) = target.split_once('?').unwrap_or((target, ""));
    let line = input.split(|&byte| byte == b'\n').find(|line| !line.starts_with(b"\r")).unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let Some(path) = line.split(' ').nth(1).filter(|it| it.starts_with('/') && !it.contains('#')) else { return };
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.split('/').collect();
    let key = match segments[..] {
        [ref prefix @ .., "app", key] if !key.is_empty() => {
            let is_served = |served: &String| served.trim_end_matches('/') == prefix.join("/");
            (prefixes.is_empty() || prefixes.iter().any(is_served)).then_some(key)
        }
        _ => None,
    };
    let found = judged.as_ref().map_err(|refusal| refusal.code());
    match key {
        None => assert_eq!(found, Err(4005), "{path}"),
        Some("k-1" | "k%2D1" | "k%2d1") => {
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let protocol = pairs.find(|(name, _)| *name == "protocol").map(|(_, text)| text);
            let is_integer = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let expected = match protocol {
                _ if query.contains(['%', '+']) => None,
                Some("4") => Some(Ok(Version::V4)),
                Some("5") => Some(Ok(Version::V5)),
                Some("6") => Some(Ok(Version::V6)),
                Some("7") => Some(Ok(Version::V7)),
                Some(text) if is_integer(text.strip_prefix('-').unwrap_or(text)) => Some(Err(4007)),
                Some(_) => Some(Err(4006)),
                None => Some(Ok(Version::V7)),
            };
            assert!(expected.is_none_or(|expected| found.copied() == expected), "{target}: {found:?}");
        }
        Some(key) if !key.contains('%') => assert_eq!(found, Err(4001), "{path}"),
        Some(_) => {}
    }
    let Err(refusal) = judged else { return };
    let text = refusal.to_string();
    assert!(text.len() <= 123, "a close frame holds no more");
    let mut out = Vec::new();
    event::error(&mut out, Some(refusal.code()), None, &text);
    let header_len = if out[1] == 126 { 4 } else { 2 };
    let payload = std::str::from_utf8(&out[header_len..]).expect("text");
    let data = json::members(json::members(payload).expect("an object")["data"]).expect("an object");
    assert_eq!((data["code"], json::string(data["message"])), (&*refusal.code().to_string(), Some(text)));
}

/// A status line, header lines, and a body of the length that they declare, or none in the answer to HEAD.
fn check_http(response: &[u8]) {
    let response = std::str::from_utf8(response).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    assert!(lines.next().is_some_and(|line| line.starts_with("HTTP/1.1 ")), "{head}");
    let len = lines.filter_map(|line| line.strip_prefix("Content-Length: ")).next().expect("a length");
    assert!(body.is_empty() || len == body.len().to_string(), "{response}");
}
