//! Whether a group of SYNC_FLUSH waits a moment for requests that are about to come: a commit delay that sets itself.
//!
//! Who sends one message at a time sends the next when the last is answered. While one group is on its way to the disk the others
//! gather, and if they are written as soon as it ends, the senders stay parted in two: each waits for its own write and for that of
//! the others, and a write carries half of what it could. If the group waits until those who were just answered are back, all go
//! together: half the writes, and a shorter wait wherever senders are back before a write would have ended.
//!
//! Whether senders are of that kind is found out by waiting once. If they are, nearly all of them are in the next group, and hardly any
//! request waits when it ends; requests that come independently of answers would go on coming during the write. So a trial is made now
//! and then, less and less often while trials fail, and waiting goes on for as long as it keeps them together and a request takes less
//! time than it did without. Pure: times come from the caller.

/// Groups between the start and the first trial, and again after waiting has paid. What fails multiplies their number: what does not
/// keep senders together, by two up to the second figure, and what does so without taking clearly less time, by four up to the last.
const PAUSE_FIRST: u32 = 16;
const PAUSE_MAX: u32 = 512;
const PAUSE_WORSE_MAX: u32 = 4_096;

/// Senders are parted if more than one in so many requests waits when a group ends.
const PARTED_PART: u32 = 4;

/// One in so many of the answered requests may stay away: one sender that has stopped holds nobody up.
const ABSENT_PART: u32 = 8;

/// Groups that waited between two comparisons with those that did not, and until waiting ends for a new one.
const COMPARED_GROUPS: u32 = 128;
const RENEWED_GROUPS: u32 = 4_096;

/// Groups in succession that failed to keep senders together before waiting ends: some are due to chance.
const STRIKES_MAX: u32 = 4;

/// A typical time follows each sample by this part of the difference.
const WRITE_WEIGHT: u64 = 16;
const RETURN_WEIGHT: u64 = 8;

/// A sample counts as so many times what is typical at most: it may have been a stall.
const OUTLIER: u64 = 2;

/// Between the ends of two groups there is idleness, and not work, beyond the time of so many writes.
const IDLE_WRITES: u64 = 4;

/// Senders must be back within so many times the time of a write: beyond, waiting cannot pay.
const SOON_WRITES: u64 = 2;

/// What the last group has set off.
#[derive(Debug, Clone, Copy)]
struct Answered {
    at_ns: u64,
    /// Its requests.
    requests: u32,
    /// Requests bound since the start, when it ended.
    bound: u64,
    /// Whether its senders are back.
    has_returned: bool,
}

impl Answered {
    /// How many requests must come before its senders count as back.
    fn due(&self) -> u64 {
        u64::from(self.requests - self.requests / ABSENT_PART)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Groups do not wait; the next trial is made after so many.
    Off { groups_left: u32 },
    /// The next group waits, to find out.
    Trial,
    /// Groups wait, and so many have.
    On { strikes: u32, groups: u32 },
}

/// How long a request takes where groups follow each other.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Time between the ends of groups, and their requests: sums, of which the past counts half with every [`COMPARED_GROUPS`].
    between_ns: u64,
    requests: u64,
    groups: u32,
}

impl Pace {
    fn note(&mut self, between_ns: u64, requests: u32) {
        if self.groups == COMPARED_GROUPS {
            *self = Self { between_ns: self.between_ns / 2, requests: self.requests / 2, groups: 0 };
        }
        self.between_ns += between_ns;
        self.requests += u64::from(requests);
        self.groups += 1;
    }

    /// Whether a request takes clearly less time than in the other: by more than a twentieth.
    fn is_better_than(&self, other: &Self) -> bool {
        let of_both = |between_ns: u64, requests: u64| u128::from(between_ns) * u128::from(requests);
        of_both(self.between_ns, other.requests) * 20 < of_both(other.between_ns, self.requests) * 19
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct CommitDelay {
    limit_ns: u64,
    state: State,
    /// Of groups that did not wait, and of those that do.
    pace_off: Pace,
    pace_on: Pace,
    pause: u32,
    /// Typical times: of a write, and until the senders of a group are back.
    write_ns: u64,
    return_ns: u64,
    last: Option<Answered>,
}

impl CommitDelay {
    /// One that knows nothing yet. No group waits longer than the limit, nanoseconds; zero is for never.
    pub fn new(limit_ns: u64) -> Self {
        let state = State::Off { groups_left: PAUSE_FIRST };
        Self {
            limit_ns,
            state,
            pace_off: Pace::default(),
            pace_on: Pace::default(),
            pause: PAUSE_FIRST,
            write_ns: 0,
            return_ns: 0,
            last: None,
        }
    }

    /// A group of so many requests is durable, this long after its write began. Since the start, `bound` requests were bound, and
    /// `waiting` of them are not written.
    pub fn group_ended(&mut self, now_ns: u64, elapsed_ns: u64, requests: u32, bound: u64, waiting: u32) {
        let typical = if self.write_ns == 0 { elapsed_ns } else { self.write_ns };
        self.write_ns = (typical * (WRITE_WEIGHT - 1) + elapsed_ns.min(typical * OUTLIER)) / WRITE_WEIGHT;
        let between_ns = self.last.map(|last| now_ns.saturating_sub(last.at_ns).min(self.write_ns * IDLE_WRITES));
        let came_back = self.last.is_some_and(|last| last.has_returned);
        let keeps_together = came_back && waiting <= requests / PARTED_PART;
        match (&mut self.state, between_ns) {
            (State::Off { groups_left }, Some(between_ns)) => {
                self.pace_off.note(between_ns, requests);
                if *groups_left > 0 {
                    *groups_left -= 1;
                } else if requests >= waiting && requests + waiting > 1 {
                    self.state = State::Trial;
                }
            }
            (State::Trial, _) if keeps_together => {
                self.pace_on = Pace::default();
                self.state = State::On { strikes: 0, groups: 0 };
            }
            (State::On { strikes, groups }, Some(between_ns)) => {
                self.pace_on.note(between_ns, requests);
                *groups += 1;
                *strikes = if keeps_together { 0 } else { (*strikes + 1).min(STRIKES_MAX) };
                let (is_out, is_renewed) = (*strikes == STRIKES_MAX, *groups == RENEWED_GROUPS);
                if !groups.is_multiple_of(COMPARED_GROUPS) {
                    if is_out {
                        self.give_up();
                    }
                } else if !self.pace_on.is_better_than(&self.pace_off) {
                    self.pause_for(self.pause.saturating_mul(4).min(PAUSE_WORSE_MAX));
                } else {
                    self.pause = PAUSE_FIRST;
                    if is_renewed {
                        self.state = State::Off { groups_left: COMPARED_GROUPS };
                    }
                }
            }
            (State::Trial, _) => self.give_up(),
            (_, None) => {}
        }
        self.last = Some(Answered { at_ns: now_ns, requests, bound, has_returned: false });
    }

    fn give_up(&mut self) {
        self.pause_for((self.pause * 2).min(PAUSE_MAX.max(self.pause)));
    }

    fn pause_for(&mut self, groups: u32) {
        self.pause = groups;
        self.state = State::Off { groups_left: groups };
    }

    /// Takes note of the requests that were bound since the start. To be told whenever there may be more.
    pub fn note(&mut self, now_ns: u64, bound: u64) {
        let Some(mut last) = self.last.filter(|last| !last.has_returned) else { return };
        if bound - last.bound < last.due() {
            return;
        }
        let took_ns = now_ns.saturating_sub(last.at_ns);
        last.has_returned = true;
        self.last = Some(last);
        match self.state {
            State::Off { .. } => {}
            State::Trial => self.return_ns = took_ns,
            State::On { .. } => {
                let sample = took_ns.min(self.return_ns * OUTLIER);
                self.return_ns = (self.return_ns * (RETURN_WEIGHT - 1) + sample) / RETURN_WEIGHT;
            }
        }
    }

    /// How long senders have to come back.
    fn patience_ns(&self) -> u64 {
        let soon_ns = (self.write_ns * SOON_WRITES).min(self.limit_ns);
        match self.state {
            State::Off { .. } => 0,
            State::Trial => soon_ns,
            State::On { .. } => soon_ns.min(self.return_ns * OUTLIER),
        }
    }

    /// Until when the next group waits for more requests, if it does.
    pub fn waits_until_ns(&self, now_ns: u64) -> Option<u64> {
        let last = self.last.filter(|last| !last.has_returned)?;
        let until_ns = last.at_ns + self.patience_ns();
        (now_ns < until_ns).then_some(until_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE_NS: u64 = 200_000;
    const LIMIT_NS: u64 = 1_000_000;

    /// Who sends.
    #[derive(Clone, Copy)]
    enum Senders {
        /// So many, each of whom sends again after its answer: the first after so long, each further one a little later.
        WaitForAnswers { number: u32, first_ns: u64, step_ns: u64 },
        /// One message every so often, now sooner and now later, whatever is answered.
        Independent { every_ns: u64 },
    }

    /// What came of a run.
    #[derive(Debug)]
    struct Outcome {
        groups: u64,
        delayed: u64,
        requests: u64,
        mean_wait_ns: u64,
        longest_wait_ns: u64,
    }

    /// A disk, senders and a delay, in steps of a microsecond. What was sent when is all that is known of a request.
    struct Run {
        delay: CommitDelay,
        now_ns: u64,
        coming: Vec<u64>,
        bound: u64,
        unwritten: Vec<u64>,
        in_flight: Option<(u64, Vec<u64>)>,
        seed: u64,
    }

    impl Run {
        fn new(limit_ns: u64) -> Self {
            let delay = CommitDelay::new(limit_ns);
            Self { delay, now_ns: 0, coming: Vec::new(), bound: 0, unwritten: Vec::new(), in_flight: None, seed: 7 }
        }

        /// A number below this one.
        fn chance(&mut self, below: u64) -> u64 {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) % below
        }

        fn go(&mut self, senders: Senders, groups: u64) -> Outcome {
            let mut outcome = Outcome { groups: 0, delayed: 0, requests: 0, mean_wait_ns: 0, longest_wait_ns: 0 };
            let (mut waits_ns, mut is_delayed, mut next_ns) = (0, false, self.now_ns);
            self.coming.clear();
            if let Senders::WaitForAnswers { number, .. } = senders {
                // Half of them at first, the others while their write is on its way.
                self.coming = (0..number).map(|sender| self.now_ns + u64::from(sender % 2) * WRITE_NS / 2).collect();
            }
            while outcome.groups < groups {
                self.now_ns += 1_000;
                let now_ns = self.now_ns;
                if let Senders::Independent { every_ns } = senders
                    && next_ns <= now_ns
                {
                    self.coming.push(now_ns);
                    next_ns = now_ns + 1 + self.chance(2 * every_ns);
                }
                if let Some((_, written)) = self.in_flight.take_if(|(end_ns, _)| *end_ns <= now_ns) {
                    for (place, sent_ns) in (0..).zip(&written) {
                        waits_ns += now_ns - sent_ns;
                        outcome.longest_wait_ns = outcome.longest_wait_ns.max(now_ns - sent_ns);
                        if let Senders::WaitForAnswers { first_ns, step_ns, .. } = senders {
                            self.coming.push(now_ns + first_ns + place * step_ns);
                        }
                    }
                    outcome.groups += 1;
                    outcome.requests += written.len() as u64;
                    let (requests, waiting) = (written.len() as u32, self.unwritten.len() as u32);
                    self.delay.group_ended(now_ns, WRITE_NS, requests, self.bound, waiting);
                }
                let arrived = self.coming.extract_if(.., |sent_ns| *sent_ns <= now_ns).collect::<Vec<_>>();
                self.bound += arrived.len() as u64;
                self.unwritten.extend(arrived);
                self.delay.note(now_ns, self.bound);
                if self.in_flight.is_some() || self.unwritten.is_empty() {
                    continue;
                }
                if self.delay.waits_until_ns(now_ns).is_some() {
                    outcome.delayed += u64::from(!is_delayed);
                    is_delayed = true;
                    continue;
                }
                is_delayed = false;
                self.in_flight = Some((now_ns + WRITE_NS, std::mem::take(&mut self.unwritten)));
            }
            outcome.mean_wait_ns = waits_ns / outcome.requests.max(1);
            outcome
        }
    }

    fn run(limit_ns: u64, senders: Senders) -> Outcome {
        Run::new(limit_ns).go(senders, 6_000)
    }

    #[test]
    fn senders_that_wait_for_answers_are_kept_together() {
        // Goal: they go in one group instead of two, and wait less. Method: few and many of them, with and without the delay.
        for (number, step_ns) in [(2, 5_000), (3, 5_000), (4, 5_000), (16, 5_000), (16, 8_000), (64, 1_500)] {
            let senders = Senders::WaitForAnswers { number, first_ns: 40_000, step_ns };
            let (with, without) = (run(LIMIT_NS, senders), run(0, senders));
            assert_eq!(without.delayed, 0);
            let per_group = with.requests / with.groups;
            assert!(per_group >= u64::from(number) * 3 / 4, "{number}: {with:?}");
            assert!(with.mean_wait_ns * 10 < without.mean_wait_ns * 9, "{number}: {with:?}, {without:?}");
        }
    }

    #[test]
    fn independent_requests_are_written_at_once() {
        // Goal: where nothing is won nothing waits, but for rare trials. Method: requests that come whether or not others are answered,
        // from one in two writes to dozens per write.
        for every_ns in [400_000, 200_000, 100_000, 50_000, 10_000, 4_000] {
            let senders = Senders::Independent { every_ns };
            let (with, without) = (run(LIMIT_NS, senders), run(0, senders));
            assert!(with.delayed * 50 <= with.groups, "{every_ns}: {with:?}");
            assert!(with.mean_wait_ns * 100 <= without.mean_wait_ns * 103, "{every_ns}: {with:?}, {without:?}");
        }
    }

    #[test]
    fn slow_senders_are_not_waited_for() {
        // Goal: senders that come back after much more than a write's time are not waited for. Method: such senders.
        for first_ns in [300_000, 1_000_000, 5_000_000] {
            let senders = Senders::WaitForAnswers { number: 16, first_ns, step_ns: 5_000 };
            let (with, without) = (run(LIMIT_NS, senders), run(0, senders));
            assert!(with.delayed * 10 <= with.groups, "{first_ns}: {with:?}");
            assert!(with.mean_wait_ns * 100 <= without.mean_wait_ns * 105, "{first_ns}: {with:?}, {without:?}");
        }
    }

    #[test]
    fn it_follows_the_senders() {
        // Goal: it ends when the senders change, soon and without holding anybody up for long, and begins again. Method: one delay, and
        // senders of both kinds in turn; then most of them stop.
        let mut run = Run::new(LIMIT_NS);
        let together = Senders::WaitForAnswers { number: 16, first_ns: 40_000, step_ns: 5_000 };
        for _ in 0..3 {
            assert!(run.go(together, 3_000).requests > 3_000 * 12);
            let apart = run.go(Senders::Independent { every_ns: 20_000 }, 3_000);
            assert!(apart.delayed < 100 && apart.longest_wait_ns <= 4 * WRITE_NS, "{apart:?}");
        }
        assert!(run.go(together, 3_000).requests > 3_000 * 12);
        let one = run.go(Senders::WaitForAnswers { number: 1, first_ns: 40_000, step_ns: 0 }, 1_000);
        assert!(one.delayed <= 2 && one.longest_wait_ns <= 4 * WRITE_NS, "{one:?}");
    }

    #[test]
    fn nothing_waits_longer_than_the_limit() {
        // Goal: the limit holds whatever is measured, and zero is for never. Method: a disk of 20 ms, senders that come back after 5 ms.
        for limit_ns in [0, 1, 50_000] {
            let mut delay = CommitDelay::new(limit_ns);
            for group in 1..=2_000_u64 {
                let at_ns = group * 25_000_000;
                delay.group_ended(at_ns, 20_000_000, 16, group * 16, 0);
                let longest_ns = delay.waits_until_ns(at_ns).map_or(0, |until_ns| until_ns - at_ns);
                assert!(longest_ns <= limit_ns, "{longest_ns}");
                delay.note(at_ns + 5_000_000, group * 16 + 16);
            }
        }
    }
}
