//! The generator: one thread that spins, starts operations when the plan says so, takes answers, and books both.
//!
//! Invariants: the plan never waits for an answer (if all places are taken an operation starts late, and its lag and response
//! time say so); every planned operation ends up either answered or failed; from the start of the measured phase to its
//! end nothing is allocated, written to a file, or printed by this thread.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::allocation::allocations_of_this_thread;
use crate::clock::monotonic_ns;
use crate::drivers::{Books, Driver, DriverError};
use crate::host::hiccup::Grid;
use crate::load::recorder::{Failure, SECOND_NS};
use crate::plan::{Arrivals, Plan};
use crate::result::{BOOKS_FULL, INTERRUPTED, PhaseRecord, RunStatus};

/// Quiet time between warm-up and measured phase, in which the hooks have taken their first readings.
const GAP_NS: u64 = 5_000_000;
/// Operations started in one turn before answers are looked at.
const STARTS_PER_TURN: u32 = 64;
/// How long an answer may be missing, with requests under way, before the broker is called dead.
const SILENCE_NS: u64 = 10 * SECOND_NS;
/// How long messages may still come to consumers, or into view, after the last answer.
const SETTLE_NS: u64 = 3 * SECOND_NS;
/// How long after the last answer a group that keeps up may take for its last messages.
const RECEIPT_GRACE_NS: u64 = 50_000_000;
/// How long reading everything back may take without any progress.
const VERIFY_SILENCE_NS: u64 = 10 * SECOND_NS;
/// Messages for which a closed loop's books must have room: the largest batch is far smaller.
const LEAST_ROOM: u64 = 1024;
/// How often figures for people are published.
const PROGRESS_NS: u64 = 100_000_000;

/// Where the generator reads the time.
pub trait Clock {
    /// Monotonic nanoseconds.
    fn now_ns(&self) -> u64;

    /// Nothing happened in a turn.
    fn idle(&self) {}
}

/// CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    /// Lets threads of the kernel run that wait for this core: where the disk's interrupts come in here, the completion of a
    /// synced write is one of them, and without this it would wait for the next tick of the scheduler (4 ms).
    #[inline]
    fn idle(&self) {
        // SAFETY: plain call.
        unsafe { libc::sched_yield() };
    }
}

/// When operations start.
#[derive(Debug)]
pub enum Schedule {
    /// By plan: arrivals of the warm-up, then the plan.
    Open {
        /// Endless.
        warm_up: Box<Arrivals>,
        /// Of the measured phase.
        plan: Plan,
    },
    /// As soon as there is a free place.
    Closed,
}

/// One run.
#[derive(Debug)]
pub struct Settings {
    /// When operations start.
    pub schedule: Schedule,
    /// Messages to send before the warm-up, as fast as it goes, while consumers wait.
    pub preload_messages: u64,
    /// Shortest warm-up.
    pub warm_up_min_ns: u64,
    /// Longest warm-up; it ends before when latency stands still.
    pub warm_up_max_ns: u64,
    /// Length of the measured phase.
    pub measure_ns: u64,
    /// How long an answer may take.
    pub timeout_ns: u64,
    /// Whether to read everything back at the end (if consumers have not done so).
    pub verifies: bool,
}

/// Called by the generator's thread outside of the measured phase.
pub trait Hooks {
    /// The measured phase is about to begin.
    fn measure_begins(&mut self);
    /// The last answer of the measured phase has come, and the last message to consumers that keep up.
    fn measure_ended(&mut self);
}

/// What people are shown while a run goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Index into [`PHASES`].
    pub phase: AtomicU8,
    /// Answered operations of the measured phase.
    pub answered: AtomicU64,
    /// Failed operations, all phases.
    pub failed: AtomicU64,
    /// Messages that were sent, all phases.
    pub sent: AtomicU64,
}

/// Names of phases.
pub const PHASES: [&str; 7] = ["connect", "probe", "preload", "warm-up", "measure", "drain", "verify"];

const PROBE: usize = 1;
const PRELOAD: usize = 2;
const WARM_UP: usize = 3;
const MEASURE: usize = 4;
const DRAIN: usize = 5;
const VERIFY: usize = 6;

/// What a run yields besides its books.
#[derive(Debug)]
pub struct Outcome {
    /// To the end, or not.
    pub status: RunStatus,
    /// From `probe` on, relative to the start of this.
    pub phases: Vec<PhaseRecord>,
    /// When it began.
    pub began_ns: u64,
    /// Start of the measured phase; 0 if it was not reached.
    pub measure_start_ns: u64,
    /// Its end.
    pub measure_end_ns: u64,
    /// Share of the measured phase in which the generator had work.
    pub busy_share: f64,
    /// Allocations in the measured phase.
    pub allocations: u64,
    /// Lateness of the generator against a grid of 1 ms.
    pub hiccups: Grid,
    /// Whether everything acknowledged was read to its end.
    pub was_read_to_the_end: bool,
}

/// Everything a run needs.
pub struct Engine<'a, D: Driver, C: Clock> {
    /// What carries out operations.
    pub driver: &'a mut D,
    /// Where they are booked.
    pub books: &'a mut Books,
    /// The time.
    pub clock: &'a C,
    /// Set from outside to end the run early.
    pub stop: &'a AtomicBool,
    /// For people.
    pub progress: &'a Progress,
}

/// Why a loop ended.
enum End {
    Done,
    Stopped,
    Silent,
    /// The books of a closed loop have no room left.
    Full,
    Broken(DriverError),
}

/// How operations that were never started are booked.
fn failure_of(end: &End) -> Failure<'static> {
    if matches!(end, End::Broken(_)) { Failure::Connection } else { Failure::Timeout }
}

/// How far a plan has come.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    /// The first operation that was not started.
    next: usize,
    /// The first one that the generator has not looked at since it was due; never below `next`.
    seen: usize,
}

struct State {
    grid: Grid,
    busy_ns: u64,
    turn_began_ns: u64,
    next_progress_ns: u64,
}

impl<D: Driver, C: Clock> Engine<'_, D, C> {
    /// Carries out a run.
    pub fn run(&mut self, settings: &mut Settings, hooks: &mut dyn Hooks) -> Outcome {
        let began_ns = self.clock.now_ns();
        let mut outcome = Outcome {
            status: RunStatus::Complete,
            phases: Vec::with_capacity(PHASES.len()),
            began_ns,
            measure_start_ns: 0,
            measure_end_ns: 0,
            busy_share: 0.0,
            allocations: 0,
            hiccups: Grid::new(began_ns),
            was_read_to_the_end: false,
        };
        if let Err((phase, end)) = self.phases(settings, hooks, &mut outcome) {
            self.leave(&mut outcome, "");
            if matches!(end, End::Broken(_)) {
                self.driver.fail_older(u64::MAX, true, self.books);
            }
            let reason = match end {
                End::Done => "ended".to_owned(),
                End::Stopped => INTERRUPTED.to_owned(),
                End::Full => BOOKS_FULL.to_owned(),
                End::Silent => format!("no answer for {} s", SILENCE_NS / SECOND_NS),
                End::Broken(error) => error.to_string(),
            };
            outcome.status = RunStatus::Partial { reason: format!("{}: {reason}", PHASES[phase]) };
        }
        outcome
    }

    fn enter(&self, phase: usize, outcome: &mut Outcome) {
        self.progress.phase.store(u8::try_from(phase).unwrap_or(0), Ordering::Relaxed);
        let now_ns = self.clock.now_ns();
        self.leave(outcome, "");
        outcome.phases.push(PhaseRecord {
            name: PHASES[phase].to_owned(),
            start_ns: now_ns - outcome.began_ns,
            duration_ns: 0,
            note: String::new(),
        });
    }

    fn leave(&self, outcome: &mut Outcome, note: &str) {
        let since_ns = self.clock.now_ns() - outcome.began_ns;
        if let Some(phase) = outcome.phases.last_mut().filter(|phase| phase.duration_ns == 0) {
            phase.duration_ns = (since_ns - phase.start_ns).max(1);
            note.clone_into(&mut phase.note);
        }
    }

    fn phases(
        &mut self,
        settings: &mut Settings,
        hooks: &mut dyn Hooks,
        outcome: &mut Outcome,
    ) -> Result<(), (usize, End)> {
        let mut state = State {
            grid: Grid::new(outcome.began_ns),
            busy_ns: 0,
            turn_began_ns: outcome.began_ns,
            next_progress_ns: outcome.began_ns,
        };
        self.enter(PROBE, outcome);
        self.probe(settings, &mut state).map_err(|end| (PROBE, end))?;
        self.leave(outcome, "");
        if settings.preload_messages > 0 {
            self.enter(PRELOAD, outcome);
            self.driver.hold_consumers(true);
            self.preload(settings, &mut state).map_err(|end| (PRELOAD, end))?;
            self.leave(outcome, "");
        }
        self.enter(WARM_UP, outcome);
        let note = self.warm_up(settings, &mut state).map_err(|end| (WARM_UP, end))?;
        self.leave(outcome, note);

        hooks.measure_begins();
        self.driver.hold_consumers(false);
        self.enter(MEASURE, outcome);
        let start_ns = self.clock.now_ns() + GAP_NS;
        let end_ns = start_ns + settings.measure_ns;
        self.books.recorder.begin(start_ns, end_ns);
        outcome.measure_start_ns = start_ns;
        let allocations_before = allocations_of_this_thread();
        state.grid.restart(start_ns);
        state.busy_ns = 0;
        let mut cursor = Cursor::default();
        let ended = match &settings.schedule {
            Schedule::Open { plan, .. } => {
                self.measure_open(&plan.times_ns, &mut cursor, (start_ns, end_ns), settings, &mut state)
            }
            Schedule::Closed => self.measure_closed(start_ns, end_ns, settings, &mut state),
        };
        let ended_ns = self.clock.now_ns().clamp(start_ns, end_ns);
        outcome.allocations = allocations_of_this_thread() - allocations_before;
        outcome.measure_end_ns = ended_ns;
        #[expect(clippy::cast_precision_loss, reason = "lengths of runs are far below 2^53 ns")]
        let busy_share = state.busy_ns as f64 / (ended_ns - start_ns).max(1) as f64;
        outcome.busy_share = busy_share.min(1.0);
        std::mem::swap(&mut outcome.hiccups, &mut state.grid);
        self.leave(outcome, "");
        if !matches!(ended, End::Done) {
            self.books.recorder.cut(ended_ns);
            if let Schedule::Open { plan, .. } = &settings.schedule {
                self.fail_unstarted(&plan.times_ns[cursor.next..], start_ns, ended_ns, failure_of(&ended));
            }
        }
        if let End::Broken(error) = ended {
            return Err((MEASURE, End::Broken(error)));
        }

        self.enter(DRAIN, outcome);
        let plan = match &settings.schedule {
            Schedule::Open { plan, .. } if matches!(ended, End::Done) => &plan.times_ns[..],
            _ => &[],
        };
        let drained = self.drain(plan, &mut cursor, start_ns, settings, hooks, &mut state);
        self.leave(outcome, "");
        if !matches!(ended, End::Done) {
            return Err((MEASURE, ended));
        }
        drained.map_err(|end| (DRAIN, end))?;
        if settings.verifies {
            self.enter(VERIFY, outcome);
            let read = self.verify(&mut state).map_err(|end| (VERIFY, end));
            self.leave(outcome, "");
            outcome.was_read_to_the_end = read?;
        }
        Ok(())
    }

    /// What every turn has in common. True if something happened.
    #[inline]
    fn turn(&mut self, did_start: bool, state: &mut State) -> Result<bool, End> {
        let did = self.driver.turn(self.books).map_err(End::Broken)? | did_start;
        let now_ns = self.clock.now_ns();
        state.grid.see(now_ns);
        if did {
            state.busy_ns += now_ns.saturating_sub(state.turn_began_ns);
            state.turn_began_ns = now_ns;
        } else {
            self.clock.idle();
            // What others made of the core meanwhile is no work of the turn that follows.
            state.turn_began_ns = self.clock.now_ns();
        }
        if now_ns >= state.next_progress_ns {
            state.next_progress_ns = now_ns + PROGRESS_NS;
            let (_, answered, failed) = self.books.recorder.counts();
            self.progress.answered.store(answered, Ordering::Relaxed);
            self.progress.failed.store(failed + self.books.recorder.warm_up_errors(), Ordering::Relaxed);
            self.progress.sent.store(self.books.ledger.next_sequence(), Ordering::Relaxed);
        }
        Ok(did)
    }

    /// Looks for what ends a loop early, and gives up what is too old.
    fn check(&mut self, loop_began_ns: u64, settings: &Settings) -> Result<(), End> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(End::Stopped);
        }
        let now_ns = self.clock.now_ns();
        let quiet_since_ns = self.books.recorder.last_answer_ns().max(loop_began_ns);
        if self.driver.in_flight() > 0 && now_ns.saturating_sub(quiet_since_ns) > SILENCE_NS {
            self.driver.fail_older(u64::MAX, false, self.books);
            return Err(End::Silent);
        }
        self.driver.fail_older(now_ns.saturating_sub(settings.timeout_ns), false, self.books);
        Ok(())
    }

    /// One operation, to see that the target serves. It belongs to the warm-up.
    fn probe(&mut self, settings: &Settings, state: &mut State) -> Result<(), End> {
        let began_ns = self.clock.now_ns();
        while !self.driver.start(began_ns, self.books).map_err(End::Broken)? {
            self.turn(false, state)?;
            self.check(began_ns, settings)?;
        }
        while self.driver.in_flight() > 0 {
            self.turn(false, state)?;
            self.check(began_ns, settings)?;
        }
        Ok(())
    }

    fn preload(&mut self, settings: &Settings, state: &mut State) -> Result<(), End> {
        let began_ns = self.clock.now_ns();
        let until = self.books.ledger.next_sequence() + settings.preload_messages;
        while self.books.ledger.next_sequence() < until || self.driver.in_flight() > 0 {
            let mut did = false;
            while self.books.ledger.next_sequence() < until {
                let now_ns = self.clock.now_ns();
                if !self.driver.start(now_ns, self.books).map_err(End::Broken)? {
                    break;
                }
                did = true;
            }
            self.turn(did, state)?;
            self.check(began_ns, settings)?;
        }
        Ok(())
    }

    fn warm_up(&mut self, settings: &mut Settings, state: &mut State) -> Result<&'static str, End> {
        let start_ns = self.clock.now_ns();
        self.books.recorder.begin_warm_up(start_ns);
        let mut next_window_ns = start_ns + SECOND_NS;
        let mut arrivals = match &mut settings.schedule {
            Schedule::Open { warm_up, .. } => Some(std::mem::replace(
                warm_up,
                Box::new(Arrivals::new(&crate::plan::Process::Uniform, 1.0, 0, 0).map_err(|_| End::Stopped)?),
            )),
            Schedule::Closed => None,
        };
        let mut next_ns = arrivals.as_mut().and_then(|arrivals| arrivals.next()).map_or(u64::MAX, |at| start_ns + at);
        loop {
            let now_ns = self.clock.now_ns();
            let mut did = false;
            for _ in 0..STARTS_PER_TURN {
                let intended_ns = if arrivals.is_some() { next_ns } else { self.clock.now_ns() };
                if intended_ns > now_ns && arrivals.is_some()
                    || !self.driver.start(intended_ns, self.books).map_err(End::Broken)?
                {
                    break;
                }
                did = true;
                if let Some(arrivals) = &mut arrivals {
                    next_ns = arrivals.next().map_or(u64::MAX, |at| start_ns + at);
                }
            }
            self.turn(did, state)?;
            self.check(start_ns, settings)?;
            if now_ns >= next_window_ns {
                next_window_ns += SECOND_NS;
                let is_steady = self.books.recorder.end_warm_up_window();
                if is_steady && now_ns >= start_ns + settings.warm_up_min_ns {
                    return Ok("steady");
                }
            }
            if now_ns >= start_ns + settings.warm_up_max_ns {
                return Ok("time limit");
            }
        }
    }

    /// Starts what is due, a limited number in one turn. True if anything was started.
    ///
    /// Each operation has one lag of the generator's own: until it first looked at the operation after that was due. If all
    /// places are taken then, the rest of the delay is the target's. So a generator that stood still is late with everything
    /// that became due meanwhile, also with what finds no place because of the others that it was late with.
    fn start_due(
        &mut self,
        times_ns: &[u64],
        cursor: &mut Cursor,
        start_ns: u64,
        now_ns: u64,
    ) -> Result<bool, DriverError> {
        let due = |index: usize| times_ns.get(index).map(|at_ns| start_ns + at_ns).filter(|due_ns| *due_ns <= now_ns);
        let mut did = false;
        for _ in 0..STARTS_PER_TURN {
            let Some(intended_ns) = due(cursor.next) else { break };
            let actual_ns = self.clock.now_ns();
            if !self.driver.start(intended_ns, self.books)? {
                while let Some(intended_ns) = due(cursor.seen) {
                    self.books.recorder.own_lag(intended_ns, actual_ns);
                    cursor.seen += 1;
                }
                break;
            }
            if cursor.seen == cursor.next {
                self.books.recorder.own_lag(intended_ns, actual_ns);
                cursor.seen += 1;
            }
            self.books.recorder.plan(intended_ns);
            cursor.next += 1;
            did = true;
        }
        Ok(did)
    }

    fn measure_open(
        &mut self,
        times_ns: &[u64],
        cursor: &mut Cursor,
        (start_ns, end_ns): (u64, u64),
        settings: &Settings,
        state: &mut State,
    ) -> End {
        loop {
            let now_ns = self.clock.now_ns();
            let did = match self.start_due(times_ns, cursor, start_ns, now_ns) {
                Ok(did) => did,
                Err(error) => return End::Broken(error),
            };
            if let Err(end) = self.turn(did, state).and_then(|_| self.check(start_ns, settings)) {
                return end;
            }
            if now_ns >= end_ns {
                return End::Done;
            }
        }
    }

    fn measure_closed(&mut self, start_ns: u64, end_ns: u64, settings: &Settings, state: &mut State) -> End {
        // Requests of the warm-up are still under way, so the first ones of this phase find places as those end.
        loop {
            let mut did = false;
            for _ in 0..STARTS_PER_TURN {
                let now_ns = self.clock.now_ns();
                if now_ns < start_ns || now_ns >= end_ns {
                    break;
                }
                if self.books.ledger.room() < LEAST_ROOM {
                    return End::Full;
                }
                match self.driver.start(now_ns, self.books) {
                    Ok(true) => self.books.recorder.plan(now_ns),
                    Ok(false) => break,
                    Err(error) => return End::Broken(error),
                }
                did = true;
            }
            if let Err(end) = self.turn(did, state).and_then(|_| self.check(start_ns, settings)) {
                return end;
            }
            if self.clock.now_ns() >= end_ns {
                return End::Done;
            }
        }
    }

    /// Books operations that were due before the end and found no place: leaving them out would leave out the worst.
    fn fail_unstarted(&mut self, rest: &[u64], start_ns: u64, end_ns: u64, failure: Failure<'_>) {
        let now_ns = self.clock.now_ns();
        for intended_ns in rest.iter().map(|at_ns| start_ns + at_ns).take_while(|intended_ns| *intended_ns < end_ns) {
            self.books.recorder.plan(intended_ns);
            self.books.recorder.fail(intended_ns, now_ns, failure);
        }
    }

    /// Starts what the plan still has, waits for answers and receipts. What is not answered in time has failed.
    fn drain(
        &mut self,
        times_ns: &[u64],
        cursor: &mut Cursor,
        start_ns: u64,
        settings: &Settings,
        hooks: &mut dyn Hooks,
        state: &mut State,
    ) -> Result<(), End> {
        let end = self.take_answers(times_ns, cursor, start_ns, settings, state);
        let began_ns = self.clock.now_ns();
        let mut settled = match end {
            End::Broken(_) => Err(end),
            _ => self.take_receipts(began_ns, RECEIPT_GRACE_NS, state),
        };
        // Read before the long wait for consumers that are behind, which is no cost of what was measured; and not while
        // messages of a group that keeps up are on their way, for reading the counters takes this thread a while.
        hooks.measure_ended();
        if let Ok(false) = settled {
            settled = self.take_receipts(began_ns, u64::MAX, state);
        }
        settled.map(|_| ())
    }

    /// Starts what the plan still has and waits for answers. All that was planned is booked when this returns.
    fn take_answers(
        &mut self,
        times_ns: &[u64],
        cursor: &mut Cursor,
        start_ns: u64,
        settings: &Settings,
        state: &mut State,
    ) -> End {
        let began_ns = self.clock.now_ns();
        let mut end = End::Done;
        while (cursor.next < times_ns.len() || self.driver.in_flight() > 0) && matches!(end, End::Done) {
            let now_ns = self.clock.now_ns();
            if now_ns > began_ns + settings.timeout_ns {
                break;
            }
            let did = self.start_due(times_ns, cursor, start_ns, now_ns).map_err(End::Broken);
            if let Err(ended) = did.and_then(|did| self.turn(did, state)) {
                end = ended;
            }
        }
        self.driver.fail_older(u64::MAX, matches!(end, End::Broken(_)), self.books);
        let rest = times_ns.get(cursor.next..).unwrap_or_default();
        self.fail_unstarted(rest, start_ns, u64::MAX, failure_of(&end));
        end
    }

    /// Waits until consumers have everything, or nothing comes any more (true); false: `limit_ns` after `began_ns` they still
    /// get messages.
    fn take_receipts(&mut self, began_ns: u64, limit_ns: u64, state: &mut State) -> Result<bool, End> {
        let mut last_progress_ns = began_ns.max(self.clock.now_ns());
        while self.driver.has_consumers() && !self.books.ledger.seems_complete() {
            // What has not come yet is not lost, so a run that ends here is not complete.
            if self.stop.load(Ordering::Relaxed) {
                return Err(End::Stopped);
            }
            let now_ns = self.clock.now_ns();
            if now_ns.saturating_sub(began_ns) > limit_ns {
                return Ok(false);
            }
            if self.turn(false, state)? {
                last_progress_ns = now_ns;
            }
            if now_ns > last_progress_ns + SETTLE_NS {
                break;
            }
        }
        Ok(true)
    }

    /// Reads everything back. True if that came to its end.
    fn verify(&mut self, state: &mut State) -> Result<bool, End> {
        if self.driver.has_consumers() {
            return Ok(true);
        }
        if !self.driver.begin_verify().map_err(End::Broken)? {
            return Ok(false);
        }
        let mut last_progress_ns = self.clock.now_ns();
        let mut verified_ns = None;
        let mut received = 0;
        loop {
            self.turn(false, state)?;
            let now_ns = self.clock.now_ns();
            if self.stop.load(Ordering::Relaxed) {
                return Err(End::Stopped);
            }
            let delivered = self.books.ledger.received();
            if delivered != received {
                (received, last_progress_ns) = (delivered, now_ns);
            }
            if self.driver.is_verified() {
                let since_ns = *verified_ns.get_or_insert(now_ns);
                if self.books.ledger.seems_complete() || now_ns - since_ns > SETTLE_NS {
                    return Ok(true);
                }
            }
            if now_ns - last_progress_ns > VERIFY_SILENCE_NS {
                return Err(End::Silent);
            }
        }
    }
}
