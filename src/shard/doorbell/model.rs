//! Every interleaving of shards that mail each other, by loom. A lost wake-up leaves all of them asleep, which loom reports as
//! a deadlock.

use super::{Doorbell, Flag, Wake};
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering::SeqCst};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use std::collections::VecDeque;
use std::io;

/// An eventfd and the poll that reports it.
#[derive(Default)]
struct Sleeper {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Sleeper {
    /// A poll: without `sleeps` it only takes note of what was reported.
    fn poll(&self, sleeps: bool) {
        let mut is_woken = self.is_woken.lock().expect("no thread panics");
        while sleeps && !*is_woken {
            is_woken = self.changed.wait(is_woken).expect("no thread panics");
        }
        *is_woken = false;
    }
}

impl Wake for Arc<Sleeper> {
    fn wake(&self) -> io::Result<()> {
        *self.is_woken.lock().expect("no thread panics") = true;
        self.changed.notify_one();
        Ok(())
    }
}

impl Flag for AtomicBool {
    fn is_set(&self) -> bool {
        self.load(SeqCst)
    }

    fn swap(&self, value: bool) -> bool {
        AtomicBool::swap(self, value, SeqCst)
    }
}

type Bell = Doorbell<Arc<Sleeper>, AtomicBool>;

/// What all shards share.
struct House {
    sleepers: Vec<Arc<Sleeper>>,
    doorbells: Vec<Bell>,
    inboxes: Vec<Mutex<VecDeque<u32>>>,
    room: usize,
}

impl House {
    fn new(shards: usize, room: usize) -> House {
        let sleepers: Vec<Arc<Sleeper>> = (0..shards).map(|_| Arc::default()).collect();
        let doorbells = sleepers.iter().map(|sleeper| Doorbell::new(sleeper.clone(), shards)).collect();
        House { sleepers, doorbells, inboxes: (0..shards).map(|_| Mutex::default()).collect(), room }
    }

    fn push(&self, to: usize, letter: u32) -> Result<(), u32> {
        let mut inbox = self.inboxes[to].lock().expect("no thread panics");
        if inbox.len() == self.room {
            return Err(letter);
        }
        inbox.push_back(letter);
        Ok(())
    }

    fn pop(&self, me: usize) -> Option<u32> {
        self.inboxes[me].lock().expect("no thread panics").pop_front()
    }

    /// The turns of a shard, in the order of `Shard::turn`, until it has sent and received all that it should.
    fn run(&self, Part { me, to, letters, expected, mut is_behind }: Part) {
        let mut backlog: VecDeque<u32> = (0..letters).collect();
        let mut received = 0;
        let mut has_work = letters > 0;
        while !backlog.is_empty() || received < expected {
            self.sleepers[me].poll(!has_work);
            self.doorbells[me].look();
            if !std::mem::take(&mut is_behind) {
                while self.pop(me).is_some() {
                    received += 1;
                }
                self.doorbells[me].call_refused(&self.doorbells).expect("rung");
            }
            let before = backlog.len();
            while let Some(letter) = backlog.pop_front() {
                if let Err(letter) = self.doorbells[to].offer(me, letter, |letter| self.push(to, letter)) {
                    backlog.push_front(letter);
                    break;
                }
            }
            if backlog.len() < before {
                self.doorbells[to].ring().expect("rung");
            }
            has_work = !self.inboxes[me].lock().expect("no thread panics").is_empty();
        }
    }
}

/// What shard `me` has to do.
#[derive(Clone, Copy)]
struct Part {
    me: usize,
    to: usize,
    letters: u32,
    expected: usize,
    /// Its output is behind, so that it takes no mail in its first turn.
    is_behind: bool,
}

/// Runs the parts, one thread each, in every order that up to `preemptions` preemptions allow.
fn check(preemptions: usize, parts: &'static [Part]) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(|| {
        let house = Arc::new(House::new(parts.len(), 1));
        let threads: Vec<_> = parts[1..]
            .iter()
            .map(|&part| {
                let house = house.clone();
                thread::spawn(move || house.run(part))
            })
            .collect();
        house.run(parts[0]);
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    });
}

const SENDER: Part = Part { me: 0, to: 1, letters: 2, expected: 0, is_behind: false };
const RECEIVER: Part = Part { me: 1, to: 0, letters: 0, expected: 2, is_behind: false };

#[test]
fn a_receiver_never_sleeps_on_its_mail() {
    check(3, &[SENDER, RECEIVER]);
}

#[test]
fn a_receiver_whose_output_is_behind_never_sleeps_on_its_mail() {
    check(3, &[SENDER, Part { is_behind: true, ..RECEIVER }]);
}

#[test]
fn shards_that_mail_each_other_do_not_deadlock() {
    check(3, &[Part { expected: 2, ..SENDER }, Part { letters: 2, ..RECEIVER }]);
}

#[test]
fn letters_of_two_senders_to_one_inbox_arrive() {
    const SECOND: Part = Part { me: 1, to: 2, letters: 1, ..SENDER };
    check(2, &[Part { to: 2, ..SENDER }, SECOND, Part { me: 2, expected: 3, ..RECEIVER }]);
}
