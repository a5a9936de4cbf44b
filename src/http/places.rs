//! Places limit the HTTP connections. When the general places are taken, the keep-alive connection that was idle
//! longest loses its place. If none is idle, a new connection gets a reserved place, which serves only health checks.
//! So an orchestrator does not kill a server for its load. Connections are not limited per address, because an ingress
//! has a single address.
//!
//! A connection that lost its place may still write its last response. Clients that do not read could prolong that, so
//! only the last few such connections may.

use hyper::body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The places that are taken.
#[derive(Default)]
pub struct Places {
    general: Vec<Arc<Place>>,
    reserved: Vec<Arc<Place>>,
    /// Connections that lost their place, and have not ended. The oldest is first.
    leaving: VecDeque<Arc<Place>>,
}

/// The place of a new connection.
pub struct Admission {
    /// Held until [`Places::release`].
    pub place: Arc<Place>,
    /// Whether another connection lost its place.
    pub evicts: bool,
}

/// A connection's place.
pub struct Place {
    is_reserved: bool,
    state: Mutex<(Stage, Instant)>,
    evicted: Notify,
    cut_off: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the first head.
    New,
    /// From a request's head to the end of the response's body.
    Busy,
    /// Between two requests.
    Idle,
    /// After the last response, while the client's remaining input is dropped.
    Ended,
}

impl Places {
    /// A place for a new connection. `None`: all places belong to connections that must not be closed.
    pub fn admit(&mut self) -> Option<Admission> {
        let is_general = self.general.len() < GENERAL;
        let may = |stage| matches!(stage, Stage::Idle | Stage::Ended);
        let evicts_general = !is_general && evict(&mut self.general, &mut self.leaving, may);
        if is_general || evicts_general {
            return Some(admission(&mut self.general, false, evicts_general));
        }
        let is_free = self.reserved.len() < RESERVED;
        // A health check sends its head at once. So a connection that was silent longer than the others is not one.
        let evicts = !is_free && evict(&mut self.reserved, &mut self.leaving, |stage| stage != Stage::Busy);
        (is_free || evicts).then(|| admission(&mut self.reserved, true, evicts))
    }

    /// Frees the place of a connection that has ended.
    pub fn release(&mut self, place: &Arc<Place>) {
        let places = if place.is_reserved { &mut self.reserved } else { &mut self.general };
        places.retain(|taken| !Arc::ptr_eq(taken, place));
        self.leaving.retain(|leaving| !Arc::ptr_eq(leaving, place));
    }
}

fn admission(places: &mut Vec<Arc<Place>>, is_reserved: bool, evicts: bool) -> Admission {
    let state = Mutex::new((Stage::New, Instant::now()));
    let place = Arc::new(Place { is_reserved, state, evicted: Notify::new(), cut_off: Notify::new() });
    places.push(place.clone());
    Admission { place, evicts }
}

/// Removes the connection that has been longest in a stage that `may` accepts. Returns false if there is none.
fn evict(places: &mut Vec<Arc<Place>>, leaving: &mut VecDeque<Arc<Place>>, may: impl Fn(Stage) -> bool) -> bool {
    let state = |(at, place): (usize, &Arc<Place>)| (at, *place.state());
    let candidates = places.iter().enumerate().map(state).filter(|(_, (stage, _))| may(*stage));
    let Some((at, _)) = candidates.min_by_key(|(_, (_, since))| *since) else { return false };
    let place = places.swap_remove(at);
    place.evicted.notify_one();
    leaving.push_back(place);
    if leaving.len() > LEAVING {
        leaving.pop_front().inspect(|oldest| oldest.cut_off.notify_one());
    }
    true
}

impl Place {
    /// Whether it serves only health checks.
    pub fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Whether the connection has not sent a head yet.
    pub fn awaits_first_head(&self) -> bool {
        self.state().0 == Stage::New
    }

    /// Returns when the connection must end because it lost its place to another connection.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Returns when the connection, which lost its place, must end even if its last response is not written.
    pub async fn cut_off(&self) {
        self.cut_off.notified().await;
    }

    /// A request has arrived.
    pub fn answer(self: Arc<Place>) -> Answering {
        self.enter(Stage::Busy);
        Answering(self)
    }

    /// The last response has been written.
    pub fn end(&self) {
        self.enter(Stage::Ended);
    }

    fn enter(&self, stage: Stage) {
        *self.state() = (stage, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, (Stage, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in progress. When this is dropped, the connection is idle.
pub struct Answering(Arc<Place>);

impl Answering {
    /// Attaches this to the body of the response, whose end drops it.
    pub fn with<B>(self, body: B) -> Answer<B> {
        Answer { body, _answering: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Stage::Idle);
    }
}

/// The body of a response.
pub struct Answer<B> {
    body: B,
    _answering: Answering,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Places for all paths.
pub const GENERAL: usize = 256;
/// Places for health checks only.
pub const RESERVED: usize = 8;
/// Connections without a place that may still write their last response.
pub const LEAVING: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> (Places, Vec<Arc<Place>>) {
        let mut places = Places::default();
        let general = (0..GENERAL).map(|_| places.admit().expect("a free place").place).collect();
        (places, general)
    }

    fn is_evicted(place: &Place) -> bool {
        let mut evicted = Box::pin(place.evicted());
        evicted.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_connection_that_was_idle_longest_gives_its_place_up() {
        let (mut places, general) = full();
        let busy = general[0].clone().answer();
        for place in &general[1..] {
            place.clone().answer();
        }
        general[1].clone().answer();
        let admission = places.admit().expect("a place");
        assert!(admission.evicts && !admission.place.is_reserved());
        assert!(is_evicted(&general[2]));
        assert!(general.iter().all(|place| !is_evicted(place)), "only one connection is evicted");
        places.release(&general[2]);
        assert_eq!(places.general.len(), GENERAL, "an evicted connection has no place to release");
        drop(busy);
    }

    #[test]
    fn only_the_last_evicted_connections_may_write_their_response() {
        let (mut places, general) = full();
        general.iter().for_each(|place| drop(place.clone().answer()));
        let is_cut_off = |place: &Place| {
            let mut cut_off = Box::pin(place.cut_off());
            cut_off.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        places.admit().expect("a place");
        places.release(&general[0]);
        for _ in 0..=LEAVING {
            places.admit().expect("a place");
        }
        assert!(is_cut_off(&general[1]));
        assert!(general.iter().all(|place| !is_cut_off(place)), "only the one that was evicted first");
    }

    #[test]
    fn reserved_places_are_for_connections_that_send_at_once() {
        let (mut places, general) = full();
        let reserved: Vec<Arc<Place>> = (0..RESERVED).map(|_| places.admit().expect("a place").place).collect();
        assert!(reserved.iter().all(|place| place.is_reserved()));
        let first = reserved[0].clone().answer();
        let admission = places.admit().expect("a place");
        assert!(admission.evicts && admission.place.is_reserved() && is_evicted(&reserved[1]));
        let _all: Vec<Answering> =
            reserved[2..].iter().chain([&admission.place]).map(|place| place.clone().answer()).collect();
        assert!(places.admit().is_none(), "requests in progress are not interrupted");
        drop(first);
        assert!(places.admit().expect("a place").place.is_reserved());
        places.release(&general[7]);
        assert!(!places.admit().expect("a place").place.is_reserved());
    }
}
