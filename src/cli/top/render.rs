//! Draws the screen: state in, cells out. Pure, and independent of the terminal; a [`Palette`] provides the colours.

use super::figures::{bar, byte_rate, clip, count, micros, percent, rate};
use super::state::{Focus, History, State};
use super::view::{Close, Shard};
use corecast::api::By;
use corecast::config::bytes;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, RenderDirection, Row, Sparkline, Table};

/// Styles. Text has the terminal's default colour. The others come from its palette, which fits its background.
#[derive(Clone, Copy)]
pub struct Palette {
    accent: Style,
    /// Values that need attention.
    bad: Style,
    /// A bar that is nearly full.
    full: Style,
    faint: Style,
}

impl Palette {
    pub fn colourful() -> Palette {
        Palette {
            accent: Style::new().fg(Color::Cyan),
            bad: Style::new().fg(Color::Red).bold(),
            full: Style::new().fg(Color::Red),
            faint: Style::new().dim(),
        }
    }

    /// Bold, dim and reversed text only, without colours.
    pub fn plain() -> Palette {
        let (bad, faint) = (Style::new().bold().reversed(), Style::new().dim());
        Palette { accent: Style::new(), bad, full: Style::new().bold(), faint }
    }
}

/// Draws the whole screen.
pub fn draw(state: &State, palette: Palette, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!("corecast top needs {WIDTH_MIN} columns and {HEIGHT_MIN} rows");
        return frame.render_widget(Paragraph::new(text), area);
    }
    // The table of shards gets a part of the rows; the user scrolls to the other shards.
    let shards = (state.view.shards.len() as u16).clamp(1, (area.height.saturating_sub(20) / 2).max(2));
    // A small screen leaves out the levels that only some servers use.
    let level_rows = if area.height >= TALL { 4 } else { 2 };
    let [title, levels, rates, shard_table, tables, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(level_rows),
        Constraint::Length(4),
        Constraint::Length(shards + 2),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(area);
    let screen = Screen { state, palette };
    screen.title(frame, title);
    screen.levels(frame, levels);
    screen.rates(frame, rates);
    screen.shards(frame, shard_table);
    screen.tables(frame, tables);
    let line = " q quit   Tab table   ↑↓ scroll   s sort   p pause   ? help";
    frame.render_widget(Line::styled(line, palette.faint), keys);
    if state.shows_help {
        screen.help(frame, area);
    }
}

struct Screen<'a> {
    state: &'a State,
    palette: Palette,
}

impl Screen<'_> {
    fn title(&self, frame: &mut Frame<'_>, area: Rect) {
        let State { socket, interval, lost, silent_s, is_paused, view, .. } = self.state;
        let status = match (lost, silent_s) {
            (Some(_), _) => Span::styled("reconnecting… ", self.palette.bad),
            (None, Some(seconds)) => Span::styled(format!("no answer for {seconds} s "), self.palette.bad),
            (None, None) if *is_paused => Span::styled("paused ", self.palette.bad),
            (None, None) => Span::styled("live ", self.palette.accent),
        };
        let shards = view.shards.len();
        let facts = format!("{shards} {}, every {interval:?}  ", if shards == 1 { "shard" } else { "shards" });
        let right = Line::from(vec![Span::styled(facts, self.palette.faint), status]).right_aligned();
        let room = (area.width as usize).saturating_sub(right.width() + 16);
        // An error replaces the path of the socket.
        let middle = lost.as_deref().unwrap_or(socket);
        let left = vec![
            Span::styled(" corecast top ", Style::new().bold().reversed()),
            Span::raw(format!(" {}", clip(middle, room))),
        ];
        frame.render_widget(Line::from(left), area);
        frame.render_widget(right, area);
    }

    /// Current values, and rates of change.
    fn levels(&self, frame: &mut Frame<'_>, area: Rect) {
        let view = &self.state.view;
        let cells = [
            [
                ("connections", count(view.connections)),
                ("accepts/s", rate(view.rates.accepts)),
                ("of Pusher", count(view.connections_pusher)),
                ("client ev/s", rate(view.rates.client_events)),
            ],
            [
                ("subscriptions", count(view.subscriptions)),
                ("closes/s", rate(view.rates.closes)),
                ("users", count(view.users)),
                ("recovered/s", rate(view.rates.recoveries)),
            ],
            [
                ("channels", count(view.channels_count)),
                ("upgrading", count(view.connections_upgrading)),
                ("members", count(view.presence_members)),
                ("not recov./s", rate(view.rates.recoveries_failed)),
            ],
            [
                ("outbox", bytes(view.outbox_bytes)),
                ("mail waiting", count(view.mail_waiting)),
                ("kept", bytes(view.history_bytes)),
                ("conflated/s", rate(view.rates.messages_conflated)),
            ],
        ];
        let columns = Layout::horizontal([Constraint::Fill(1); 4]).areas::<4>(area);
        for (column, cells) in columns.into_iter().zip(cells) {
            let lines = cells.map(|(label, value)| {
                // If space is short, the name is cut: a number that is cut would be another number.
                let room = (column.width as usize).saturating_sub(value.chars().count() + 3);
                let label = format!(" {:room$} ", clip(label, room));
                Line::from(vec![Span::styled(label, self.palette.faint), Span::styled(value, Style::new().bold())])
            });
            frame.render_widget(Paragraph::new(lines.to_vec()), column);
        }
    }

    fn rates(&self, frame: &mut Frame<'_>, area: Rect) {
        let (rates, histories) = (&self.state.view.rates, &self.state.histories);
        let rows: [(&str, String, &History); 4] = [
            ("deliveries/s", rate(rates.deliveries), &histories.deliveries),
            ("publishes/s", rate(rates.publishes), &histories.publishes),
            ("sent/s", byte_rate(rates.bytes_out), &histories.bytes_out),
            ("received/s", rate(rates.messages_in), &histories.messages_in),
        ];
        let lines = Layout::vertical([Constraint::Length(1); 4]).areas::<4>(area);
        for (line, (label, value, history)) in lines.into_iter().zip(rows) {
            let [labels, curve] = Layout::horizontal([Constraint::Length(29), Constraint::Min(1)]).areas(line);
            let value = Span::styled(format!("{value:>12}"), Style::new().bold());
            let label = Span::styled(format!(" {label:<14}"), self.palette.faint);
            frame.render_widget(Line::from(vec![label, value]), labels);
            let curve = Rect { width: curve.width.saturating_sub(1), ..curve };
            let sparkline = Sparkline::default()
                .data(history.iter().take(curve.width as usize))
                .direction(RenderDirection::RightToLeft)
                .absent_value_symbol(" ")
                .style(self.palette.accent);
            frame.render_widget(sparkline, curve);
        }
    }

    fn shards(&self, frame: &mut Frame<'_>, area: Rect) {
        let is_wide = area.width >= WIDE;
        let mut columns =
            vec![("TURN", 8), ("P99", 8), ("CONNS", 9), ("DELIVERED/S", 11), ("SENT/S", 9), ("OUTBOX", 9)];
        if is_wide {
            columns.extend([("PUBLISHED/S", 11), ("MAIL", 7)]);
        }
        let taken: u16 = columns.iter().map(|(_, width)| width + 1).sum();
        let room = area.width.saturating_sub(taken + 6 + 5 + 3) as usize;
        let rows = self.visible(&self.state.view.shards, Focus::Shards).map(|(at, shard)| {
            let Shard { busy, turn_mean_us, turn_p99_us, .. } = shard;
            let p99 = micros(turn_p99_us.map(|us| us as f64));
            let mut cells = vec![
                micros(*turn_mean_us),
                if p99 == "-" { p99 } else { format!("≤{p99}") },
                count(shard.connections),
                rate(shard.deliveries),
                byte_rate(shard.bytes_out),
                bytes(shard.outbox_bytes),
            ];
            if is_wide {
                cells.extend([rate(shard.publishes), count(shard.mail_waiting)]);
            }
            let style = if busy.is_some_and(|busy| busy > BUSY) { self.palette.full } else { self.palette.accent };
            let percent = Span::raw(format!("{:>4} ", percent(*busy)));
            let bar = Line::from(vec![percent, Span::styled(bar(*busy, room), style)]);
            let cells = cells.into_iter().map(right);
            Row::new([right(format!("{at} ")), Cell::from(bar)].into_iter().chain(cells))
        });
        let rows: Vec<Row<'_>> = rows.collect();
        let titles = vec![right("SHARD "), Cell::from("BUSY")];
        let widths = vec![Constraint::Length(6), Constraint::Fill(1)];
        let name = format!("shards{}", self.position(self.state.view.shards.len(), Focus::Shards));
        let grid = Grid { name, focus: Focus::Shards, titles, widths, rows };
        self.table(frame, area, grid.with_numbers(&columns));
    }

    /// Addresses and closes: side by side if there is room, else one above the other.
    fn tables(&self, frame: &mut Frame<'_>, area: Rect) {
        if area.width >= WIDE {
            let widths = [
                Constraint::Fill(2),
                Constraint::Length(1),
                Constraint::Fill(1),
                Constraint::Length(1),
                Constraint::Fill(1),
            ];
            let [channels, _, addresses, _, closes] = Layout::horizontal(widths).areas(area);
            self.channels(frame, channels);
            self.addresses(frame, addresses);
            self.closes(frame, closes);
        } else {
            let [channels, _, others] =
                Layout::horizontal([Constraint::Fill(3), Constraint::Length(1), Constraint::Fill(2)]).areas(area);
            let [addresses, closes] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(others);
            self.channels(frame, channels);
            self.addresses(frame, addresses);
            self.closes(frame, closes);
        }
    }

    fn channels(&self, frame: &mut Frame<'_>, area: Rect) {
        let with_deliveries = area.width >= 56;
        let mut columns = vec![("SUBSCRIBERS", 11), ("MESSAGES/S", 10)];
        if with_deliveries {
            columns.push(("DELIVERED/S", 11));
        }
        let room = self.room(area, &columns);
        let rows = self.visible(&self.state.view.channels, Focus::Channels).map(|(_, channel)| {
            let mut cells = vec![Cell::from(format!(" {}", clip(&channel.channel, room)))];
            cells.extend([right(count(channel.subscribers)), right(rate(channel.messages))]);
            if with_deliveries {
                cells.push(right(rate(channel.deliveries)));
            }
            Row::new(cells)
        });
        let rows: Vec<Row<'_>> = rows.collect();
        let by = match self.state.by {
            By::Subscribers => "subscribers",
            By::Messages => "messages",
        };
        let name = format!("channels by {by}{}", self.position(self.state.view.channels.len(), Focus::Channels));
        self.table(frame, area, Grid::named(name, Focus::Channels, "CHANNEL", rows).with_numbers(&columns));
    }

    fn addresses(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = [("CONNECTIONS", 11)];
        let room = self.room(area, &columns);
        let addresses = self.visible(&self.state.view.addresses, Focus::Addresses).map(|(_, address)| {
            let name = Cell::from(format!(" {}", clip(&address.address, room)));
            Row::new([name, right(count(address.connections))])
        });
        let mut rows: Vec<Row<'_>> = addresses.collect();
        if rows.is_empty() {
            let explanation = ["no addresses: those of this", "machine are counted only", "if their number is limited"];
            rows.extend(explanation.map(|line| Row::new([format!(" {line}")]).style(self.palette.faint)));
            let (name, widths) = ("addresses".into(), vec![Constraint::Fill(1)]);
            return self.table(frame, area, Grid { name, focus: Focus::Addresses, titles: vec![], widths, rows });
        }
        let name = format!("addresses{}", self.position(self.state.view.addresses.len(), Focus::Addresses));
        self.table(frame, area, Grid::named(name, Focus::Addresses, "ADDRESS", rows).with_numbers(&columns));
    }

    fn closes(&self, frame: &mut Frame<'_>, area: Rect) {
        let columns = [("CLOSES/S", 8), ("TOTAL", 9)];
        let room = self.room(area, &columns);
        let rows = self.visible(&self.state.view.closes, Focus::Closes).map(|(_, close)| {
            let Close { reason, rate: a_second, total } = close;
            let name = Cell::from(format!(" {}", clip(reason, room)));
            Row::new([name, right(rate(*a_second)), right(count(*total))])
        });
        let rows: Vec<Row<'_>> = rows.collect();
        let name = format!("closes{}", self.position(self.state.view.closes.len(), Focus::Closes));
        self.table(frame, area, Grid::named(name, Focus::Closes, "REASON", rows).with_numbers(&columns));
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect, grid: Grid<'_>) {
        let Grid { name, focus, titles, widths, rows } = grid;
        let style = if focus == self.state.focus { Style::new().bold().reversed() } else { Style::new().bold() };
        let rule = Block::new()
            .borders(Borders::TOP)
            .border_style(self.palette.faint)
            .title(Span::styled(format!(" {} ", clip(&name, area.width.saturating_sub(4) as usize)), style));
        let mut table = Table::new(rows, widths).column_spacing(1).block(rule);
        if !titles.is_empty() {
            table = table.header(Row::new(titles).style(self.palette.faint));
        }
        frame.render_widget(table, area);
    }

    /// Width that the other columns leave for the name.
    fn room(&self, area: Rect, columns: &[(&str, u16)]) -> usize {
        let taken: u16 = columns.iter().map(|(_, width)| width + 1).sum();
        area.width.saturating_sub(taken + 1) as usize
    }

    fn visible<'r, T>(&self, rows: &'r [T], focus: Focus) -> impl Iterator<Item = (usize, &'r T)> {
        rows.iter().enumerate().skip(self.state.offsets[focus as usize])
    }

    /// The scroll position of a table, for its title.
    fn position(&self, rows: usize, focus: Focus) -> String {
        match self.state.offsets[focus as usize] {
            0 => String::new(),
            offset => format!(", from {} of {rows}", offset + 1),
        }
    }

    fn help(&self, frame: &mut Frame<'_>, area: Rect) {
        let [width, height] =
            [HELP.iter().map(|line| line.chars().count()).max().unwrap_or(0) as u16 + 4, HELP.len() as u16 + 2];
        let popup = area.centered(Constraint::Length(width), Constraint::Length(height)).intersection(area);
        frame.render_widget(Clear, popup);
        let block = Block::bordered().title(" help ").border_style(self.palette.accent);
        let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(format!(" {line}"))).collect();
        frame.render_widget(Paragraph::new(lines).block(block), popup);
    }
}

/// A table before it is drawn.
struct Grid<'a> {
    name: String,
    focus: Focus,
    /// Titles of the columns; empty: no title row.
    titles: Vec<Cell<'a>>,
    widths: Vec<Constraint>,
    rows: Vec<Row<'a>>,
}

impl<'a> Grid<'a> {
    /// A table whose first column holds names.
    fn named(name: String, focus: Focus, title: &str, rows: Vec<Row<'a>>) -> Grid<'a> {
        let titles = vec![Cell::from(format!(" {title}"))];
        Grid { name, focus, titles, widths: vec![Constraint::Fill(1)], rows }
    }

    /// Adds the titles and widths of columns with numbers.
    fn with_numbers(mut self, columns: &[(&'static str, u16)]) -> Grid<'a> {
        self.titles.extend(columns.iter().map(|(title, _)| right(*title)));
        self.widths.extend(columns.iter().map(|(_, width)| Constraint::Length(*width)));
        self
    }
}

fn right<'a>(text: impl Into<String>) -> Cell<'a> {
    Cell::from(Line::from(text.into()).right_aligned())
}

const HELP: [&str; 18] = [
    "q Esc Ctrl-C  quit",
    "Tab ← →       choose a table",
    "↑ ↓ PgUp PgDn scroll the table",
    "s             sort channels by subscribers or messages",
    "p             pause the display",
    "?             show or hide this help",
    "",
    "BUSY          part of the time that a shard spends in turns",
    "TURN, P99     average; 99 of 100 turns take at most P99",
    "OUTBOX        bytes that wait for slow readers",
    "MAIL          letters that wait for another shard",
    "MESSAGES/S    published messages; unknown for a channel",
    "              that was not among the busiest channels",
    "              in the previous sample",
    "DELIVERED/S   of a channel: messages times subscribers",
    "ADDRESS       clients on this machine are counted only if",
    "              --max-connections-per-address limits them;",
    "              trusted proxies are not counted",
];

const WIDTH_MIN: u16 = 60;
const HEIGHT_MIN: u16 = 16;
/// From this height on, all levels fit.
const TALL: u16 = 30;
/// From this width on, tables fit side by side.
const WIDE: u16 = 110;
/// A shard that is busier than this has little capacity left.
const BUSY: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::super::view::tests::samples;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;
    use std::time::Duration;

    fn state() -> State {
        let mut state = State::new("/run/user/1000/corecast.sock".into(), Duration::from_secs(1));
        let [before, now] = samples();
        state.sampled(before);
        state.sampled(now);
        state
    }

    fn drawn(state: &State, palette: Palette, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
        terminal.draw(|frame| draw(state, palette, frame)).expect("a buffer").buffer.clone()
    }

    fn text(buffer: &Buffer) -> String {
        let rows = buffer.content.chunks(buffer.area.width as usize);
        let row = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
        rows.map(|cells| row(cells).trim_end().to_owned() + "\n").collect()
    }

    /// Compares with the file in `snapshots/`. `CORECAST_SNAPSHOTS=write` writes that file instead.
    #[track_caller]
    fn check(name: &str, state: &State, width: u16, height: u16) {
        let path = format!("{}/src/cli/top/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let [colourful, plain] =
            [Palette::colourful(), Palette::plain()].map(|palette| drawn(state, palette, width, height));
        let drawn = text(&colourful);
        assert_eq!(text(&plain), drawn, "colours change the text");
        if std::env::var_os("CORECAST_SNAPSHOTS").is_some_and(|how| how == "write") {
            std::fs::write(&path, &drawn).expect("the picture");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(drawn == expected, "{name} is not as expected:\n{drawn}");
        let is_coloured =
            |buffer: &Buffer| buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert!(is_coloured(&colourful) && !is_coloured(&plain));
        assert!(colourful.content.iter().all(|cell| cell.bg == Color::Reset), "a cell sets a background colour");
    }

    #[test]
    fn pictures() {
        let mut state = state();
        check("80x24", &state, 80, 24);
        check("140x40", &state, 140, 40);
        state.lost("no server answers on the admin socket /run/user/1000/corecast.sock".into());
        check("reconnecting", &state, 80, 24);
        state.shows_help = true;
        check("help", &state, 80, 24);
        check("empty", &State::new("/tmp/corecast-0.sock".into(), Duration::from_millis(500)), 80, 24);
    }

    #[test]
    fn numbers_are_whole_where_there_is_little_room() {
        let mut state = state();
        (state.view.subscriptions, state.view.channels_count) = (9_999_999, 123_456);
        for width in [WIDTH_MIN, 80] {
            let drawn = text(&drawn(&state, Palette::plain(), width, HEIGHT_MIN));
            assert!(drawn.contains("9 999 999") && drawn.contains("123 456"), "{drawn}");
        }
    }

    #[test]
    fn a_server_that_hangs_is_not_live() {
        let mut state = state();
        state.waits(Duration::from_secs(6));
        let title =
            |state: &State| text(&drawn(state, Palette::plain(), 80, 24)).lines().next().unwrap_or_default().to_owned();
        assert!(title(&state).ends_with("no answer for 5 s"), "{}", title(&state));
        state.lost("gone".into());
        assert!(title(&state).ends_with("reconnecting…"), "{}", title(&state));
    }

    #[test]
    fn any_size_can_be_drawn() {
        let mut state = state();
        state.view.shards = vec![Shard::default(); 256];
        for shows_help in [false, true] {
            state.shows_help = shows_help;
            for (width, height) in [(1, 1), (59, 50), (60, 16), (61, 17), (80, 15), (109, 24), (110, 24), (300, 100)] {
                drawn(&state, Palette::colourful(), width, height);
            }
        }
    }
}
