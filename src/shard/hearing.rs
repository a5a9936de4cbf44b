//! Silence, told apart from a server that did not listen.

/// Until when everybody who had written has been heard, so that the others were silent. The clock is read before the poll
/// that asks: where the process stands still in between, or sleeps in the poll, nobody's silence grows by that.
#[derive(Default)]
pub struct Hearing {
    heard_until: u32,
    /// When the round of polls that is under way began.
    began_at: u32,
    /// Polls of the round so far, all of which had more to report than fits.
    full_polls: usize,
}

impl Hearing {
    /// A poll that began at tick `polled_at` was handled. One that had room for more has reported everybody; so have `round`
    /// full ones, because each socket is reported once before any is reported again.
    pub fn polled(&mut self, polled_at: u32, had_room: bool, round: usize) {
        if self.full_polls == 0 {
            self.began_at = polled_at;
        }
        self.full_polls += 1;
        if had_room || self.full_polls > round {
            self.heard_until = self.began_at;
            self.full_polls = 0;
        }
    }

    /// The tick up to which silence is the clients' own.
    pub fn heard_until(&self) -> u32 {
        self.heard_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls as (began at, had room), and what is known after each, with two polls to a round.
    fn check(polls: &[(u32, bool, u32)]) {
        let mut hearing = Hearing::default();
        for &(polled_at, had_room, expected) in polls {
            hearing.polled(polled_at, had_room, 2);
            assert_eq!(hearing.heard_until(), expected, "{polls:?}");
        }
    }

    #[test]
    fn a_poll_tells_of_the_time_before_it() {
        check(&[(1, true, 1), (5, true, 5), (50, true, 50)]);
    }

    #[test]
    fn full_polls_tell_when_their_round_is_over() {
        check(&[(1, true, 1), (5, false, 1), (6, false, 1), (7, true, 5), (9, true, 9)]);
        check(&[(1, false, 0), (2, false, 0), (3, false, 1), (4, false, 1), (5, false, 1), (6, false, 4)]);
    }
}
