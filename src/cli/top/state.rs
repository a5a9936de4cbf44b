//! The state of `corecast top`: samples and keys in, a [`View`] and its histories out. Pure.

use super::sample::Sample;
use super::view::{Rate, View};
use corecast::api::By;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::VecDeque;
use std::time::Duration;

pub struct State {
    /// The admin socket, for the title.
    pub socket: String,
    pub interval: Duration,
    /// The view that is shown.
    pub view: View,
    /// Past values of the rates that have a curve, latest first.
    pub histories: Histories,
    /// The table that the arrow keys scroll.
    pub focus: Focus,
    /// The first visible row of each table.
    pub offsets: [usize; Focus::ALL.len()],
    /// The order of the channels.
    pub by: By,
    pub is_paused: bool,
    pub shows_help: bool,
    /// Why the server does not answer at the moment.
    pub lost: Option<String>,
    /// Seconds for which an answer has been overdue, from `SILENT_S_MIN` on.
    pub silent_s: Option<u64>,
    latest: Option<Sample>,
}

#[derive(Default)]
pub struct Histories {
    pub deliveries: History,
    pub publishes: History,
    pub bytes_out: History,
    pub messages_in: History,
}

/// Histories of rates, latest first.
#[derive(Default)]
pub struct History(VecDeque<Option<u64>>);

impl History {
    fn note(&mut self, rate: Rate) {
        self.0.truncate(HISTORY_MAX - 1);
        self.0.push_front(rate.map(|rate| rate.round() as u64));
    }

    /// Latest first; `None`: unknown.
    pub fn iter(&self) -> impl Iterator<Item = Option<u64>> {
        self.0.iter().copied()
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    Channels,
    Addresses,
    Closes,
    Shards,
}

impl Focus {
    /// In the order in which Tab visits them.
    pub const ALL: [Focus; 4] = [Focus::Channels, Focus::Addresses, Focus::Closes, Focus::Shards];

    fn step(self, by: usize) -> Focus {
        Focus::ALL[(self as usize + by) % Focus::ALL.len()]
    }
}

/// What a key asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Nothing,
    Quit,
    /// Sample the channels that are busiest by this.
    Ask(By),
}

impl State {
    pub fn new(socket: String, interval: Duration) -> State {
        State {
            socket,
            interval,
            view: View::default(),
            histories: Histories::default(),
            focus: Focus::Channels,
            offsets: [0; Focus::ALL.len()],
            by: By::Subscribers,
            is_paused: false,
            shows_help: false,
            lost: None,
            silent_s: None,
            latest: None,
        }
    }

    /// Takes a sample. While paused it is ignored, so the next rates are averages over the pause.
    pub fn sampled(&mut self, sample: Sample) {
        self.lost = None;
        if self.is_paused {
            return;
        }
        self.view = View::between(self.latest.as_ref(), &sample, self.by);
        self.latest = Some(sample);
        let rates = &self.view.rates;
        self.histories.deliveries.note(rates.deliveries);
        self.histories.publishes.note(rates.publishes);
        self.histories.bytes_out.note(rates.bytes_out);
        self.histories.messages_in.note(rates.messages_in);
        for focus in Focus::ALL {
            self.scroll(focus, 0);
        }
    }

    /// Takes an error; the last values stay visible. The next sample may come from another server, whose counters start
    /// at 0.
    pub fn lost(&mut self, why: String) {
        self.lost = Some(why);
        self.latest = None;
    }

    /// `since`: the time since the last answer or error. Returns whether the view changes.
    pub fn waits(&mut self, since: Duration) -> bool {
        let due_s = since.saturating_sub(self.interval).as_secs();
        let silent_s = (due_s >= SILENT_S_MIN).then_some(due_s);
        std::mem::replace(&mut self.silent_s, silent_s) != silent_s
    }

    pub fn pressed(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Wish::Quit,
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc if self.shows_help => self.shows_help = false,
            KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                self.by = match self.by {
                    By::Subscribers => By::Messages,
                    By::Messages => By::Subscribers,
                };
                self.view.sort(self.by);
                return Wish::Ask(self.by);
            }
            KeyCode::Tab | KeyCode::Right => self.focus = self.focus.step(1),
            KeyCode::BackTab | KeyCode::Left => self.focus = self.focus.step(Focus::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(self.focus, 1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(self.focus, -1),
            KeyCode::PageDown => self.scroll(self.focus, PAGE_ROWS),
            KeyCode::PageUp => self.scroll(self.focus, -PAGE_ROWS),
            KeyCode::Home => self.offsets[self.focus as usize] = 0,
            KeyCode::End => self.scroll(self.focus, isize::MAX),
            _ => {}
        }
        Wish::Nothing
    }

    /// At least the last row stays visible.
    fn scroll(&mut self, table: Focus, rows: isize) {
        let count = match table {
            Focus::Channels => self.view.channels.len(),
            Focus::Addresses => self.view.addresses.len(),
            Focus::Closes => self.view.closes.len(),
            Focus::Shards => self.view.shards.len(),
        };
        let offset = &mut self.offsets[table as usize];
        *offset = offset.saturating_add_signed(rows).min(count.saturating_sub(1));
    }
}

/// Width of the widest screen.
const HISTORY_MAX: usize = 512;
const PAGE_ROWS: isize = 10;
/// Even a busy server answers faster.
const SILENT_S_MIN: u64 = 2;

#[cfg(test)]
mod tests {
    use super::super::view::tests::samples;
    use super::*;

    fn state() -> State {
        State::new("/run/corecast.sock".into(), Duration::from_secs(1))
    }

    fn press(state: &mut State, code: KeyCode) -> Wish {
        state.pressed(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_that_end_it() {
        let quits = |code, modifiers| state().pressed(KeyEvent::new(code, modifiers)) == Wish::Quit;
        assert!(quits(KeyCode::Char('q'), KeyModifiers::NONE) && quits(KeyCode::Esc, KeyModifiers::NONE));
        assert!(quits(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!quits(KeyCode::Char('c'), KeyModifiers::NONE) && !quits(KeyCode::Enter, KeyModifiers::NONE));
        let mut state = state();
        press(&mut state, KeyCode::Char('?'));
        assert!(state.shows_help);
        assert_eq!(press(&mut state, KeyCode::Esc), Wish::Nothing, "closes the help first");
        assert!(!state.shows_help);
    }

    #[test]
    fn tables_are_chosen_round_and_scrolled_within_their_rows() {
        let mut state = state();
        let [before, now] = samples();
        state.sampled(before);
        state.sampled(now);
        for _ in 0..9 {
            press(&mut state, KeyCode::Down);
        }
        assert_eq!(state.offsets[Focus::Channels as usize], 3, "of four rows");
        press(&mut state, KeyCode::PageUp);
        assert_eq!(state.offsets[Focus::Channels as usize], 0);
        for focus in [Focus::Addresses, Focus::Closes, Focus::Shards, Focus::Channels] {
            press(&mut state, KeyCode::Tab);
            assert_eq!(state.focus, focus);
        }
        press(&mut state, KeyCode::Left);
        assert_eq!(state.focus, Focus::Shards);
        press(&mut state, KeyCode::End);
        assert_eq!(state.offsets, [0, 0, 0, 1]);
    }

    #[test]
    fn sorting_holds_at_once_and_for_the_samples_to_come() {
        let mut state = state();
        let [before, now] = samples();
        state.sampled(before);
        state.sampled(now.clone());
        assert_eq!(state.view.channels[0].channel, "news");
        assert_eq!(press(&mut state, KeyCode::Char('s')), Wish::Ask(By::Messages));
        assert_eq!(state.view.channels[0].channel, "user:13");
        assert_eq!(press(&mut state, KeyCode::Char('s')), Wish::Ask(By::Subscribers));
        assert_eq!(state.view.channels[0].channel, "news");
    }

    #[test]
    fn a_pause_holds_the_picture_and_the_rates_after_it_are_its_average() {
        let mut state = state();
        let [before, now] = samples();
        state.sampled(before);
        press(&mut state, KeyCode::Char('p'));
        state.sampled(now.clone());
        assert_eq!((state.view.connections, state.histories.deliveries.iter().count()), (190, 1));
        press(&mut state, KeyCode::Char('p'));
        state.sampled(now);
        assert_eq!(state.view.rates.deliveries, Some(1_000_000.0));
        assert!(state.histories.deliveries.iter().eq([Some(1_000_000), None]));
    }

    #[test]
    fn what_was_known_stays_while_the_server_is_gone() {
        let mut state = state();
        let [before, now] = samples();
        state.sampled(before);
        state.lost("gone".into());
        assert_eq!((state.view.connections, state.lost.as_deref()), (190, Some("gone")));
        state.sampled(now);
        assert_eq!(state.lost, None);
    }

    #[test]
    fn there_are_no_rates_between_two_servers_even_if_the_second_counted_more() {
        for is_paused in [false, true] {
            let mut state = state();
            let [before, now] = samples();
            state.sampled(before);
            state.is_paused = is_paused;
            state.lost("gone".into());
            state.is_paused = false;
            state.sampled(now);
            assert_eq!((state.view.connections, state.view.rates.deliveries), (215, None));
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_live() {
        let mut state = state();
        let mut waits = |ms| (state.waits(Duration::from_millis(ms)), state.silent_s);
        assert_eq!([waits(900), waits(2999)], [(false, None); 2]);
        assert_eq!([waits(3000), waits(3500), waits(4000)], [(true, Some(2)), (false, Some(2)), (true, Some(3))]);
        assert_eq!([waits(0), waits(100)], [(true, None), (false, None)]);
    }
}
