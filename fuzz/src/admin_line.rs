//! Lines of the admin socket: each is answered by exactly one line, in order, with its `id`; or it begins a stream, and is
//! the last.

use super::json;
use corecast::admin::lines::LineSession;
use corecast::admin::lines::reader::Parser;
use corecast::api::refusal::NO_CONNECTION;
use corecast::api::{Operation, Refusal, Reply, Request, Rows};
use corecast::config::Limits;
use corecast::hub::admission::addresses::Verdict;
use corecast::hub::audience::pages::{Chunk, Pages};
use corecast::hub::mail::{Answer, Arrival, Mail, Question, Settled};
use corecast::hub::{Hub, Identity, Port, Urgency};
use corecast::ids::{Asker, ShardId, Slot};
use corecast::protocol::close::CloseReason;
use corecast::protocol::dialect::Dialect;

/// The bytes are lines. Panics where a reply is missing, is one too many, or belongs to another request.
pub fn check(data: &[u8]) {
    let mut hub = Hub::new(Identity { shard: 0, shards: 1, seed: [1, 2, 3, 4] }, &[], Limits::default());
    let mut port = Around::default();
    for slot in 0..2 {
        hub.connect(slot, Dialect::Native, None, &mut port);
        hub.handle(slot, r#"{"event":"socket:subscribe","data":{"channel":"a"}}"#, &mut port);
    }
    let mut session = LineSession::new(0, 1, 0, 0, false);
    let mut parser = Parser::default();
    for line in data.split(|&byte| byte == b'\n') {
        session.line(line, &mut parser, &mut hub, &mut port);
        port.settle_all(&mut session, &mut hub);
        assert!(session.is_answered() && session.unsettled() == 0, "a reply waits for nothing");
        let reply = std::mem::take(&mut session.output);
        let reply = std::str::from_utf8(&reply).expect("replies are text");
        if session.has_begun_stream() {
            let (reply, rest) = reply.split_at(reply.find('\n').expect("a whole line") + 1);
            check_reply(line, reply);
            return check_stream(rest, &mut session, &mut hub, &mut port);
        }
        check_reply(line, reply);
        hub.end_turn(&mut port);
    }
}

/// The session writes whole lines until there are none left, and its hub forgets it when it has left.
fn check_stream(begun: &str, session: &mut LineSession, hub: &mut Hub, port: &mut Around) {
    session.output.extend_from_slice(begun.as_bytes());
    while session.may_stream_on() {
        session.stream_on(hub, port);
        port.settle_all(session, hub);
    }
    let lines = std::str::from_utf8(&session.output).expect("lines are text");
    assert!(lines.is_empty() || lines.ends_with('\n'));
    for line in lines.lines() {
        assert!(json::members(line).is_some_and(|members| members.contains_key("event")), "{line}");
    }
    session.leave(hub, port);
    let gauges = hub.gauges();
    assert_eq!((gauges.event_consumers, gauges.tails), (0, 0), "a consumer that left is kept");
}

fn check_reply(line: &[u8], reply: &str) {
    let reply = reply.strip_suffix('\n').expect("a whole line");
    assert!(!reply.contains('\n'), "two lines: {reply}");
    assert!(json::is_json(reply), "{reply}");
    let members = json::members(reply).expect("an object");
    let request = std::str::from_utf8(line).ok().filter(|line| json::is_json(line)).and_then(json::members);
    let id = request.as_ref().and_then(|request| request.get("id").copied()).unwrap_or("null");
    assert_eq!(members["id"], id, "{reply}");
    match members["ok"] {
        "true" => assert!(request.is_some_and(|request| request.contains_key("command")), "{reply}"),
        "false" => {
            let code = json::string(members["code"]).expect("a code");
            assert!(CODES.contains(&&*code), "{reply}");
            assert!(!members["error"].is_empty() && members.len() == 4, "{reply}");
        }
        _ => panic!("neither true nor false: {reply}"),
    }
}

const CODES: [&str; 9] = [
    "malformed_request",
    "unknown_command",
    "missing_member",
    "invalid_channel",
    "reserved_event",
    "not_found",
    "too_large",
    "invalid_configuration",
    "refused",
];

/// The shard around the hub: it has no sockets, and answers questions about them at once.
#[derive(Default)]
struct Around {
    asks: Vec<(Asker, Question)>,
    answers: Vec<(Asker, Answer)>,
    settled: Vec<(Asker, Settled)>,
}

impl Around {
    fn settle_all(&mut self, session: &mut LineSession, hub: &mut Hub) {
        loop {
            hub.survey(usize::MAX, self);
            let Around { asks, answers, settled } = std::mem::take(self);
            if asks.is_empty() && answers.is_empty() && settled.is_empty() {
                return;
            }
            for (asker, settled) in settled {
                session.settle(asker, settled);
            }
            for (asker, answer) in answers {
                session.answer(asker, answer, hub, self);
            }
            for (asker, question) in asks {
                let answer = match question {
                    Question::Page { .. } => Answer::Page { rows: Rows::Connections(Vec::new()), next: None },
                    Question::OfConnection { request: Request::Disconnect(_), member } if hub.is_live(member) => {
                        hub.disconnect(member.slot, &CloseReason::ClientGone, self);
                        Answer::Reply(Ok(Reply::Done {}))
                    }
                    Question::Stats => Answer::Stats { shard: 0, stats: Box::default() },
                    Question::Operate(Operation::Reload) => {
                        Answer::Reply(Err(Refusal::InvalidConfiguration("there is none".into())))
                    }
                    Question::Operate(Operation::Drain { over_ms } | Operation::Shed { over_ms, .. }) => {
                        Answer::Reply(Ok(Reply::Leaving { connections: 2, over_ms }))
                    }
                    _ => Answer::Reply(Err(NO_CONNECTION)),
                };
                hub.answer_admin(asker, answer, self);
            }
        }
    }
}

impl Port for Around {
    fn append(&mut self, _: &mut Pages, _: Slot, chunk: Chunk, _: Urgency) {
        assert!(!chunk.is_empty());
    }
    fn mail(&mut self, _: ShardId, _: Mail) {
        unreachable!("there is one shard");
    }
    fn mail_after(&mut self, _: &[ShardId], _: ShardId, _: Mail) {
        unreachable!("there is one shard");
    }
    fn ask(&mut self, asker: Asker, question: Question) {
        self.asks.push((asker, question));
    }
    fn answer_admin(&mut self, asker: Asker, answer: Answer) {
        self.answers.push((asker, answer));
    }
    fn settle(&mut self, asker: Asker, settled: Settled) {
        self.settled.push((asker, settled));
    }
    fn admit(&mut self, _: Arrival, _: Verdict) {}
    fn close(&mut self, _: Slot, _: CloseReason) {}
}
