//! A client event in the body of a webhook. Pure.

use crate::hub::message::Message;
use crate::hub::observe::extras::ClientEvent;
use crate::protocol::json::well_formed;
use crate::protocol::pusher::data::write_text;

/// The event as Pusher sends it: `data` is a string, and the sender is named by its second spelling, because the libraries
/// of backends decode and accept nothing else.
pub fn text(event: &ClientEvent) -> String {
    let ClientEvent { channel, sender, payload } = event;
    let Message { event, data, text, user_id, .. } = payload.message(None);
    let (channel, sender) = (channel.as_channel().as_str(), sender.dotted());
    let mut content = Vec::new();
    write_text(&mut content, data, text);
    // A client chooses the data, and one text that a receiver cannot read would make it refuse the whole batch.
    let content = String::from_utf8_lossy(&content);
    let data = well_formed(&content);
    let user_id = user_id.map(|id| format!(r#","user_id":"{id}""#)).unwrap_or_default();
    format!(
        r#"{{"name":"client_event","channel":"{channel}","event":"{event}","data":"{data}","socket_id":"{sender}"{user_id}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::Payload;
    use crate::protocol::channel::Channel;
    use crate::protocol::pusher::data::Text;
    use crate::protocol::socket_id::SocketId;

    #[track_caller]
    fn check(data: Option<&str>, text_is: Text<'_>, user_id: Option<&str>, expected: &str) {
        let channel = Channel::parse("private-a").expect("a legal name").into();
        let message = Message { event: r"client-\u00e9", data, text: text_is, user_id, ..Message::default() };
        let payload = Payload::new(&message, &mut String::new());
        let event = ClientEvent { channel, sender: SocketId { high: 1, low: 2 }, payload };
        let expected = format!(r#"{{"name":"client_event","channel":"private-a","event":"client-\u00e9",{expected}}}"#);
        assert_eq!(text(&event), expected);
        serde_json::from_str::<serde_json::Value>(&expected).expect("JSON of Unicode text");
    }

    #[test]
    fn data_is_the_text_that_pushers_clients_receive() {
        check(None, Text::Json, None, r#""data":"null","socket_id":"1.2""#);
        check(Some("17"), Text::Json, None, r#""data":"17","socket_id":"1.2""#);
        let object = r#"{"a" : "\u00e9"}"#;
        check(Some(object), Text::Json, None, r#""data":"{\"a\" : \"\\u00e9\"}","socket_id":"1.2""#);
        check(Some("[]"), Text::Padded("[]\n"), None, r#""data":"[]\n","socket_id":"1.2""#);
        let user = Some(r#"1\"2"#);
        check(Some(r#""x\n""#), Text::Content, user, r#""data":"x\n","socket_id":"1.2","user_id":"1\"2""#);
        check(Some(r#""x""#), Text::Json, None, r#""data":"\"x\"","socket_id":"1.2""#);
        check(Some(r#""a\ud83c""#), Text::Content, None, r#""data":"a\ufffd","socket_id":"1.2""#);
        check(Some(r#"["\ud83c"]"#), Text::Json, None, r#""data":"[\"\\ud83c\"]","socket_id":"1.2""#);
    }
}
