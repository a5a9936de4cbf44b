//! A broadcast server with tokio-tungstenite as a user would write it: one thread, a task per connection, a broadcast channel
//! per topic. All waiting messages of a connection are fed into its sink before one flush.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

#[derive(Deserialize)]
struct Inbound<'a> {
    event: &'a str,
    #[serde(borrow)]
    channel: Option<&'a str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    channel: Option<&'a str>,
    id: Option<u64>,
}

type Topics = Rc<RefCell<HashMap<String, broadcast::Sender<Utf8Bytes>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "7000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let topics = Topics::default();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let topics = Rc::clone(&topics);
                    tokio::task::spawn_local(async move {
                        let _ = serve(stream, topics).await;
                    });
                }
            }
        })
        .await
}

async fn serve(stream: TcpStream, topics: Topics) -> Result<(), Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let mut subscription: Option<broadcast::Receiver<Utf8Bytes>> = None;
    loop {
        tokio::select! {
            inbound = socket.next() => {
                let Some(message) = inbound else { return Ok(()) };
                let Message::Text(text) = message? else { continue };
                if let Some(answer) = handle(&text, &topics, &mut subscription) {
                    socket.send(Message::text(answer)).await?;
                }
            }
            message = receive(&mut subscription) => {
                socket.feed(Message::Text(message)).await?;
                while let Some(Ok(message)) = subscription.as_mut().map(broadcast::Receiver::try_recv) {
                    socket.feed(Message::Text(message)).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

async fn receive(subscription: &mut Option<broadcast::Receiver<Utf8Bytes>>) -> Utf8Bytes {
    loop {
        match subscription {
            Some(receiver) => match receiver.recv().await {
                Ok(message) => return message,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => *subscription = None,
            },
            None => std::future::pending().await,
        }
    }
}

fn handle(text: &str, topics: &Topics, subscription: &mut Option<broadcast::Receiver<Utf8Bytes>>) -> Option<String> {
    let inbound: Inbound = serde_json::from_str(text).ok()?;
    let raw = inbound.data?;
    if inbound.event == "publish" {
        let channel = inbound.channel?;
        let body = format!(r#"{{"event":"m","channel":"{channel}","data":{raw}}}"#);
        if let Some(topic) = topics.borrow().get(channel) {
            let _ = topic.send(body.into());
        }
        return None;
    }
    let data: Data = serde_json::from_str(raw.get()).ok()?;
    match inbound.event {
        "socket:ping" => Some(format!(r#"{{"event":"socket:pong","data":{{"reply":{}}}}}"#, data.id?)),
        "socket:subscribe" => {
            let channel = data.channel?;
            let mut topics = topics.borrow_mut();
            let topic = topics.entry(channel.to_owned()).or_insert_with(|| broadcast::channel(CAPACITY).0);
            *subscription = Some(topic.subscribe());
            Some(format!(r#"{{"event":"socket:subscribed","channel":"{channel}"}}"#))
        }
        "socket:unsubscribe" => {
            *subscription = None;
            Some(format!(r#"{{"event":"socket:unsubscribed","channel":"{}"}}"#, data.channel?))
        }
        _ => None,
    }
}

/// Messages that a topic keeps for its slowest subscriber, which loses messages beyond that.
const CAPACITY: usize = 1024;
