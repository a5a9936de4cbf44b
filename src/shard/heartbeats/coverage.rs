//! Tells a client's silence from a server that did not poll.

/// The tick up to which all input was read, so that connections without input were silent. The clock is read before the poll: a
/// process that is stopped after that adds nothing to a client's silence.
#[derive(Default)]
pub struct PollCoverage {
    covered_until: u32,
    /// When the round of polls that is under way began.
    began_at: u32,
    /// Polls of the round so far, all of which had more to report than fits.
    full_polls: usize,
}

impl PollCoverage {
    /// The events of a poll that began at tick `polled_at` were handled. A poll that had room for more has reported every
    /// socket. So have `round` full ones, because epoll reports each socket once before it reports any again.
    pub fn polled(&mut self, polled_at: u32, had_room: bool, round: usize) {
        if self.full_polls == 0 {
            self.began_at = polled_at;
        }
        self.full_polls += 1;
        if had_room || self.full_polls > round {
            self.covered_until = self.began_at;
            self.full_polls = 0;
        }
    }

    /// The tick up to which a connection that was not read was silent.
    pub fn until(&self) -> u32 {
        self.covered_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls as (began at, had room), and the coverage after each, with two polls to a round.
    fn check(polls: &[(u32, bool, u32)]) {
        let mut coverage = PollCoverage::default();
        for &(polled_at, had_room, expected) in polls {
            coverage.polled(polled_at, had_room, 2);
            assert_eq!(coverage.until(), expected, "{polls:?}");
        }
    }

    #[test]
    fn a_poll_covers_the_time_before_it() {
        check(&[(1, true, 1), (5, true, 5), (50, true, 50)]);
    }

    #[test]
    fn full_polls_cover_the_time_before_their_round() {
        check(&[(1, true, 1), (5, false, 1), (6, false, 1), (7, true, 5), (9, true, 9)]);
        check(&[(1, false, 0), (2, false, 0), (3, false, 1), (4, false, 1), (5, false, 1), (6, false, 4)]);
    }
}
