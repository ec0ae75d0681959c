//! Judgement over results: whether a run is valid, and whether it meets conditions. Pure functions over records.

mod slo;
mod validity;

pub use slo::{SloError, check_slo, format_ns, parse_slo};
pub use validity::{exit_code, judge, validity};
