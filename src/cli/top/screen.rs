//! The terminal: taken over, drawn to, and given back whatever happens.

use super::render::{Palette, draw};
use super::sample::Sample;
use super::state::{State, Wish};
use corecast::admin::client::{By, Client};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

/// Shows the server until the user has seen enough.
pub fn run(client: Client, socket: &Path, interval: Duration) -> anyhow::Result<ExitCode> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)?;
    }
    let (news, samples) = mpsc::channel();
    let (wishes, wanted) = mpsc::channel();
    let sampler = Sampler { socket: socket.into(), client: Some(client), interval, by: By::Subscribers };
    thread::spawn(move || sampler.run(&wanted, &news));

    let state = State::new(socket.display().to_string(), interval);
    // Also gives the terminal back when anything panics.
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, state, &samples, &wishes, &signal);
    let restored = ratatui::try_restore();
    ended?;
    restored?;
    match signal.load(Ordering::Relaxed) {
        0 => {}
        // As whoever sent it expects it.
        number => signal_hook::low_level::emulate_default_handler(number as i32)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut state: State,
    samples: &Receiver<News>,
    wishes: &Sender<By>,
    signal: &AtomicUsize,
) -> anyhow::Result<()> {
    // https://no-color.org
    let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let palette = if is_plain { Palette::plain() } else { Palette::colourful() };
    let mut is_stale = true;
    while signal.load(Ordering::Relaxed) == 0 {
        loop {
            match samples.try_recv() {
                Ok(Ok(sample)) => state.sampled(*sample),
                Ok(Err(why)) => state.lost(why),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => anyhow::bail!("nobody asks the server any more"),
            }
            is_stale = true;
        }
        if is_stale {
            terminal.draw(|frame| draw(&state, palette, frame))?;
            is_stale = false;
        }
        if !event::poll(LOOK_EVERY)? {
            continue;
        }
        is_stale = true;
        if let Event::Key(key) = event::read()? {
            match state.pressed(key) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                // A sampler that is gone is noticed above.
                Wish::Ask(by) => drop(wishes.send(by)),
            }
        }
    }
    Ok(())
}

/// A sample, or why there is none.
type News = Result<Box<Sample>, String>;

/// Asks the server, and goes on asking when it is gone.
struct Sampler {
    socket: PathBuf,
    client: Option<Client>,
    interval: Duration,
    by: By,
}

impl Sampler {
    /// Until nobody listens.
    fn run(mut self, wanted: &Receiver<By>, news: &Sender<News>) {
        while news.send(self.sample()).is_ok() {
            let pause = if self.client.is_some() { self.interval } else { self.interval.min(RETRY_EVERY) };
            match wanted.recv_timeout(pause) {
                Ok(by) => self.by = by,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sample(&mut self) -> News {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.socket).map_err(|error| error.to_string())?),
        };
        Sample::take(client, self.by).map(Box::new).map_err(|error| {
            self.client = None;
            error.to_string()
        })
    }
}

/// How long a sample or a signal may wait to be noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between attempts to find a server.
const RETRY_EVERY: Duration = Duration::from_secs(1);
