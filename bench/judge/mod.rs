//! Judgement over results: whether a run is valid, and whether it meets conditions. Pure functions over records.

mod slo;
mod validity;

pub use slo::{SloError, check_slo, parse_slo};
pub use validity::{MOST_BUSY_SHARE, exit_code, judge, validity};
