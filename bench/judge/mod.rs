//! Judgement over results: whether a run is valid, and whether it meets conditions. Pure functions over records.

mod knee;
mod slo;
mod validity;

pub use knee::{confirmed_rate, doubts, is_refuted, is_spoiled_by_host};
pub use slo::{SLO_GRAMMAR, SloError, check_receivable, check_slo, parse_slo, slo_text};
pub use validity::{
    DEFAULT_NOISE_NS, KEPT_UP_SHARE, MOST_BUSY_SHARE, breaks_strict_lag, exit_code, is_merely_pessimistic, is_usable,
    judge, target_failures, validity,
};
