//! An upgrade request: judged once, as soon as enough of it has arrived, and later bytes do not change the verdict.

use corecast::config::{Access, Endpoint};
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

/// A status line, header lines, and a body of the length that they declare, or none in the answer to HEAD.
fn check_http(response: &[u8]) {
    let response = std::str::from_utf8(response).expect("text");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.split("\r\n");
    assert!(lines.next().is_some_and(|line| line.starts_with("HTTP/1.1 ")), "{head}");
    let len = lines.filter_map(|line| line.strip_prefix("Content-Length: ")).next().expect("a length");
    assert!(body.is_empty() || len == body.len().to_string(), "{response}");
}
