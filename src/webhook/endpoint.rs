//! Sends the batches of one URL, one request at a time, each until the URL accepts it or it is too old.

use super::post::{Post, Signed};
use super::queue::{Queue, Seldom};
use super::tally::Lost;
use crate::config::Key;
use crate::protocol::auth;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// How batches are sent. Each attempt goes by what holds then.
#[derive(Clone)]
pub struct Sending<P> {
    /// Signs.
    pub key: Key,
    /// For how long a batch is offered.
    pub retry: Duration,
    /// Carries.
    pub post: P,
}

/// Tells the URL of this queue what is in it, until the end. When that has come, each batch gets one more try, and after
/// the first that fails the rest stays in the queue.
pub async fn deliver<P: Post>(queue: Arc<Queue>, sending: watch::Receiver<Sending<P>>) {
    let mut failures = Failures::default();
    while let Some(batch) = queue.batch().await {
        let begun = Instant::now();
        offer(&queue, &batch, &sending, &mut failures).await;
        if failures.in_a_row > 0 && queue.is_ending() {
            return;
        }
        queue.gather(begun + PACE).await;
    }
}

/// Requests that have failed.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    warnings: Seldom,
}

/// Offers one batch until it is taken or lost.
async fn offer<P: Post>(
    queue: &Queue,
    batch: &[Arc<str>],
    sending: &watch::Receiver<Sending<P>>,
    failures: &mut Failures,
) {
    let begun = Instant::now();
    loop {
        let Sending { key, retry, post } = sending.borrow().clone();
        let was_ending = queue.is_ending();
        let body = body(batch, now_ms());
        let signature = auth::sign_text(&key, &body);
        let request = Signed { url: queue.url.clone(), key: key.id, signature, body: body.into() };
        let answer = post.post(request).await;
        queue.tally.count(|counters| {
            counters.webhook_requests += 1;
            counters.webhook_failures += u64::from(answer.is_err());
        });
        let failure = match answer {
            Ok(()) => {
                if failures.in_a_row > 0 {
                    tracing::info!(url = %queue.url, failures = failures.in_a_row, "webhook: accepted again");
                }
                failures.in_a_row = 0;
                return queue.settle();
            }
            Err(failure) => failure,
        };
        if failures.in_a_row == 0 && failures.warnings.is_due() {
            tracing::warn!(url = %queue.url, %failure, "webhook: not accepted; retrying for {} s", retry.as_secs_f64());
        } else {
            tracing::debug!(url = %queue.url, %failure, failures = failures.in_a_row, "webhook: not accepted");
        }
        failures.in_a_row += 1;
        if was_ending {
            return;
        }
        let left = retry.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return queue.lose_offered(Lost::Expired);
        }
        queue.pause(Instant::now() + pause(failures.in_a_row, random()).min(left)).await;
    }
}

/// As Pusher's: `{"time_ms":…,"events":[…]}`. The time is that of the attempt, since receivers refuse what is old.
fn body(batch: &[Arc<str>], now_ms: u64) -> String {
    let mut body = String::with_capacity(64 + batch.iter().map(|event| event.len() + 1).sum::<usize>());
    body += &format!("{{\"time_ms\":{now_ms},\"events\":[");
    for (at, event) in batch.iter().enumerate() {
        body += if at == 0 { "" } else { "," };
        body += event;
    }
    body += "]}";
    body
}

/// The pause before the next attempt: a second after the first failure in a row, doubled with each further one, at most a
/// minute. It is shortened at random, by up to a half, so that servers that failed together do not retry together.
fn pause(failures: u32, random: u64) -> Duration {
    let whole_ms = (PAUSE_MS_MIN << failures.saturating_sub(1).min(16)).min(PAUSE_MS_MAX);
    Duration::from_millis(whole_ms / 2 + random % (whole_ms / 2 + 1))
}

/// A random number, or 0 if the system cannot provide one. The pauses are then the shortest, which does no harm.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Time between the starts of two batches, so that events are collected. A full batch is sent at once.
const PACE: Duration = Duration::from_millis(100);
const PAUSE_MS_MIN: u64 = 1000;
const PAUSE_MS_MAX: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookUrl;
    use crate::webhook::post::Failure;
    use crate::webhook::tally::Tally;
    use hyper::StatusCode;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Answers as it was told, and notes what came and when.
    #[derive(Clone)]
    struct Script(Arc<Mutex<Played>>);

    struct Played {
        /// Before any comes.
        start: Instant,
        /// How many requests fail; then the next succeeds.
        failures: VecDeque<usize>,
        requests: Vec<(Duration, Signed)>,
    }

    impl Post for Script {
        async fn post(&self, request: Signed) -> Result<(), Failure> {
            let mut played = self.0.lock().unwrap();
            let at = played.start.elapsed();
            played.requests.push((at, request));
            match played.failures.front_mut() {
                None => Ok(()),
                Some(0) => {
                    played.failures.pop_front();
                    Ok(())
                }
                Some(left) => {
                    *left -= 1;
                    Err(Failure::Status(StatusCode::INTERNAL_SERVER_ERROR))
                }
            }
        }
    }

    impl Script {
        fn requests(&self) -> Vec<(Duration, Signed)> {
            self.0.lock().unwrap().requests.clone()
        }
    }

    const RETRY: Duration = Duration::from_secs(300);

    fn key(id: &str) -> Key {
        Key { id: id.into(), secret: "secret".into() }
    }

    /// A queue that is delivered by a script with these failures, in time that passes as soon as all tasks wait.
    fn run(failures: &[usize], test: impl AsyncFnOnce(Arc<Queue>, Script, watch::Sender<Sending<Script>>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let url = WebhookUrl::parse("http://127.0.0.1/").expect("a URL");
            let queue = Arc::new(Queue::new(url, Tally::default()));
            let failures = failures.iter().copied().collect();
            let played = Played { start: Instant::now(), failures, requests: Vec::new() };
            let script = Script(Arc::new(Mutex::new(played)));
            let sending = watch::Sender::new(Sending { key: key("app"), retry: RETRY, post: script.clone() });
            let task = tokio::spawn(deliver(queue.clone(), sending.subscribe()));
            test(queue.clone(), script, sending).await;
            queue.end();
            task.await.expect("no panic");
        });
    }

    async fn until(queue: &Queue, is_so: impl Fn(&crate::metrics::WebhookStats) -> bool) {
        while !is_so(&queue.tally.now()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[test]
    fn a_batch_is_signed_as_pusher_signs() {
        run(&[], async |queue, script, _| {
            queue.push(r#"{"name":"channel_occupied","channel":"a"}"#.into());
            queue.push(r#"{"name":"channel_vacated","channel":"b"}"#.into());
            until(&queue, |stats| stats.counters.webhook_events == 2).await;
            let [(_, request)] = &script.requests()[..] else { panic!("one request") };
            let body = std::str::from_utf8(&request.body).expect("UTF-8");
            let (head, events) = body.split_once(r#","events":"#).expect("events");
            let time_ms: u64 = head.strip_prefix(r#"{"time_ms":"#).and_then(|time| time.parse().ok()).expect("a time");
            assert!(time_ms.abs_diff(now_ms()) < 60_000);
            let expected = r#"[{"name":"channel_occupied","channel":"a"},{"name":"channel_vacated","channel":"b"}]}"#;
            assert_eq!(events, expected);
            assert_eq!(request.key, "app");
            assert_eq!(request.signature, auth::sign_text(&key("app"), body));
        });
    }

    #[test]
    fn what_happens_within_the_pace_goes_together() {
        run(&[], async |queue, script, _| {
            queue.push("1".into());
            until(&queue, |stats| stats.counters.webhook_events == 1).await;
            for number in 2..10 {
                queue.push(number.to_string().into());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            until(&queue, |stats| stats.counters.webhook_events == 9).await;
            let times: Vec<Duration> = script.requests().into_iter().map(|(at, _)| at).collect();
            assert_eq!(times, [Duration::ZERO, PACE]);
        });
    }

    #[test]
    fn what_is_not_taken_is_sent_again_later_and_later_and_then_what_came_meanwhile() {
        run(&[9], async |queue, script, _| {
            queue.push("1".into());
            tokio::time::sleep(Duration::from_secs(10)).await;
            queue.push("2".into());
            until(&queue, |stats| stats.counters.webhook_events == 2).await;
            let requests = script.requests();
            assert_eq!(requests.len(), 11);
            for (failures, pair) in (1..10).zip(requests.windows(2)) {
                let pause = pair[1].0 - pair[0].0;
                let whole = Duration::from_millis((1000 << (failures - 1)).min(60_000));
                assert!((whole / 2..=whole).contains(&pause), "after {failures}: {pause:?}");
                assert!(pair[0].1.body.ends_with(b"[1]}"));
            }
            assert!(requests[10].1.body.ends_with(b"[2]}"));
            let counters = queue.tally.now().counters;
            assert_eq!((counters.webhook_requests, counters.webhook_failures), (11, 9));
        });
    }

    #[test]
    fn after_five_minutes_a_batch_is_dropped_and_counted() {
        run(&[usize::MAX], async |queue, script, _| {
            queue.push("1".into());
            tokio::time::sleep(Duration::from_secs(1)).await;
            queue.push("2".into());
            queue.push("3".into());
            until(&queue, |stats| stats.losses[Lost::Expired as usize].1 == 1).await;
            let first = script.requests();
            assert_eq!(first.last().expect("requests").0, RETRY, "the last try is at the very end");
            // A dead URL is not asked more often for the next.
            until(&queue, |stats| stats.losses[Lost::Expired as usize].1 == 3).await;
            let later = script.requests().len() - first.len();
            assert!((6..=11).contains(&later), "{later} requests in five minutes");
        });
    }

    #[test]
    fn a_retry_is_signed_by_the_key_that_holds_then() {
        run(&[1], async |queue, script, sending| {
            queue.push("1".into());
            until(&queue, |stats| stats.counters.webhook_failures == 1).await;
            sending.send_modify(|sending| sending.key = key("new"));
            until(&queue, |stats| stats.counters.webhook_events == 1).await;
            let keys: Vec<String> = script.requests().into_iter().map(|(_, request)| request.key).collect();
            assert_eq!(keys, ["app", "new"]);
        });
    }

    #[test]
    fn at_the_end_all_is_tried_once_more() {
        run(&[1], async |queue, script, _| {
            (0..1500).for_each(|number| queue.push(number.to_string().into()));
            until(&queue, |stats| stats.counters.webhook_failures == 1).await;
            let at = script.0.lock().unwrap().start.elapsed();
            queue.end();
            until(&queue, |stats| stats.counters.webhook_events == 1500).await;
            let requests = script.requests();
            assert_eq!(requests.len(), 3);
            assert!(requests[2].0 - at < Duration::from_millis(10), "without a pause");
        });
        run(&[usize::MAX], async |queue, script, _| {
            (0..1500).for_each(|number| queue.push(number.to_string().into()));
            until(&queue, |stats| stats.counters.webhook_failures == 1).await;
            queue.end();
            until(&queue, |stats| stats.counters.webhook_failures == 2).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(script.requests().len(), 2);
            assert_eq!(queue.tally.now().gauges.webhook_waiting_events, 1500, "they are left in the queue");
        });
    }
}
