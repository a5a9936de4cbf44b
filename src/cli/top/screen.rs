//! Takes over the terminal, draws to it, and always restores it.

use super::render::{Palette, draw};
use super::sample::Sample;
use super::state::{State, Wish};
use anyhow::Context;
use corecast::admin::client::Client;
use corecast::api::By;
use corecast::server::NO_THREAD;
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::env;
use std::io;
use std::mem::ManuallyDrop;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// Shows the view until the user quits.
pub fn run(client: Client, socket: &Path, interval: Duration) -> anyhow::Result<ExitCode> {
    let (signal, is_signalled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    for number in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
        // The second signal ends the process at once, because a terminal that takes no output also blocks its
        // restoration.
        signal_hook::flag::register_conditional_default(number, is_signalled.clone())?;
        signal_hook::flag::register(number, is_signalled.clone())?;
        signal_hook::flag::register_usize(number, signal.clone(), number as usize)?;
    }
    let (news, samples) = mpsc::channel();
    let (wishes, wanted) = mpsc::channel();
    let sampler = Sampler { socket: socket.into(), client: Some(client), interval, by: By::Subscribers };
    thread::Builder::new().spawn(move || sampler.run(&wanted, &news)).context(NO_THREAD)?;

    let state = State::new(socket.display().to_string(), interval);
    show_cursor_on_panic();
    // This also restores the terminal on a panic. If the terminal has closed, dropping it would panic, because it
    // cannot print an error. So it is never dropped implicitly.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().inspect_err(|_| drop(give_back()))?);
    let (pressed, keys) = mpsc::channel();
    let reader = thread::Builder::new().spawn(move || read_keys(&pressed)).context(NO_THREAD);
    let ended = reader.and_then(|_| show(&mut terminal, state, &samples, &keys, &wishes, &signal));
    let restored = give_back();
    match signal.load(Ordering::Relaxed) {
        0 => {}
        // The process ends by the signal, as its sender expects, also if the terminal closed at the same time.
        number => signal_hook::low_level::emulate_default_handler(number as i32)?,
    }
    ended?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

fn give_back() -> io::Result<()> {
    let shown = execute!(io::stdout(), Show);
    ratatui::try_restore().and(shown)
}

fn show_cursor_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _ = execute!(io::stdout(), Show);
        report(info);
    }));
}

/// Reads keys and new sizes on a thread of its own: crossterm does not return after half a key, nor after the terminal
/// has closed (its issue 793), and that must not block the rest.
fn read_keys(pressed: &Sender<Event>) {
    while let Ok(event) = event::read() {
        if pressed.send(event).is_err() {
            return;
        }
    }
}

/// Whether the terminal has closed. Only the session leader gets SIGHUP for that.
fn has_hung_up() -> bool {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
}

fn show(
    terminal: &mut DefaultTerminal,
    mut state: State,
    samples: &Receiver<News>,
    keys: &Receiver<Event>,
    wishes: &Sender<By>,
    signal: &AtomicUsize,
) -> anyhow::Result<()> {
    // https://no-color.org
    let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let palette = if is_plain { Palette::plain() } else { Palette::colourful() };
    let (mut is_stale, mut sampled_at) = (true, Instant::now());
    while signal.load(Ordering::Relaxed) == 0 {
        loop {
            match samples.try_recv() {
                Ok(Ok(sample)) => state.sampled(*sample),
                Ok(Err(why)) => state.lost(why),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => anyhow::bail!("the sampler thread has ended"),
            }
            (is_stale, sampled_at) = (true, Instant::now());
        }
        is_stale |= state.waits(sampled_at.elapsed());
        if has_hung_up() {
            anyhow::bail!("the terminal has closed");
        }
        if is_stale {
            terminal.draw(|frame| draw(&state, palette, frame))?;
            is_stale = false;
        }
        let wish = match keys.recv_timeout(LOOK_EVERY) {
            Ok(Event::Key(key)) => state.pressed(key),
            Ok(_) => Wish::Nothing,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the terminal cannot be read any more"),
        };
        is_stale = true;
        match wish {
            Wish::Nothing => {}
            Wish::Quit => return Ok(()),
            // If the sampler has ended, the code above reports it.
            Wish::Ask(by) => drop(wishes.send(by)),
        }
    }
    Ok(())
}

/// A sample, or the error that prevented it.
type News = Result<Box<Sample>, String>;

/// Samples the server, and continues when it has stopped.
struct Sampler {
    socket: PathBuf,
    client: Option<Client>,
    interval: Duration,
    by: By,
}

impl Sampler {
    /// Runs until the receiver is dropped.
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

/// Longest time until a sample, a signal or the end of the terminal is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time between attempts to connect to a server.
const RETRY_EVERY: Duration = Duration::from_secs(1);
