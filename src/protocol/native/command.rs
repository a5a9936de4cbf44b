//! Reads messages in the native dialect: the text of a message becomes a [`Command`].

use crate::protocol::command::{Auth, Command, Since, Unreadable};
use crate::protocol::command::{NO_CHANNEL, NO_CHANNEL_BESIDE, NO_EVENT, NOT_JSON, NOT_OBJECT};
use crate::protocol::json::{Document, Members, Reader, Value};
use crate::protocol::position::{OFFSET_MAX, read_epoch};
use crate::protocol::socket_id::SocketId;

/// Reads a client's message.
pub fn command<'a>(reader: &mut Reader, text: &'a str) -> Result<Command<'a>, Unreadable<'a>> {
    let document = reader.read(text).ok_or(NOT_JSON)?;
    let [event, data] = document.object().ok_or(NOT_OBJECT)?.named(["event", "data"]);
    let data = data.and_then(|data| document.members(data));
    let event = event.and_then(Value::string).ok_or(NO_EVENT)?;
    match &*event.value {
        "socket:subscribe" => {
            let [channel, auth, channel_data, since] = named(data, ["channel", "auth", "channel_data", "since"]);
            let channel = channel.and_then(Value::string).ok_or(NO_CHANNEL)?;
            let channel_data = channel_data.map(Value::string);
            let auth = Auth::read(auth).beside(&channel_data);
            let since = since.map_or(Since::Absent, |since| position(document, since).unwrap_or(Since::Malformed));
            Ok(Command::Subscribe { channel, auth, channel_data: channel_data.flatten(), since })
        }
        "socket:unsubscribe" => {
            let [channel] = named(data, ["channel"]);
            let channel = channel.and_then(Value::string).ok_or(NO_CHANNEL)?;
            Ok(Command::Unsubscribe { channel })
        }
        "socket:ping" => {
            let [id] = named(data, ["id"]);
            let id = id.filter(|id| is_ping_id(*id)).ok_or(NO_ID)?.raw;
            Ok(Command::Ping { id })
        }
        "socket:pong" => Ok(Command::Pong),
        "socket:signin" => {
            let [auth, user_data] = named(data, ["auth", "user_data"]);
            Ok(Command::SignIn { auth: Auth::read(auth), user_data: user_data.and_then(Value::string) })
        }
        name if name.starts_with("client-") => {
            // Read again, so that other messages are not searched for more members.
            let [channel, data] = named(document.object(), ["channel", "data"]);
            let channel = channel.and_then(Value::string).ok_or(NO_CHANNEL_BESIDE)?;
            Ok(Command::ClientEvent { event, channel, data })
        }
        _ => Err(Unreadable::UnknownEvent { event: event.raw }),
    }
}

fn named<'a, const N: usize>(data: Option<Members<'_, 'a>>, names: [&str; N]) -> [Option<Value<'a>>; N] {
    data.map_or([None; N], |data| data.named(names))
}

/// A position to recover from; `None`: it has another shape. Unknown members are ignored.
fn position(document: Document<'_, '_>, since: Value<'_>) -> Option<Since> {
    let [epoch, offset, socket_id] = document.members(since)?.named(["epoch", "offset", "socket_id"]);
    let epoch = epoch.filter(|epoch| epoch.is_string())?.text().and_then(|text| read_epoch(&text));
    // Digits alone: `-0`, `1.0` and `1e3` are not read as integers.
    let offset = offset?.raw.parse().ok().filter(|offset| *offset <= OFFSET_MAX)?;
    let socket_id = match socket_id {
        Some(id) => Some(SocketId::parse(&id.text()?)?),
        None => None,
    };
    Some(Since::Position { epoch, offset, socket_id })
}

fn is_ping_id(id: Value<'_>) -> bool {
    match id.raw.strip_prefix('"') {
        Some(unquoted) => unquoted.len() - 1 <= PING_ID_BYTES_MAX,
        None => id.is_number() && id.raw.len() <= PING_ID_BYTES_MAX,
    }
}

/// Longest `id` of a `socket:ping`, as written, without its quotes.
const PING_ID_BYTES_MAX: usize = 64;

const NO_ID: Unreadable<'_> = Unreadable::Malformed("data.id must be a number or a string of at most 64 bytes");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::JsonString;
    use crate::protocol::json::tests::{mutated, plain, serde_says_json, slips, written_json};
    use proptest::prelude::*;
    use std::borrow::Cow;

    #[track_caller]
    fn check(text: &str, expected: Result<Command<'_>, Unreadable<'_>>) {
        assert_eq!(command(&mut Reader::default(), text), expected, "{text}");
    }

    fn subscribe<'a>(
        channel: &'a str,
        auth: Auth<'a>,
        channel_data: Option<&'a str>,
    ) -> Result<Command<'a>, Unreadable<'a>> {
        let (channel, channel_data) = (plain(channel), channel_data.map(plain));
        Ok(Command::Subscribe { channel, auth, channel_data, since: Since::Absent })
    }

    #[test]
    fn the_founding_documents_messages_are_read() {
        let text = r#"{"event": "socket:subscribe", "data": {"channel": "user:13", "auth": "XXXXX"}}"#;
        check(text, subscribe("user:13", Auth::Text("XXXXX".into()), None));
        let text = r#"{"event": "socket:unsubscribe", "data": {"channel": "user:13"}}"#;
        check(text, Ok(Command::Unsubscribe { channel: plain("user:13") }));
        check(r#"{"event": "socket:ping", "data": {"id": 1}}"#, Ok(Command::Ping { id: "1" }));
        check(r#"{"event": "socket:pong"}"#, Ok(Command::Pong));
    }

    #[test]
    fn auth_and_channel_data_are_distinguished_by_presence_and_type() {
        let check = |members: &str, auth: Auth<'_>, channel_data: Option<&str>| {
            let text = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"private-a"{members}}}}}"#);
            check(&text, subscribe("private-a", auth, channel_data));
        };
        check("", Auth::Absent, None);
        for other in ["null", "1", "true", "[]", "{}", "[\"k:00\"]"] {
            check(&format!(r#","auth":{other}"#), Auth::NotString, None);
            check(&format!(r#","channel_data":{other},"auth":"k:00""#), Auth::NotString, None);
            check(&format!(r#","channel_data":{other}"#), Auth::Absent, None);
        }
        check(r#","auth":"""#, Auth::Text("".into()), None);
        check(r#","auth":"k:00","channel_data":"""#, Auth::Text("k:00".into()), Some(""));
        check(r#","channel_data":"a""#, Auth::Absent, Some("a"));
    }

    #[test]
    fn a_string_has_its_spelling_and_its_value() {
        let text = r#"{"event":"socket:sub\u0073cribe","data":{"channel":"a\u002fb\"","auth":"\u006b:0","channel_data":"{\"a\":1}"}}"#;
        let expected = Command::Subscribe {
            channel: JsonString { raw: r#"a\u002fb\""#, value: "a/b\"".into() },
            auth: Auth::Text("k:0".into()),
            channel_data: Some(JsonString { raw: r#"{\"a\":1}"#, value: r#"{"a":1}"#.into() }),
            since: Since::Absent,
        };
        check(text, Ok(expected));
        let Ok(Command::Unsubscribe { channel }) =
            command(&mut Reader::default(), r#"{"event":"socket:unsubscribe","data":{"channel":"a"}}"#)
        else {
            panic!("not an unsubscribe")
        };
        assert!(matches!(channel.value, Cow::Borrowed("a")), "nothing to unescape, so nothing is copied");
    }

    #[test]
    fn a_position_is_read_or_malformed() {
        let check = |since: &str, expected: Since| {
            let text = format!(r#"{{"event":"socket:subscribe","data":{{"channel":"a","since":{since}}}}}"#);
            check(
                &text,
                Ok(Command::Subscribe { channel: plain("a"), auth: Auth::Absent, channel_data: None, since: expected }),
            );
        };
        let position = |epoch, offset, socket_id| Since::Position { epoch, offset, socket_id };
        check(r#"{"epoch":"00000000000000ff","offset":1005}"#, position(Some(255), 1005, None));
        check(r#"{"offset":0,"epoch":"\u0066fffffffffffffff","x":[]}"#, position(Some(u64::MAX), 0, None));
        check(r#"{"epoch":"0000000000000001","offset":9007199254740991}"#, position(Some(1), OFFSET_MAX, None));
        for other in
            ["", "0", "00000000000000FF", "+0000000000000ff", "00000000000000ff0", "000000000000000g", "\\ud800", "é"]
        {
            check(&format!(r#"{{"epoch":"{other}","offset":1}}"#), position(None, 1, None));
        }
        for id in ["1234.1234", "00000000-0000-04D2-0000-0000000004d2"] {
            let id_read = Some(SocketId { high: 1234, low: 1234 });
            check(&format!(r#"{{"epoch":"a","offset":1,"socket_id":"{id}"}}"#), position(None, 1, id_read));
        }
        for id in ["null", "1", "1234.1234", "[]", "{}", r#""""#, r#""1234""#, r#""\ud800""#] {
            check(&format!(r#"{{"epoch":"a","offset":1,"socket_id":{id}}}"#), Since::Malformed);
        }
        for offset in ["-1", "-0", "1.0", "1e3", "9007199254740992", "18446744073709551616", r#""1""#, "null", "[1]"] {
            check(&format!(r#"{{"epoch":"a","offset":{offset}}}"#), Since::Malformed);
        }
        for epoch in ["1", "null", "[]", r#"["a"]"#] {
            check(&format!(r#"{{"epoch":{epoch},"offset":1}}"#), Since::Malformed);
        }
        for other in ["null", "1", "true", "[]", "{}", r#""a""#, r#"{"epoch":"a"}"#, r#"{"offset":1}"#] {
            check(other, Since::Malformed);
        }
        check(r#"1,"since":{"epoch":"a","offset":1,"offset":2}"#, position(None, 2, None));
    }

    #[test]
    fn a_sign_in_has_auth_and_user_data_of_their_own() {
        let check = |data: &str, auth: Auth<'_>, user_data: Option<JsonString<'_>>| {
            check(&format!(r#"{{"event":"socket:signin"{data}}}"#), Ok(Command::SignIn { auth, user_data }));
        };
        for data in ["", r#","data":null"#, r#","data":{}"#, r#","data":"auth""#] {
            check(data, Auth::Absent, None);
        }
        let user_data = JsonString { raw: r#"{\"id\":\"12\"}"#, value: r#"{"id":"12"}"#.into() };
        let data = r#","data":{"auth":"k:00","user_data":"{\"id\":\"12\"}"}"#;
        check(data, Auth::Text("k:00".into()), Some(user_data));
        for other in ["null", "1", "true", "[]", "{}", r#""\ud800""#] {
            let data = format!(r#","data":{{"auth":"k:00","user_data":{other}}}"#);
            check(&data, Auth::Text("k:00".into()), None);
            check(&format!(r#","data":{{"auth":{other},"user_data":""}}"#), Auth::NotString, Some(plain("")));
        }
    }

    #[test]
    fn a_client_event_has_its_channel_beside_it() {
        let check = |rest: &str, event, data| {
            let text = format!(r#"{{{rest},"channel":"private-a"}}"#);
            let mut reader = Reader::default();
            let Ok(Command::ClientEvent { event: name, channel, data: found }) = command(&mut reader, &text) else {
                panic!("{text}")
            };
            assert_eq!((name, channel, found.map(|data| data.raw)), (event, plain("private-a"), data));
        };
        check(r#""event":"client-typing""#, plain("client-typing"), None);
        check(r#""event":"client-","data":null,"user_id":"1""#, plain("client-"), Some("null"));
        check(r#""data": [ 1e999] ,"event":"client-a""#, plain("client-a"), Some("[ 1e999]"));
        let escaped = JsonString { raw: r#"\u0063lient-\n"#, value: "client-\n".into() };
        check(r#""event":"\u0063lient-\n","data":{"channel":1}"#, escaped, Some(r#"{"channel":1}"#));
        for channel in ["", r#","channel":1"#, r#","channel":null"#, r#","channel":"\ud800""#] {
            let text = format!(r#"{{"event":"client-a","data":{{"channel":"a"}}{channel}}}"#);
            super::tests::check(&text, Err(NO_CHANNEL_BESIDE));
        }
    }

    #[test]
    fn the_last_of_two_members_wins() {
        check(r#"{"event":"socket:pong","event":"socket:ping","data":{"id":1,"id":2}}"#, Ok(Command::Ping { id: "2" }));
        check(r#"{"event":"socket:ping","data":{"id":1},"data":{"\u0069d":3}}"#, Ok(Command::Ping { id: "3" }));
        check(r#"{"event":"socket:ping","data":{"id":1},"data":null}"#, Err(NO_ID));
        check(r#"{"event":"socket:ping","data":{"id":1,"id":[]}}"#, Err(NO_ID));
        let text = r#"{"event":"socket:subscribe","data":{"channel":1,"channel":"b","auth":"x","auth":1}}"#;
        check(text, subscribe("b", Auth::NotString, None));
        check(r#"{"event":"socket:unsubscribe","data":{"channel":"a","channel":1}}"#, Err(NO_CHANNEL));
    }

    #[test]
    fn a_ping_id_is_echoed_as_written_or_refused() {
        let check = |id: &str, legal: bool| {
            let text = format!(r#"{{"event":"socket:ping","data":{{"id": {id} }}}}"#);
            check(&text, if legal { Ok(Command::Ping { id }) } else { Err(NO_ID) });
        };
        for id in ["0", "-0", "1e999", "-1.50E+007", "18446744073709551616", r#""""#, r#""a\u0062\n""#, "\"é\""] {
            check(id, true);
        }
        check(&"7".repeat(64), true);
        check(&"7".repeat(65), false);
        check(&format!("\"{}\"", "x".repeat(64)), true);
        check(&format!("\"{}\"", "x".repeat(65)), false);
        check(&format!("\"{}\"", "é".repeat(32)), true);
        check(&format!("\"{}\"", r"\u0041".repeat(11)), false);
        for id in ["null", "true", "false", "[]", "{}", "[1]", "{\"id\":1}"] {
            check(id, false);
        }
        for data in ["", r#","data":{}"#, r#","data":null"#, r#","data":[1]"#, r#","data":"id""#, r#","data":1"#] {
            super::tests::check(&format!(r#"{{"event":"socket:ping"{data}}}"#), Err(NO_ID));
        }
    }

    #[test]
    fn a_channel_that_is_missing_or_not_a_string_is_malformed() {
        for event in ["socket:subscribe", "socket:unsubscribe"] {
            for data in
                ["null", "[]", "\"a\"", "1", "{}", r#"{"channel":null}"#, r#"{"channel":1}"#, r#"{"channel":["a"]}"#]
            {
                check(&format!(r#"{{"event":"{event}","data":{data}}}"#), Err(NO_CHANNEL));
            }
            check(&format!(r#"{{"event":"{event}"}}"#), Err(NO_CHANNEL));
            check(&format!(r#"{{"event":"{event}","channel":"a"}}"#), Err(NO_CHANNEL));
        }
    }

    #[test]
    fn a_message_that_is_not_an_object_with_an_event_is_malformed() {
        for text in ["", " ", "{", "{}x", "\u{feff}{}", r#"{"event":"socket:pong",}"#, r#"{"event":"\u12"}"#] {
            check(text, Err(NOT_JSON));
        }
        for text in ["[]", "1", "null", "\"socket:pong\"", r#"[{"event":"socket:pong"}]"#] {
            check(text, Err(NOT_OBJECT));
        }
        for text in [
            "{}",
            r#"{"event":null}"#,
            r#"{"event":1}"#,
            r#"{"event":["socket:pong"]}"#,
            r#"{"Event":"socket:pong"}"#,
            r#"{"event":"\ud800"}"#,
        ] {
            check(text, Err(NO_EVENT));
        }
    }

    #[test]
    fn unpaired_surrogates_are_echoed_or_ignored_and_refused_in_names() {
        check(r#"{"event":"socket:ping","data":{"id":"\ud83c"}}"#, Ok(Command::Ping { id: r#""\ud83c""# }));
        check(r#"{"\ud83c":0,"event":"socket:pong","data":"\udc00"}"#, Ok(Command::Pong));
        for event in ["subscribe", "unsubscribe"] {
            check(&format!(r#"{{"event":"socket:{event}","data":{{"channel":"a\ud83c"}}}}"#), Err(NO_CHANNEL));
        }
        let text = r#"{"event":"socket:subscribe","data":{"channel":"a","auth":"\ud83c"}}"#;
        check(text, subscribe("a", Auth::NotString, None));
        let text = r#"{"event":"socket:subscribe","data":{"channel":"a","auth":"k:0","channel_data":"\ud83c"}}"#;
        check(text, subscribe("a", Auth::NotString, None));
    }

    #[test]
    fn every_other_event_is_unknown() {
        for event in [
            "",
            "order.paid",
            "socket:",
            "socket:connected",
            "socket:subscribed",
            "socket:error",
            "SOCKET:PING",
            "socket:ping ",
            "socket:signin ",
            "client",
            "Client-a",
            " client-a",
        ] {
            check(
                &format!(r#"{{"event":"{event}","channel":"a","data":{{"id":1}}}}"#),
                Err(Unreadable::UnknownEvent { event }),
            );
        }
    }

    #[test]
    fn a_pong_may_have_any_other_members() {
        for data in ["null", "1e999", r#"{"reply":1}"#, &"[".repeat(60_000)] {
            let close = "]".repeat(data.len() * usize::from(data.starts_with('[')));
            check(&format!(r#"{{"event":"socket:pong","data":{data}{close},"channel":1}}"#), Ok(Command::Pong));
        }
    }

    #[test]
    fn error_texts_need_no_escaping() {
        for unreadable in [NOT_JSON, NOT_OBJECT, NO_EVENT, NO_CHANNEL, NO_CHANNEL_BESIDE, NO_ID] {
            let Unreadable::Malformed(text) = unreadable else { panic!("{unreadable:?}") };
            assert_eq!(serde_json::to_string(text).unwrap().len(), text.len() + 2);
        }
    }

    /// Messages that are nearly valid, so that replacements hit the members that matter.
    fn nearly_commands() -> impl Strategy<Value = String> {
        let events = [
            "socket:subscribe",
            "socket:unsubscribe",
            "socket:ping",
            "socket:pong",
            "socket:\\u0070ing",
            "socket:signin",
            "client-a",
            "socket:connected",
        ];
        let names = ["channel", "auth", "channel_data", "id", "\\u0069d", "since", "user_data"];
        let event = prop::sample::select(events.to_vec());
        let value = prop_oneof![written_json(), written_since()];
        let member = (prop::sample::select(names.to_vec()), value);
        (event, prop::collection::vec(member, 0..4)).prop_map(|(event, members)| {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let data = members.join(",");
            format!(r#"{{"event":"{event}","channel":"b","data":{{"channel":"user:13","id":7,{data}}}}}"#)
                .replace(",}", "}")
        })
    }

    /// Positions, and objects that are nearly positions.
    fn written_since() -> impl Strategy<Value = String> {
        let member = prop_oneof![
            ("\"epoch\"|\"ep\\\\u006fch\"", "\"[0-9a-f]{16}\"|\"[0-9a-fA-Fg]{15,17}\"|null"),
            ("\"offset\"", "-?[0-9]{1,17}|[0-9]\\.0|900719925474099[0-9]"),
            ("\"socket_id\"", "\"[0-9]{1,3}\\.[0-9]{1,3}\"|1\\.1|null"),
        ];
        prop::collection::vec(member, 0..4).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", members.join(","))
        })
    }

    /// `since` as serde_json reads it.
    fn serde_since(since: Option<&str>) -> Since {
        use serde_json::value::RawValue;
        use std::collections::HashMap;
        let Some(since) = since else { return Since::Absent };
        let read = || {
            let since: HashMap<String, &RawValue> = serde_json::from_str(since).ok()?;
            let value = |name: &str| since.get(name).map(|raw| raw.get());
            let epoch =
                value("epoch")?.starts_with('"').then(|| serde_json::from_str::<String>(value("epoch")?).ok())?;
            let epoch = epoch.and_then(|epoch| {
                let number = u64::from_str_radix(&epoch, 16).ok()?;
                (format!("{number:016x}") == epoch).then_some(number)
            });
            let offset: u64 = serde_json::from_str(value("offset")?).ok()?;
            let socket_id = match value("socket_id") {
                Some(id) => Some(SocketId::parse(&serde_json::from_str::<String>(id).ok()?)?),
                None => None,
            };
            (offset < 1 << 53).then_some(Since::Position { epoch, offset, socket_id })
        };
        read().unwrap_or(Since::Malformed)
    }

    proptest! {
        #[test]
        fn only_malformed_json_is_called_malformed_json(
            text in prop_oneof![written_json(), nearly_commands()],
            slips in prop::collection::vec(slips(), 0..3),
        ) {
            let text = slips.iter().fold(text, |text, (at, len, with)| mutated(&text, *at, *len, with));
            prop_assert_eq!(command(&mut Reader::default(), &text) != Err(NOT_JSON), serde_says_json(&text), "{:?}", text);
        }

        #[test]
        fn it_reads_the_same_as_serde_json(text in nearly_commands()) {
            let mut reader = Reader::default();
            let Ok(command) = command(&mut reader, &text) else { return Ok(()) };
            #[derive(serde::Deserialize)]
            struct Message<'a> {
                #[serde(borrow)]
                data: std::collections::HashMap<String, &'a serde_json::value::RawValue>,
            }
            // serde_json cannot represent a key with an unpaired surrogate.
            let Ok(message) = serde_json::from_str::<Message<'_>>(&text) else { return Ok(()) };
            let string = |name: &str| message.data.get(name).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
            match command {
                Command::Subscribe { channel, auth, channel_data, since } => {
                    prop_assert_eq!(since, serde_since(message.data.get("since").map(|raw| raw.get())));
                    prop_assert_eq!(Some(channel.value.into_owned()), string("channel"));
                    prop_assert_eq!(auth == Auth::Absent, !message.data.contains_key("auth"));
                    if let Auth::Text(auth) = auth {
                        prop_assert_eq!(Some(auth.into_owned()), string("auth"));
                    }
                    prop_assert_eq!(channel_data.map(|data| data.value.into_owned()), string("channel_data"));
                }
                Command::Unsubscribe { channel } => prop_assert_eq!(Some(channel.value.into_owned()), string("channel")),
                Command::Ping { id } => prop_assert_eq!(id, message.data["id"].get()),
                Command::Pong => {}
                Command::SignIn { auth, user_data } => {
                    prop_assert_eq!(auth == Auth::Absent, !message.data.contains_key("auth"));
                    let auth = if let Auth::Text(auth) = auth { Some(auth.into_owned()) } else { None };
                    prop_assert_eq!(auth, string("auth"));
                    prop_assert_eq!(user_data.map(|data| data.value.into_owned()), string("user_data"));
                }
                Command::ClientEvent { event, channel, data } => {
                    prop_assert_eq!((&*event.value, &*channel.value), ("client-a", "b"));
                    let whole: std::collections::HashMap<&str, &serde_json::value::RawValue> =
                        serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(data.map(|data| data.raw), Some(whole["data"].get()));
                }
            }
        }
    }
}
