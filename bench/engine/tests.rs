//! The generator against made-up servers under a simulated clock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::drivers::null::unread;
use crate::load::ledger::Ledger;
use crate::load::recorder::Recorder;
use crate::plan::Process;

const MS: u64 = 1_000_000;

/// A clock that every look moves on a little.
#[derive(Clone)]
struct SimulatedClock(Rc<Cell<u64>>);

impl Clock for SimulatedClock {
    fn now_ns(&self) -> u64 {
        self.0.set(self.0.get() + 500);
        self.0.get()
    }
}

/// The same on a core that others take for so long whenever it is given away.
struct SharedClock(SimulatedClock, u64);

impl Clock for SharedClock {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn idle(&self) {
        self.0.0.set(self.0.0.get() + self.1);
    }
}

/// Answers in 1 ms, and stands still during the last `stall_ns` of each `every_ns`.
struct StallServer {
    clock: SimulatedClock,
    every_ns: u64,
    stall_ns: u64,
    /// Start of the cycles: the measured phase.
    origin_ns: Rc<Cell<u64>>,
    places: usize,
    /// Intended, actual, due, number.
    under_way: VecDeque<(u64, u64, u64, u64)>,
}

impl StallServer {
    fn due(&self, now_ns: u64) -> u64 {
        let due = now_ns + MS;
        let phase = (due - self.origin_ns.get().min(due)) % self.every_ns;
        if phase > self.every_ns - self.stall_ns { due - phase + self.every_ns } else { due }
    }
}

impl Driver for StallServer {
    fn operation(&self) -> &'static str {
        "send"
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        if self.under_way.len() >= self.places {
            return Ok(false);
        }
        let now_ns = self.clock.0.get();
        let (number, _) = books.ledger.send_request(0);
        self.under_way.push_back((intended_ns, now_ns, self.due(now_ns), number));
        Ok(true)
    }

    fn turn(&mut self, books: &mut Books) -> Result<bool, DriverError> {
        let now_ns = self.clock.0.get();
        let mut did = false;
        while self.under_way.front().is_some_and(|(_, _, due, _)| *due <= now_ns) {
            let Some((intended, actual, _, number)) = self.under_way.pop_front() else { break };
            books.ledger.answer(0, number, true);
            books.recorder.answer(intended, actual, now_ns);
            did = true;
        }
        Ok(did)
    }

    fn in_flight(&self) -> u64 {
        self.under_way.len() as u64
    }

    fn fail_older(&mut self, started_before_ns: u64, _: bool, books: &mut Books) {
        while self.under_way.front().is_some_and(|(_, actual, _, _)| *actual < started_before_ns) {
            let Some((intended, _, _, number)) = self.under_way.pop_front() else { return };
            books.ledger.answer(0, number, false);
            books.recorder.fail(intended, self.clock.0.get(), Failure::Timeout);
        }
    }
}

struct AlignStalls(Rc<Cell<u64>>, SimulatedClock);

impl Hooks for AlignStalls {
    fn measure_begins(&mut self) {
        self.0.set(self.1.0.get() + GAP_NS);
    }

    fn measure_ended(&mut self) {}
}

fn simulate(schedule: Schedule, places: usize, measure_ns: u64) -> (Books, Outcome) {
    let (books, outcome) = simulate_with_room(schedule, places, measure_ns, 4_000_000);
    assert_eq!(outcome.status, RunStatus::Complete);
    (books, outcome)
}

fn simulate_with_room(schedule: Schedule, places: usize, measure_ns: u64, room: u64) -> (Books, Outcome) {
    simulate_on(0, schedule, places, measure_ns, room)
}

/// On a core that others take for `given_ns` in each turn without work.
fn simulate_on(given_ns: u64, schedule: Schedule, places: usize, measure_ns: u64, room: u64) -> (Books, Outcome) {
    let clock = SimulatedClock(Rc::new(Cell::new(SECOND_NS)));
    let origin = Rc::new(Cell::new(0));
    let mut server = StallServer {
        clock: clock.clone(),
        every_ns: 100 * SECOND_NS,
        stall_ns: SECOND_NS,
        origin_ns: Rc::clone(&origin),
        places,
        under_way: VecDeque::with_capacity(places.min(20_000)),
    };
    let mut books = Books { recorder: Recorder::new(measure_ns), ledger: Ledger::new(unread(room, 64)) };
    let mut settings = Settings {
        schedule,
        preload_messages: 0,
        warm_up_min_ns: 10 * SECOND_NS,
        warm_up_max_ns: 20 * SECOND_NS,
        measure_ns,
        timeout_ns: 5 * SECOND_NS,
        verifies: false,
    };
    let (stop, progress) = (AtomicBool::new(false), Progress::default());
    let shared = SharedClock(clock.clone(), given_ns);
    let mut engine =
        Engine { driver: &mut server, books: &mut books, clock: &shared, stop: &stop, progress: &progress };
    let outcome = engine.run(&mut settings, &mut AlignStalls(origin, clock));
    (books, outcome)
}

fn open(rate: f64, measure_ns: u64) -> Schedule {
    Schedule::Open {
        warm_up: Box::new(Arrivals::new(&Process::Uniform, rate, 0, 1).unwrap()),
        plan: Plan::new(&Process::Uniform, rate, measure_ns, 1).unwrap(),
    }
}

/// Goal: a stall is charged to every operation that it delays. Method: a server that answers in 1 ms and stands still for 1 s
/// in 100 s, 10,000 operations per second; the percentiles have a closed form: P(response > x) = (1 s - x) / 100 s. The
/// control is a closed loop with one operation under way: it must miss the stall, or this test would prove nothing.
#[test]
fn stall_server_has_no_coordinated_omission() {
    let measure_ns = 100 * SECOND_NS;
    let (books, outcome) = simulate(open(10_000.0, measure_ns), 20_000, measure_ns);
    let [response, service, lag, error] = books.recorder.distributions();
    assert_eq!(books.recorder.counts(), (1_000_000, 1_000_000, 0));
    assert_eq!((response.count, error.count), (1_000_000, 0));
    let near = |value: u64, expected: u64| value.abs_diff(expected) * 100 <= expected * 3;
    assert!(near(response.p50_ns, MS), "p50 {}", response.p50_ns);
    let p995 = response.spectrum.iter().find(|point| point.quantile == 0.995).map_or(0, |point| point.value_ns);
    assert!(near(p995, 500 * MS), "p99.5 {p995}");
    assert!(near(response.p999_ns, 900 * MS), "p99.9 {}", response.p999_ns);
    assert!(near(response.p9999_ns, 990 * MS), "p99.99 {}", response.p9999_ns);
    assert!(near(response.max_ns, 1000 * MS), "max {}", response.max_ns);
    assert!(lag.max_ns < 100_000 && service.max_ns <= response.max_ns);
    assert_eq!(
        outcome.phases.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(),
        ["probe", "warm-up", "measure", "drain"]
    );

    let (closed, _) = simulate(Schedule::Closed, 1, measure_ns);
    let [response, ..] = closed.recorder.distributions();
    assert!(response.p9999_ns < 2 * MS, "a closed loop hides the stall: {}", response.p9999_ns);
    assert!(near(response.max_ns, 1000 * MS) || response.max_ns > 990 * MS);
}

/// Goal: with too few places the plan goes on, and response times say so. Method: the same stall with room for ten
/// operations: service times are short, lag and response are not.
#[test]
fn a_full_generator_shows_as_lag() {
    let measure_ns = 100 * SECOND_NS;
    let (books, _) = simulate(open(5_000.0, measure_ns), 10, measure_ns);
    let [response, service, lag, _] = books.recorder.distributions();
    assert_eq!(books.recorder.counts(), (500_000, 500_000, 0));
    assert!(response.p999_ns > 850 * MS && lag.p999_ns > 850 * MS, "{} {}", response.p999_ns, lag.p999_ns);
    assert!(service.p999_ns < 2 * MS, "{}", service.p999_ns);
}

/// Goal: a closed loop that its books have no room for ends as partial, with what there is, instead of going slower. Method: a
/// server that answers in 1 ms with 100 places, and room for about half of the run.
#[test]
fn full_books_end_a_closed_loop() {
    let (books, outcome) = simulate_with_room(Schedule::Closed, 100, 10 * SECOND_NS, 1_500_000);
    let RunStatus::Partial { reason } = &outcome.status else { panic!("it is partial") };
    assert!(reason.starts_with("measure: ") && reason.ends_with(BOOKS_FULL), "{reason}");
    assert!(!outcome.status.is_ended_by_target());
    let (planned, answered, failed) = books.recorder.counts();
    assert!(planned == answered && failed == 0 && answered > 100_000, "{planned} {answered} {failed}");
    assert!(outcome.measure_end_ns - outcome.measure_start_ns < 9 * SECOND_NS);
    assert!(books.ledger.room() < LEAST_ROOM + 100);
}

/// Goal: the share of the core on which the generator had work is its own work. Method: the same load on a core of its own and on one that
/// others take for 20 µs in every turn without work: turns with work are as long, and their share of the time is as large.
#[test]
fn what_others_do_with_the_core_is_no_work() {
    let share = |given_ns| {
        // An answer takes 1 ms: it never comes in the turn in which another operation is due.
        let (books, outcome) = simulate_on(given_ns, open(700.0, 10 * SECOND_NS), 100, 10 * SECOND_NS, 100_000);
        assert_eq!(books.recorder.counts(), (7_000, 7_000, 0));
        outcome.busy_share
    };
    let (alone, shared) = (share(0), share(20_000));
    assert!(alone > 0.001 && (shared / alone - 1.0).abs() < 0.2, "{alone} {shared}");
}

/// A server that never answers after a while.
struct Deaf {
    clock: SimulatedClock,
    until_ns: u64,
    places: usize,
    under_way: RefCell<Vec<(u64, u64)>>,
}

impl Driver for Deaf {
    fn operation(&self) -> &'static str {
        "send"
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        if self.under_way.borrow().len() >= self.places {
            return Ok(false);
        }
        let (number, _) = books.ledger.send_request(0);
        if self.clock.0.get() < self.until_ns {
            books.ledger.answer(0, number, true);
            books.recorder.answer(intended_ns, self.clock.0.get(), self.clock.0.get());
        } else {
            self.under_way.borrow_mut().push((intended_ns, self.clock.0.get()));
        }
        Ok(true)
    }

    fn turn(&mut self, _: &mut Books) -> Result<bool, DriverError> {
        Ok(false)
    }

    fn in_flight(&self) -> u64 {
        self.under_way.borrow().len() as u64
    }

    fn fail_older(&mut self, started_before_ns: u64, _: bool, books: &mut Books) {
        self.under_way.borrow_mut().retain(|(intended, actual)| {
            let is_old = *actual < started_before_ns;
            if is_old {
                books.recorder.fail(*intended, self.clock.0.get(), Failure::Timeout);
            }
            !is_old
        });
    }
}

struct NoHooks;

impl Hooks for NoHooks {
    fn measure_begins(&mut self) {}
    fn measure_ended(&mut self) {}
}

/// Goal: a broker that falls silent ends the run, what there is is kept, and every operation that was due is accounted for,
/// also those that found no place. Method: a server that answers for 15 s of a run of 60 s, with endless places and with few.
#[test]
fn silence_ends_a_run() {
    for places in [usize::MAX, 7] {
        let clock = SimulatedClock(Rc::new(Cell::new(0)));
        let mut server = Deaf { clock: clock.clone(), until_ns: 15 * SECOND_NS, places, under_way: RefCell::default() };
        let mut books = Books { recorder: Recorder::new(60 * SECOND_NS), ledger: Ledger::new(unread(100_000, 64)) };
        let mut settings = Settings {
            schedule: open(100.0, 60 * SECOND_NS),
            preload_messages: 0,
            warm_up_min_ns: 2 * SECOND_NS,
            warm_up_max_ns: 5 * SECOND_NS,
            measure_ns: 60 * SECOND_NS,
            timeout_ns: 12 * SECOND_NS,
            verifies: true,
        };
        let (stop, progress) = (AtomicBool::new(false), Progress::default());
        let mut engine =
            Engine { driver: &mut server, books: &mut books, clock: &clock, stop: &stop, progress: &progress };
        let outcome = engine.run(&mut settings, &mut NoHooks);
        assert_eq!(outcome.status, RunStatus::Partial { reason: "measure: no answer for 10 s".to_owned() });
        let (planned, answered, failed) = books.recorder.counts();
        assert_eq!(planned, answered + failed);
        assert!(answered.abs_diff(1000) < 5 && failed.abs_diff(1000) < 5, "{places}: {answered} {failed}");
    }
}

/// Answers at once; its one group of consumers gets a message per 100 ms. Raises `stop` when it is that late.
struct Behind {
    clock: SimulatedClock,
    next_ns: u64,
    stop_ns: u64,
    stop: Rc<AtomicBool>,
}

impl Driver for Behind {
    fn operation(&self) -> &'static str {
        "send"
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        let (number, _) = books.ledger.send_request(0);
        books.ledger.answer(0, number, true);
        books.recorder.answer(intended_ns, self.clock.0.get(), self.clock.0.get());
        Ok(true)
    }

    fn turn(&mut self, _: &mut Books) -> Result<bool, DriverError> {
        let now_ns = self.clock.0.get();
        if now_ns >= self.stop_ns {
            self.stop.store(true, Ordering::Relaxed);
        }
        let is_due = now_ns >= self.next_ns;
        if is_due {
            self.next_ns = now_ns + 100 * MS;
        }
        Ok(is_due)
    }

    fn in_flight(&self) -> u64 {
        0
    }

    fn fail_older(&mut self, _: u64, _: bool, _: &mut Books) {}

    fn has_consumers(&self) -> bool {
        true
    }
}

struct EndOfMeasuring(Rc<Cell<u64>>, SimulatedClock);

impl Hooks for EndOfMeasuring {
    fn measure_begins(&mut self) {}
    fn measure_ended(&mut self) {
        self.0.set(self.1.0.get());
    }
}

/// Goal: an interrupt while consumers catch up leaves an unfinished run that is accused of no loss, and the counters of the
/// measured phase do not run on until then. Method: consumers that are behind for ever, and an interrupt 20 s after the
/// phase; the ledger as it is closed for such a run.
#[test]
fn an_interrupt_in_the_drain_accuses_nobody() {
    let clock = SimulatedClock(Rc::new(Cell::new(SECOND_NS)));
    let stop = Rc::new(AtomicBool::new(false));
    let mut server = Behind { clock: clock.clone(), next_ns: 0, stop_ns: 30 * SECOND_NS, stop: Rc::clone(&stop) };
    let shape = crate::load::ledger::LedgerShape { groups: 1, ..unread(100_000, 64) };
    let mut books = Books { recorder: Recorder::new(5 * SECOND_NS), ledger: Ledger::new(shape) };
    let mut settings = Settings {
        schedule: open(100.0, 5 * SECOND_NS),
        preload_messages: 0,
        warm_up_min_ns: SECOND_NS,
        warm_up_max_ns: 2 * SECOND_NS,
        measure_ns: 5 * SECOND_NS,
        timeout_ns: 5 * SECOND_NS,
        verifies: true,
    };
    let progress = Progress::default();
    let ended = Rc::new(Cell::new(0));
    let mut engine = Engine { driver: &mut server, books: &mut books, clock: &clock, stop: &stop, progress: &progress };
    let outcome = engine.run(&mut settings, &mut EndOfMeasuring(Rc::clone(&ended), clock.clone()));
    assert_eq!(outcome.status, RunStatus::Partial { reason: format!("drain: {INTERRUPTED}") });
    assert!(!outcome.was_read_to_the_end && !outcome.status.is_ended_by_target());
    assert!(!books.ledger.close(outcome.was_read_to_the_end).is_violated());
    assert!(ended.get() < outcome.measure_end_ns + 2 * RECEIPT_GRACE_NS, "{} {outcome:?}", ended.get());
}

/// A clock whose thread is taken away once, for a while.
struct StandsStill {
    clock: SimulatedClock,
    at_ns: u64,
    for_ns: u64,
    is_over: Cell<bool>,
}

impl Clock for StandsStill {
    fn now_ns(&self) -> u64 {
        let now_ns = self.clock.now_ns();
        if self.is_over.get() || now_ns < self.at_ns {
            return now_ns;
        }
        self.is_over.set(true);
        self.clock.0.set(now_ns + self.for_ns);
        self.clock.now_ns()
    }
}

/// A run of 10 s at 1,000 operations per second against a server that answers in 1 ms, with a generator that stands still from
/// `at_ns` of the measured phase on for `for_ns`, judged as on hardware or on a virtual machine.
fn with_a_late_generator(places: usize, at_ns: u64, for_ns: u64, is_virtual: bool) -> crate::result::RunRecord {
    let (measure_ns, warm_up_ns) = (10 * SECOND_NS, SECOND_NS);
    let clock = SimulatedClock(Rc::new(Cell::new(SECOND_NS)));
    let origin = Rc::new(Cell::new(0));
    let mut server = StallServer {
        clock: clock.clone(),
        every_ns: u64::MAX,
        stall_ns: 0,
        origin_ns: Rc::clone(&origin),
        places,
        under_way: VecDeque::with_capacity(places),
    };
    let mut books = Books { recorder: Recorder::new(measure_ns), ledger: Ledger::new(unread(100_000, 64)) };
    let mut settings = Settings {
        schedule: open(1_000.0, measure_ns),
        preload_messages: 0,
        warm_up_min_ns: warm_up_ns,
        warm_up_max_ns: warm_up_ns,
        measure_ns,
        timeout_ns: 5 * SECOND_NS,
        verifies: false,
    };
    let (stop, progress) = (AtomicBool::new(false), Progress::default());
    // The probe takes one answer.
    let began_ns = SECOND_NS + warm_up_ns + MS + GAP_NS;
    let late = StandsStill { clock: clock.clone(), at_ns: began_ns + at_ns, for_ns, is_over: Cell::new(for_ns == 0) };
    let mut engine = Engine { driver: &mut server, books: &mut books, clock: &late, stop: &stop, progress: &progress };
    let outcome = engine.run(&mut settings, &mut AlignStalls(origin, clock.clone()));
    assert_eq!(outcome.status, RunStatus::Complete);
    let (planned, answered, failed) = books.recorder.counts();
    assert_eq!((planned, answered, failed), (10_000, 10_000, 0));
    let mut run = crate::result::example::run("ringmq", 1, crate::result::RunRole::Measured, 1_000.0, 60_000);
    let [response, service, lag, _] = books.recorder.distributions();
    let operation = &mut run.operations[0];
    (operation.planned, operation.acknowledged) = (planned, answered);
    (operation.response, operation.service, operation.lag) = (response, service, lag);
    run.generator.own_lag = books.recorder.own_lags();
    run.generator.virtual_machine = Some(is_virtual);
    run.measured_ns = measure_ns;
    let answered_ns = (books.recorder.last_answer_ns() - outcome.measure_start_ns).saturating_sub(MS).max(measure_ns);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let rate_per_s = answered as f64 * 1e9 / answered_ns as f64;
    run.achieved_rate_per_s = rate_per_s;
    crate::judge::judge(&mut run, None);
    run
}

/// Goal: a generator that is late is found out wherever it stood still, and the target is not blamed: the error of each planned
/// operation's time is measured, also where operations found no place because so many were late at once, and where the measured phase
/// ended meanwhile. Method: 2 s without the generator in the middle, with many places and with few; across the end; none at all; and
/// a server that stands still instead, which is not the generator's error.
#[test]
fn a_late_generator_is_found_out() {
    let late = |run: &crate::result::RunRecord| {
        run.validity.invalid.iter().any(|reason| reason.starts_with("the generator started late"))
    };
    for is_virtual in [false, true] {
        for (places, at_ns) in
            [(20_000, 5 * SECOND_NS), (10, 5 * SECOND_NS), (20_000, 9 * SECOND_NS), (10, 9 * SECOND_NS)]
        {
            let run = with_a_late_generator(places, at_ns, 2 * SECOND_NS, is_virtual);
            let own = &run.generator.own_lag;
            assert_eq!(own.count, 10_000, "one error of each planned time");
            assert!(own.max_ns > 1_900 * MS && own.p99_ns > 900 * MS, "{places} {at_ns}: {}", own.p99_ns);
            assert!(late(&run), "{places} {at_ns}: {:?}", run.validity);
            assert_eq!(crate::judge::target_failures(&run), [""; 0], "{places} {at_ns}");
        }
        let sound = with_a_late_generator(20_000, 0, 0, is_virtual);
        assert!(sound.validity.invalid.is_empty() && sound.generator.own_lag.p99_ns < 5_000, "{:?}", sound.validity);
    }
    let measure_ns = 100 * SECOND_NS;
    let (books, _) = simulate(open(5_000.0, measure_ns), 10, measure_ns);
    let own = books.recorder.own_lags();
    assert!(own.count == 500_000 && own.max_ns < 100_000, "{own:?}");
}
