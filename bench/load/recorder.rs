//! Counts what happens: three histograms per operation, one for errors, one for receipts, per interval.
//!
//! Owned by the generator's thread. All intervals are allocated and touched before the run, so recording neither allocates
//! nor meets a page for the first time, and nothing is written anywhere while the broker is measured. An operation belongs
//! to the measured phase if its planned time does; it is booked in the interval in which its answer came. What belongs to the
//! phases before it is in no figure, but is kept: in histograms of its own, the answers of the warm-up second by second.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::hlog::{self, Line, histogram};
use crate::result::{Distribution, ErrorCount, SecondPoint};

/// Longest remark of a broker that is kept.
const EXAMPLE_BYTES: usize = 160;
/// Kinds of errors that are told apart; the rest is booked with the last.
const ERROR_KINDS: usize = 16;
/// Intervals of one run. Longer runs get longer intervals.
pub const MAX_INTERVALS: usize = 600;
/// Seconds of warm-up that are set against as many before them.
const STEADY_WINDOWS: usize = 5;
/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// One interval, or a whole phase.
#[derive(Debug)]
struct Interval {
    response: Histogram<u32>,
    service: Histogram<u32>,
    lag: Histogram<u32>,
    error: Histogram<u32>,
    end_to_end: Histogram<u32>,
    received: u64,
}

/// An answer.
#[derive(Clone, Copy)]
struct Answer {
    response_ns: u64,
    service_ns: u64,
    lag_ns: u64,
}

/// A histogram whose pages are all there: resetting writes all counters.
fn touched() -> Histogram<u32> {
    let mut histogram = histogram::<u32>();
    let _ = histogram.record(hlog::HIGHEST_NS);
    histogram.reset();
    histogram
}

impl Interval {
    fn new() -> Interval {
        Interval {
            response: touched(),
            service: touched(),
            lag: touched(),
            error: touched(),
            end_to_end: touched(),
            received: 0,
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.response.saturating_record(answer.response_ns);
        self.service.saturating_record(answer.service_ns);
        self.lag.saturating_record(answer.lag_ns);
    }

    /// The lines of a log; `op` and the tag's end say of what.
    fn lines<'a>(&'a self, place: Place, operation: &'a str, phase: &'a str) -> [Line<'a, u32>; 5] {
        let line = move |operation, metric, histogram| Line {
            start: Duration::from_nanos(place.start_ns),
            length: Duration::from_nanos(place.length_ns),
            operation,
            metric,
            phase,
            histogram,
        };
        [
            line(operation, "response", &self.response),
            line(operation, "service", &self.service),
            line(operation, "lag", &self.lag),
            line(operation, "error", &self.error),
            line("receive", "end-to-end", &self.end_to_end),
        ]
    }
}

/// Where in a log a line is.
#[derive(Clone, Copy)]
struct Place {
    start_ns: u64,
    length_ns: u64,
}

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure<'a> {
    /// The broker answered with an error.
    Refused {
        /// Response code.
        code: i32,
        /// What it said.
        remark: &'a str,
    },
    /// No answer in time, or the run ended before it came.
    Timeout,
    /// The connection broke.
    Connection,
    /// An operating system's error.
    System(i32),
}

impl Failure<'_> {
    fn key(&self) -> i64 {
        match self {
            Failure::Refused { code, .. } => i64::from(*code),
            Failure::Timeout => i64::MAX,
            Failure::Connection => i64::MAX - 1,
            Failure::System(number) => i64::MAX - 1000 + i64::from(*number),
        }
    }

    fn kind(key: i64) -> String {
        match key {
            i64::MAX => "timeout".to_owned(),
            key if key == i64::MAX - 1 => "connection".to_owned(),
            key if key > i64::MAX - 1000 => {
                let number = i32::try_from(key - (i64::MAX - 1000)).unwrap_or(0);
                std::io::Error::from_raw_os_error(number).to_string()
            }
            key => {
                let code = i32::try_from(key).unwrap_or(0);
                let name = ringmq_protocol::codes::response::name(code).unwrap_or("unknown");
                format!("{code} {name}")
            }
        }
    }
}

#[derive(Debug, Clone)]
struct ErrorEntry {
    key: i64,
    count: u64,
    example: [u8; EXAMPLE_BYTES],
    example_bytes: usize,
}

/// Everything that is counted in a run.
#[derive(Debug)]
pub struct Recorder {
    start_ns: u64,
    end_ns: u64,
    interval_ns: u64,
    intervals: Vec<Interval>,
    errors: Vec<ErrorEntry>,
    own_lag: Histogram<u32>,
    /// What was started before the warm-up: probe and backlog.
    preload: Interval,
    /// What was started in the warm-up.
    warm_up_phase: Interval,
    /// Of the measured phase, what was answered, failed or came after its end; it is in the intervals too.
    drain: Interval,
    warm_up_start_ns: u64,
    /// The present window of the warm-up.
    warm_up: Histogram<u32>,
    /// The last windows of the warm-up, the place of each by its number.
    warm_up_windows: Vec<Histogram<u32>>,
    warm_up_window_count: usize,
    /// Room for some of them together.
    warm_up_sum: Histogram<u32>,
    warm_up_errors: u64,
    planned: u64,
    answered: u64,
    failed: u64,
    negative: u64,
    last_answer_ns: u64,
}

impl Recorder {
    /// A recorder for a measured phase of `measure_ns`. Everything before [`Recorder::begin`] is warm-up.
    pub fn new(measure_ns: u64) -> Recorder {
        Recorder::with_warm_up(measure_ns, 0)
    }

    /// The same with room for each second of a warm-up of at most `warm_up_max_ns`.
    pub fn with_warm_up(measure_ns: u64, warm_up_max_ns: u64) -> Recorder {
        // The phase, one interval for what is answered while draining, in at most MAX_INTERVALS.
        let seconds = measure_ns.div_ceil(SECOND_NS).max(1);
        let interval_s = seconds.div_ceil(MAX_INTERVALS as u64 - 1);
        let count = usize::try_from(seconds.div_ceil(interval_s)).unwrap_or(MAX_INTERVALS) + 1;
        let windows = usize::try_from(warm_up_max_ns.div_ceil(SECOND_NS)).unwrap_or(MAX_INTERVALS).min(MAX_INTERVALS);
        Recorder {
            start_ns: u64::MAX,
            end_ns: u64::MAX,
            interval_ns: interval_s * SECOND_NS,
            intervals: (0..count).map(|_| Interval::new()).collect(),
            errors: Vec::with_capacity(ERROR_KINDS),
            own_lag: touched(),
            preload: Interval::new(),
            warm_up_phase: Interval::new(),
            drain: Interval::new(),
            warm_up_start_ns: 0,
            warm_up: touched(),
            warm_up_windows: (0..windows.max(2 * STEADY_WINDOWS)).map(|_| touched()).collect(),
            warm_up_window_count: 0,
            warm_up_sum: touched(),
            warm_up_errors: 0,
            planned: 0,
            answered: 0,
            failed: 0,
            negative: 0,
            last_answer_ns: 0,
        }
    }

    /// The warm-up begins: what was planned before it was none of it.
    pub fn begin_warm_up(&mut self, now_ns: u64) {
        self.warm_up_start_ns = now_ns;
        std::mem::swap(&mut self.preload, &mut self.warm_up_phase);
        self.warm_up.reset();
    }

    /// The phase before the measured one that an operation belongs to.
    fn phase_before(&mut self, intended_ns: u64) -> &mut Interval {
        if intended_ns < self.warm_up_start_ns { &mut self.preload } else { &mut self.warm_up_phase }
    }

    /// The measured phase is from `start_ns` to `end_ns`.
    pub fn begin(&mut self, start_ns: u64, end_ns: u64) {
        self.start_ns = start_ns;
        self.end_ns = end_ns;
    }

    /// The measured phase ended before it was meant to.
    pub fn cut(&mut self, end_ns: u64) {
        self.end_ns = end_ns.max(self.start_ns);
    }

    /// Start of the measured phase.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    fn is_measured(&self, intended_ns: u64) -> bool {
        self.start_ns <= intended_ns && intended_ns < self.end_ns
    }

    fn interval(&mut self, now_ns: u64) -> &mut Interval {
        let index = now_ns.saturating_sub(self.start_ns) / self.interval_ns;
        let last = self.intervals.len() - 1;
        &mut self.intervals[usize::try_from(index).unwrap_or(last).min(last)]
    }

    /// An operation of the plan exists, whether or not it was started.
    #[inline]
    pub fn plan(&mut self, intended_ns: u64) {
        self.planned += u64::from(self.is_measured(intended_ns));
    }

    /// An operation was answered.
    #[inline]
    pub fn answer(&mut self, intended_ns: u64, actual_ns: u64, now_ns: u64) {
        self.last_answer_ns = now_ns;
        let answer = Answer {
            response_ns: now_ns.saturating_sub(intended_ns),
            service_ns: now_ns.saturating_sub(actual_ns),
            lag_ns: actual_ns.saturating_sub(intended_ns),
        };
        if !self.is_measured(intended_ns) {
            if intended_ns >= self.warm_up_start_ns {
                self.warm_up.saturating_record(answer.response_ns);
            }
            self.phase_before(intended_ns).answer(answer);
            return;
        }
        self.answered += 1;
        self.interval(now_ns).answer(answer);
        if now_ns >= self.end_ns {
            self.drain.answer(answer);
        }
    }

    /// The generator looked at an operation of the plan for the first time since that was due.
    #[inline]
    pub fn own_lag(&mut self, intended_ns: u64, now_ns: u64) {
        self.own_lag.saturating_record(now_ns.saturating_sub(intended_ns));
    }

    /// An operation failed.
    pub fn fail(&mut self, intended_ns: u64, now_ns: u64, failure: Failure<'_>) {
        self.book_error(failure);
        let elapsed_ns = now_ns.saturating_sub(intended_ns);
        if !self.is_measured(intended_ns) {
            self.warm_up_errors += 1;
            self.phase_before(intended_ns).error.saturating_record(elapsed_ns);
            return;
        }
        self.failed += 1;
        self.interval(now_ns).error.saturating_record(elapsed_ns);
        if now_ns >= self.end_ns {
            self.drain.error.saturating_record(elapsed_ns);
        }
    }

    fn book_error(&mut self, failure: Failure<'_>) {
        let key = failure.key();
        if let Some(entry) = self.errors.iter_mut().find(|entry| entry.key == key) {
            entry.count += 1;
        } else if self.errors.len() < ERROR_KINDS {
            let mut example = [0; EXAMPLE_BYTES];
            let remark = if let Failure::Refused { remark, .. } = failure { remark.as_bytes() } else { b"" };
            let example_bytes = remark.len().min(EXAMPLE_BYTES);
            example[..example_bytes].copy_from_slice(&remark[..example_bytes]);
            self.errors.push(ErrorEntry { key, count: 1, example, example_bytes });
        } else if let Some(last) = self.errors.last_mut() {
            last.count += 1;
        }
    }

    /// A message came to a consumer for the first time.
    #[inline]
    pub fn receive(&mut self, intended_ns: u64, now_ns: u64) {
        if self.start_ns <= now_ns {
            self.interval(now_ns).received += 1;
        }
        let Some(elapsed_ns) = now_ns.checked_sub(intended_ns) else {
            self.negative += 1;
            return;
        };
        if !self.is_measured(intended_ns) {
            self.phase_before(intended_ns).end_to_end.saturating_record(elapsed_ns);
            return;
        }
        self.interval(now_ns).end_to_end.saturating_record(elapsed_ns);
        if now_ns >= self.end_ns {
            self.drain.end_to_end.saturating_record(elapsed_ns);
        }
    }

    /// A second of warm-up is over. Says whether it was enough: the 99 % of the last five windows together within a tenth
    /// of those of the five before.
    pub fn end_warm_up_window(&mut self) -> bool {
        // The room is for the log of a whole warm-up; the rule looks at the last windows alone.
        let room = self.warm_up_windows.len();
        std::mem::swap(&mut self.warm_up, &mut self.warm_up_windows[self.warm_up_window_count % room]);
        self.warm_up.reset();
        self.warm_up_window_count += 1;
        let Some(first) = self.warm_up_window_count.checked_sub(2 * STEADY_WINDOWS) else { return false };
        // Together means one histogram: the mean of five percentiles is no percentile.
        let mut p99_of = |from: usize| {
            let all = &mut self.warm_up_sum;
            all.reset();
            for number in from..from + STEADY_WINDOWS {
                // All have the same bounds, which is all that could fail.
                let _ = all.add(&self.warm_up_windows[number % room]);
            }
            if all.is_empty() { 0 } else { all.value_at_quantile(0.99) }
        };
        is_steady(p99_of(first), p99_of(first + STEADY_WINDOWS))
    }

    /// When an operation was last answered; 0 if never.
    pub fn last_answer_ns(&self) -> u64 {
        self.last_answer_ns
    }

    /// Operations of the measured phase: planned, answered, failed.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.planned, self.answered, self.failed)
    }

    /// Messages received before they were sent.
    pub fn negative(&self) -> u64 {
        self.negative
    }

    /// Errors of the warm-up; those of the measured phase are in [`Recorder::counts`].
    pub fn warm_up_errors(&self) -> u64 {
        self.warm_up_errors
    }

    /// All errors by kind, warm-up included.
    pub fn error_kinds(&self) -> Vec<ErrorCount> {
        let text = |entry: &ErrorEntry| String::from_utf8_lossy(&entry.example[..entry.example_bytes]).into_owned();
        let mut kinds: Vec<ErrorCount> = self
            .errors
            .iter()
            .map(|entry| ErrorCount { kind: Failure::kind(entry.key), count: entry.count, example: text(entry) })
            .collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        kinds
    }

    fn merged(&self, of: impl Fn(&Interval) -> &Histogram<u32>) -> Histogram<u64> {
        let mut merged = histogram::<u64>();
        for interval in &self.intervals {
            for step in of(interval).iter_recorded() {
                merged.saturating_record_n(step.value_iterated_to(), u64::from(step.count_at_value()));
            }
        }
        merged
    }

    /// Response, service, lag, error.
    pub fn distributions(&self) -> [Distribution; 4] {
        [
            Distribution::of(&self.merged(|interval| &interval.response)),
            Distribution::of(&self.merged(|interval| &interval.service)),
            Distribution::of(&self.merged(|interval| &interval.lag)),
            Distribution::of(&self.merged(|interval| &interval.error)),
        ]
    }

    /// Lag of which the generator alone is the cause.
    pub fn own_lags(&self) -> Distribution {
        Distribution::of(&self.own_lag)
    }

    /// From intended send to receipt.
    pub fn end_to_end(&self) -> Distribution {
        Distribution::of(&self.merged(|interval| &interval.end_to_end))
    }

    /// One point per interval of the measured phase, and one for what was answered after it, if anything was.
    pub fn series(&self) -> Vec<SecondPoint> {
        let interval_s = self.interval_ns / SECOND_NS;
        let mut points = Vec::with_capacity(self.intervals.len());
        for (index, interval) in self.intervals.iter().enumerate() {
            let second = u32::try_from(index as u64 * interval_s).unwrap_or(u32::MAX);
            let at = |histogram: &Histogram<u32>, quantile: f64| {
                if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile).min(histogram.max()) }
            };
            // The longest of none would be the first step of the scale.
            let longest = |histogram: &Histogram<u32>| if histogram.is_empty() { 0 } else { histogram.max() };
            points.push(SecondPoint {
                second,
                acknowledged: interval.response.len(),
                errors: interval.error.len(),
                received: interval.received,
                response_p50_ns: at(&interval.response, 0.5),
                response_p99_ns: at(&interval.response, 0.99),
                response_max_ns: longest(&interval.response),
                lag_max_ns: longest(&interval.lag),
                end_to_end_p99_ns: at(&interval.end_to_end, 0.99),
                end_to_end_max_ns: longest(&interval.end_to_end),
            });
        }
        while points.last().is_some_and(|point| point.acknowledged + point.errors + point.received == 0) {
            points.pop();
        }
        points
    }

    /// The histogram log.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write_hlog(
        &self,
        out: &mut impl std::io::Write,
        started_ms: u64,
        title: &str,
        operation: &str,
    ) -> std::io::Result<()> {
        let lines = self.intervals.iter().enumerate().flat_map(|(index, interval)| {
            let place = Place { start_ns: self.interval_ns * index as u64, length_ns: self.interval_ns };
            interval.lines(place, operation, "")
        });
        hlog::write(out, started_ms, title, lines)
    }

    /// The histogram log of the other phases: `preload` and `warm-up`, which are in no figure, and `drain`, the part of the measured
    /// phase that was answered or received after its end. The answers of the warm-up have a line per second, as far as there is room;
    /// all else has one per phase. `began_ns` is the start of the log.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write_phases_hlog(
        &self,
        out: &mut impl std::io::Write,
        (started_ms, began_ns): (u64, u64),
        title: &str,
        operation: &str,
    ) -> std::io::Result<()> {
        let place = |from_ns: u64, to_ns: u64| Place {
            start_ns: from_ns.saturating_sub(began_ns),
            length_ns: to_ns.saturating_sub(from_ns).max(1),
        };
        let warm_up_ns = self.warm_up_start_ns.max(began_ns);
        let measure_ns = self.start_ns.min(self.last_answer_ns.max(warm_up_ns));
        let windows = self.warm_up_windows.len();
        let first = self.warm_up_window_count.saturating_sub(windows);
        let window = |number: usize, histogram| Line {
            phase: "warm-up",
            operation,
            metric: "response",
            start: Duration::from_nanos(warm_up_ns.saturating_sub(began_ns) + SECOND_NS * number as u64),
            length: Duration::from_nanos(SECOND_NS),
            histogram,
        };
        let closed = (first..self.warm_up_window_count)
            .map(|number| window(number, &self.warm_up_windows[number % windows]))
            .chain([window(self.warm_up_window_count, &self.warm_up)]);
        let warm_up = self.warm_up_phase.lines(place(warm_up_ns, measure_ns), operation, "warm-up");
        // Its answers are told second by second, unless it was longer than there is room for.
        let is_told = |line: &Line<'_, u32>| line.metric == "response" && first == 0;
        let preload = self.preload.lines(place(began_ns, warm_up_ns), operation, "preload");
        let drain = self.drain.lines(place(self.end_ns, self.last_answer_ns), operation, "drain");
        let warm_up = warm_up.into_iter().filter(|line| !is_told(line));
        let lines = preload.into_iter().chain(warm_up).chain(closed.filter(|_| first == 0)).chain(drain);
        hlog::write(out, started_ms, title, lines)
    }
}

/// The rule of the warm-up.
fn is_steady(before_ns: u64, after_ns: u64) -> bool {
    before_ns > 0 && after_ns > 0 && before_ns.abs_diff(after_ns) * 10 <= before_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Goal: each operation is in exactly one place, response = service + lag, and phases do not mix. Method: operations
    /// of warm-up and measured phase, one failed, one answered while draining.
    #[test]
    fn books_by_phase_and_interval() {
        let mut recorder = Recorder::new(2 * SECOND_NS);
        recorder.answer(10, 10, 500);
        let start = 10 * SECOND_NS;
        recorder.begin(start, start + 2 * SECOND_NS);
        recorder.answer(start - 5, start, start + 400);
        for (intended, actual, answered) in [(0, 1, 3), (900, 901, 1100), (1999, 1999, 2500)] {
            recorder.plan(start + intended * MS);
            recorder.answer(start + intended * MS, start + actual * MS, start + answered * MS);
        }
        recorder.plan(start + 1500 * MS);
        recorder.fail(start + 1500 * MS, start + 1700 * MS, Failure::Refused { code: 14, remark: "no room" });
        assert_eq!(recorder.counts(), (4, 3, 1));
        let series = recorder.series();
        assert_eq!(
            series.iter().map(|point| (point.acknowledged, point.errors)).collect::<Vec<_>>(),
            [(1, 0), (1, 1), (1, 0)]
        );
        let [response, service, lag, error] = recorder.distributions();
        assert_eq!((response.count, service.count, lag.count, error.count), (3, 3, 3, 1));
        assert!(response.max_ns.abs_diff(501 * MS) < MS && lag.max_ns.abs_diff(MS) < MS / 100);
        assert!(error.max_ns.abs_diff(200 * MS) < MS);
        let kinds = recorder.error_kinds();
        assert_eq!((kinds[0].count, kinds[0].example.as_str()), (1, "no room"));
        assert!(kinds[0].kind.starts_with("14 "), "{}", kinds[0].kind);
        let mut log = Vec::new();
        recorder.write_hlog(&mut log, 0, "test", "send").unwrap();
        assert_eq!(hlog::tests::read_merged(&log, "send", "response").len(), 3);
        assert_eq!(hlog::tests::read_merged(&log, "send", "error").len(), 1);
    }

    /// Goal: nothing that was measured is thrown away: preload, each second of the warm-up and the drain are in a log of their own, and
    /// what is not of the measured phase is not in its log. Method: operations, errors and receipts of each phase.
    #[test]
    fn other_phases_are_kept() {
        let began_ns = SECOND_NS;
        let mut recorder = Recorder::with_warm_up(2 * SECOND_NS, 3 * SECOND_NS);
        recorder.answer(began_ns + 1, began_ns + 2, began_ns + 5 * MS);
        recorder.fail(began_ns + 1, began_ns + MS, Failure::Timeout);
        let warm_up_ns = 2 * SECOND_NS;
        recorder.begin_warm_up(warm_up_ns);
        // One of the preload comes late.
        recorder.answer(warm_up_ns - 5, warm_up_ns - 4, warm_up_ns + MS);
        for second in 0..3_u64 {
            for _ in 0..=second {
                let at_ns = warm_up_ns + second * SECOND_NS;
                recorder.answer(at_ns, at_ns + 1000, at_ns + 2 * MS);
            }
            if second < 2 {
                recorder.end_warm_up_window();
            }
        }
        recorder.receive(warm_up_ns + 7, warm_up_ns + MS);
        let (start_ns, end_ns) = (5 * SECOND_NS, 7 * SECOND_NS);
        recorder.begin(start_ns, end_ns);
        for (intended_ns, answered_ns) in [(start_ns, start_ns + MS), (end_ns - MS, end_ns + MS)] {
            recorder.plan(intended_ns);
            recorder.answer(intended_ns, intended_ns, answered_ns);
            recorder.receive(intended_ns, answered_ns);
        }
        recorder.plan(end_ns - MS);
        recorder.fail(end_ns - MS, end_ns + 9 * MS, Failure::Timeout);
        let mut log = Vec::new();
        recorder.write_phases_hlog(&mut log, (1000, began_ns), "test", "send").unwrap();
        let count = |metric: &str, phase: &str| {
            let operation = if metric == "end-to-end" { "receive" } else { "send" };
            hlog::tests::read_phase(&log, operation, metric, phase).len()
        };
        let all = |phase| ["response", "service", "lag", "error", "end-to-end"].map(|metric| count(metric, phase));
        assert_eq!(all("preload"), [2, 2, 2, 1, 0]);
        assert_eq!(all("warm-up"), [6, 6, 6, 0, 1]);
        assert_eq!(all("drain"), [1, 1, 1, 1, 1]);
        let text = String::from_utf8(log.clone()).unwrap();
        let tag = "Tag=op=send;metric=response;phase=warm-up";
        let starts: Vec<_> =
            text.lines().filter(|line| line.starts_with(tag)).map(|line| &line[tag.len()..][..6]).collect();
        assert_eq!(starts, [",1.000", ",2.000", ",3.000"], "{text}");
        let mut log = Vec::new();
        recorder.write_hlog(&mut log, 0, "test", "send").unwrap();
        assert_eq!(hlog::tests::read_merged(&log, "send", "response").len(), 2);
        assert_eq!(hlog::tests::read_merged(&log, "send", "error").len(), 1);
        assert_eq!((recorder.counts(), recorder.warm_up_errors()), ((3, 2, 1), 1));
    }

    /// Goal: receipts are counted once, and a clock that runs backwards is not dropped. Method: one of each.
    #[test]
    fn receipts() {
        let mut recorder = Recorder::new(SECOND_NS);
        recorder.begin(SECOND_NS, 2 * SECOND_NS);
        recorder.receive(SECOND_NS + 500, SECOND_NS + 3 * MS);
        recorder.receive(SECOND_NS + 500, SECOND_NS + 400);
        assert_eq!((recorder.end_to_end().count, recorder.negative()), (1, 1));
        let second = &recorder.series()[0];
        assert_eq!((second.received, second.response_max_ns), (2, 0), "nothing was answered");
    }

    /// Goal: warm-up ends when latency stands still, not before ten windows, whatever room there is for windows, and five windows are
    /// judged as one. Method: with the room of a run as it is and with the least, a level 99 %, one that falls, one that is level after
    /// a slow start, one that jumps after many level windows, the last of them beyond the room; an idle recorder; then a slow window
    /// whose few answers would weigh a fifth in a mean of percentiles.
    #[test]
    fn steady_state() {
        for room_s in [120, 0] {
            let recorder = || Recorder::with_warm_up(SECOND_NS, room_s * SECOND_NS);
            // The numbers of windows, from 1, after which it would end.
            let ends = |values: &[u64]| {
                let mut recorder = recorder();
                let end_one = |value: &u64| {
                    (0..200).for_each(|_| recorder.answer(0, 0, *value));
                    recorder.end_warm_up_window()
                };
                let steady: Vec<bool> = values.iter().map(end_one).collect();
                (1..=steady.len()).filter(|number| steady[number - 1]).collect::<Vec<_>>()
            };
            let level = |value: u64, windows: usize| vec![value; windows];
            assert_eq!(ends(&level(5000, 12)), [10, 11, 12], "{room_s}");
            let slow_start = [level(9 * MS, 5), level(MS, 11)].concat();
            assert_eq!(ends(&slow_start), [15, 16], "{room_s}");
            let fall: Vec<u64> = (0..10).map(|step| (2000 - step * 150) * 1000).collect();
            let falling = ends(&[fall, level(600_000, 10)].concat());
            assert!(falling[0] > 14 && falling.last() == Some(&20), "{room_s}: {falling:?}");
            for windows in [20, 118] {
                let jump = ends(&[level(MS, windows), level(9 * MS, 6)].concat());
                let wanted: Vec<usize> = (10..=windows).chain([windows + 6]).collect();
                assert_eq!(jump, wanted, "{room_s}: the last windows decide, not the first");
            }
            let mut idle = recorder();
            assert!((0..20).all(|_| !idle.end_warm_up_window()));
            let mut uneven = recorder();
            let steady = (0..10).map(|window| {
                let (answers, value) = if window == 7 { (2, 900_000) } else { (1000, 5000) };
                (0..answers).for_each(|_| uneven.answer(0, 0, value));
                uneven.end_warm_up_window()
            });
            assert!(steady.last().unwrap(), "two slow answers of 4002 are not the 99 %");
        }
    }

    /// Goal: recording never allocates, whatever comes. Method: count allocations around each kind of record.
    #[test]
    fn does_not_allocate() {
        let mut recorder = Recorder::new(SECOND_NS);
        recorder.begin(0, SECOND_NS);
        let before = crate::allocation::allocations_of_this_thread();
        for step in 0..10_000_u64 {
            recorder.plan(step);
            recorder.answer(step, step + 5, step * step * step);
            recorder.receive(step, step * 1000);
            let code = i32::try_from(step % 40).unwrap();
            recorder.fail(step, step * 2000, Failure::Refused { code, remark: "busy" });
            recorder.fail(step, step * 2000, Failure::Timeout);
        }
        for _ in 0..12 {
            recorder.end_warm_up_window();
        }
        assert_eq!(crate::allocation::allocations_of_this_thread(), before);
    }
}
