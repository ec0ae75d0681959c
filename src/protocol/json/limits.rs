//! Bounds of the JSON reader.

/// Nesting of arrays and objects. Real bodies stay below 10; the reader and the users of its values recurse, and this
/// keeps their stacks small.
pub const MAX_DEPTH: usize = 64;

/// Values in one document, after back references have been expanded. A full offset table of 250,000 queues is a
/// quarter of a million; the largest frame (16 MiB) could otherwise hold eight million empty arrays.
pub const MAX_NODES: usize = 4_000_000;

/// Longest accepted path of a back reference, in bytes.
pub const MAX_REFERENCE_LENGTH: usize = 4096;

/// Bytes of names and strings in a document whose back references have been expanded. Otherwise a reference of 14 bytes
/// could repeat a string of megabytes.
pub const MAX_RESOLVED_TEXT_LENGTH: usize = 64 << 20;
