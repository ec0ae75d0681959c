//! Looking for the highest rate that holds: geometric steps until one fails, then halving the gap. Pure.

/// Factor of the geometric steps.
const FACTOR: f64 = 1.5;
/// Steps of one search, whatever happens.
const MOST_STEPS: usize = 40;

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    from: f64,
    precision: f64,
    held: Option<f64>,
    failed: Option<f64>,
    steps: usize,
}

impl Search {
    /// Begins at `from`; ends when the gap is at most `precision` of the rate.
    pub fn new(from: f64, precision: f64) -> Search {
        Search { from, precision, held: None, failed: None, steps: 0 }
    }

    /// The next rate to try; `None`: the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.steps >= MOST_STEPS {
            return None;
        }
        match (self.held, self.failed) {
            (None, None) => Some(self.from),
            (Some(held), None) => Some(round(held * FACTOR)),
            // Nothing held yet: go down, but not for ever.
            (None, Some(failed)) => (failed > self.from / 64.0).then(|| round(failed / FACTOR)),
            (Some(held), Some(failed)) => {
                (failed - held > held * self.precision).then(|| round((held * failed).sqrt()))
            }
        }
    }

    /// A rate was tried: one of [`Search::next_rate`], so it lies between the highest that held and the lowest that failed.
    pub fn report(&mut self, rate: f64, held: bool) {
        self.steps += 1;
        if held {
            self.held = Some(self.held.map_or(rate, |known| known.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |known| known.min(rate)));
        }
    }

    /// The highest rate that held.
    pub fn knee(&self) -> Option<f64> {
        self.held
    }
}

/// Rates for people: three digits.
pub fn round(rate: f64) -> f64 {
    let digits = 10_f64.powf((rate.log10() - 2.0).floor());
    (rate / digits).round() * digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(capacity: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(1000.0, 0.02);
        let mut steps = 0;
        while let Some(rate) = search.next_rate() {
            search.report(rate, rate <= capacity);
            steps += 1;
        }
        (search.knee(), steps)
    }

    /// Goal: the knee is found to 2 %, above and below the first rate, in few steps. Method: servers of known capacity.
    #[test]
    fn finds_knees() {
        for capacity in [40.0, 700.0, 1000.0, 26_400.0, 512_345.0] {
            let (knee, steps) = search(capacity);
            let knee = knee.unwrap();
            assert!(knee <= capacity && knee > capacity * 0.975, "{capacity}: {knee}");
            assert!(steps < 28, "{capacity}: {steps}");
        }
        assert_eq!(search(0.0).0, None);
    }

    /// Goal: verdicts by chance end the search, and no rate is tried at or beyond one that is decided. Method: a server that tosses
    /// a coin.
    #[test]
    fn noise_ends() {
        let mut search = Search::new(1000.0, 0.02);
        let mut random = crate::plan::Random::new(5);
        let mut steps = 0;
        while let Some(rate) = search.next_rate() {
            assert!(search.held.is_none_or(|held| rate > held) && search.failed.is_none_or(|failed| rate < failed));
            search.report(rate, random.unit() < 0.5);
            steps += 1;
        }
        assert!(steps <= MOST_STEPS);
        assert!(round(123_456.0) == 123_000.0 && round(1.5) == 1.5);
    }
}
