//! Names for the numbers that travel through the engine, so that two bare integers never sit side by side.

use std::fmt;

macro_rules! offset_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

offset_type!(
    /// Absolute byte position in the commit log: the sum of all files since the beginning of time.
    PhysicalOffset
);
offset_type!(
    /// Index of a message in its queue, from 0.
    QueueOffset
);
offset_type!(
    /// Milliseconds since the Unix epoch at which a record was bound; never decreases along the log.
    StoreTimestamp
);

/// Number of a queue inside its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct QueueId(pub u32);

impl fmt::Display for QueueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
