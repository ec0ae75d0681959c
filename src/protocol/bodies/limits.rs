//! Bounds of the body decoders.

/// Longest register body after inflation, in bytes. 50,000 topics with attributes need about 8 MiB; zlib can blow a
/// frame of 16 MiB up a thousandfold.
pub const MAX_INFLATED_REGISTER_BODY_LENGTH: usize = 64 << 20;

/// Topics (and queue mappings) that one registration may carry.
pub const MAX_REGISTERED_TOPICS: usize = 200_000;
