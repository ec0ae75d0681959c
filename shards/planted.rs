//! Mistakes that a test plants in recovery and in what the flush thread claims, to show that its checks would notice them.
//!
//! The switch belongs to the thread that sets it: what recovers a store and what claims durability runs on the thread of
//! the test. Only tests have it (feature `sim`); otherwise nothing is ever planted. The writer has a switch of its own:
//! [`PlantedBug`](crate::log::writer::PlantedBug).

/// What can be done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedMistake {
    /// A cut leaves stale records behind the end of the log.
    NoZeroing,
    /// The durable point names bytes that no sync has covered.
    DurablePointAhead,
    /// A start does not look at `ringmq/queue-offsets`.
    SidecarIgnored,
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use std::cell::Cell;

    use super::PlantedMistake;

    thread_local! {
        static PLANTED: Cell<Option<PlantedMistake>> = const { Cell::new(None) };
    }

    /// Keeps a mistake planted.
    #[derive(Debug)]
    pub struct Planting(());

    impl Drop for Planting {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    /// Makes a mistake on this thread until the result is dropped. One at a time.
    #[must_use]
    pub fn plant(mistake: PlantedMistake) -> Planting {
        assert_eq!(PLANTED.replace(Some(mistake)), None, "one mistake at a time");
        Planting(())
    }

    pub(crate) fn is_planted(mistake: PlantedMistake) -> bool {
        PLANTED.get() == Some(mistake)
    }
}

#[cfg(any(test, feature = "sim"))]
pub(crate) use switch::is_planted;
#[cfg(any(test, feature = "sim"))]
pub use switch::{Planting, plant};

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn is_planted(_: PlantedMistake) -> bool {
    false
}
