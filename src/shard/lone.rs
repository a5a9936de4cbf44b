//! One shard by itself, turned by hand on the thread of a test, with real sockets.

use super::doorbell::Doorbell;
use super::orders::{Call, Order};
use super::{DOORBELL, EVENTS_PER_TURN, Parts, Shard, Shared, mesh};
use crate::config::{Flags, Settings};
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Events, Poll, Waker};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Instant;

/// The shard, and what others would hold of it.
pub struct Lone {
    pub shard: Shard,
    pub shared: Arc<Shared>,
    pub address: SocketAddr,
    events: Events,
    _orders: Sender<Order>,
    _calls: Receiver<Call>,
}

impl Lone {
    /// With the default settings.
    pub fn new() -> Lone {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corecast-test-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let admin = net::SocketAddr::from_abstract_name(name).expect("a name");
        let admin = UnixListener::bind_addr(&admin).expect("a socket");
        admin.set_nonblocking(true).expect("a socket option");
        let listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), DOORBELL).expect("a waker");
        let (calls, called) = unbounded();
        let (order, orders) = unbounded();
        let (inbox, receiver) = mesh::inbox();
        let shared = Arc::new(Shared {
            doorbells: Arc::new([Doorbell::new(waker, 1)]),
            is_stopping: AtomicBool::new(false),
            accepted: Arc::default(),
            admitted: Arc::default(),
            seed: [1, 2, 3, 4],
            start: Instant::now(),
            calls,
            log_lines_dropped: Box::new(|| 0),
        });
        let parts = Parts {
            me: 0,
            poll,
            listener,
            admin_listener: mio::net::UnixListener::from_std(admin),
            inbox: receiver,
            inboxes: Box::new([inbox]),
            orders,
            shared: shared.clone(),
        };
        let config = Settings::gather(&Flags::default(), |_| None).and_then(|settings| settings.validate());
        let live = config.expect("the defaults are valid").live;
        let shard = Shard::new(parts, Arc::new(live)).expect("a shard");
        let events = Events::with_capacity(EVENTS_PER_TURN);
        Lone { shard, shared, address, events, _orders: order, _calls: called }
    }

    /// One turn.
    pub fn turn(&mut self) {
        self.shard.turn(&mut self.events).expect("a turn");
    }

    /// Clients whose upgrade is done.
    pub fn connect(&mut self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.connect_one()).collect()
    }

    fn connect_one(&mut self) -> TcpStream {
        let wanted = self.shard.clients.count_open() + 1;
        let mut client = TcpStream::connect(self.address).expect("the shard listens");
        client.write_all(UPGRADE).expect("room for a request");
        while self.shard.clients.count_open() < wanted {
            self.turn();
        }
        client
    }
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
