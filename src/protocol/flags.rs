//! Bit sets of the protocol: command flags, message system flags, pull system flags, permissions, topic flags.

/// Command flag (`RemotingCommand`): this command is a response.
pub const RPC_RESPONSE: i32 = 1;
/// Command flag (`RemotingCommand`): nobody waits for a response.
pub const RPC_ONEWAY: i32 = 2;

/// Message flags (`MessageSysFlag`).
pub mod message {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 0x1;
    /// The topic filters by several tags.
    pub const MULTI_TAGS: i32 = 0x2;
    /// The two transaction bits.
    pub const TRANSACTION_MASK: i32 = 0xC;
    /// Not part of a transaction.
    pub const TRANSACTION_NOT: i32 = 0;
    /// Half message.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// Committed message.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// Rolled-back message.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// The born host has 16 address bytes.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The store host has 16 address bytes.
    pub const STORE_HOST_V6: i32 = 0x20;
    /// The consumer must unwrap the body into several messages.
    pub const NEED_UNWRAP: i32 = 0x40;
    /// The record is a whole batch.
    pub const INNER_BATCH: i32 = 0x80;
    /// The compression type bits.
    pub const COMPRESSION_MASK: i32 = 0x700;
    /// LZ4 frames.
    pub const COMPRESSION_LZ4: i32 = 0x100;
    /// Zstandard.
    pub const COMPRESSION_ZSTD: i32 = 0x200;
    /// ZLIB (RFC 1950); 0 means the same.
    pub const COMPRESSION_ZLIB: i32 = 0x300;

    /// The transaction bits of a system flag.
    pub const fn transaction_type(sys_flag: i32) -> i32 {
        sys_flag & TRANSACTION_MASK
    }
}

/// Pull request flags (`PullSysFlag`).
pub mod pull {
    /// `commitOffset` is to be committed.
    pub const COMMIT_OFFSET: i32 = 0x1;
    /// The broker may hold the request.
    pub const SUSPEND: i32 = 0x2;
    /// The request carries its subscription.
    pub const SUBSCRIPTION: i32 = 0x4;
    /// Class filter (historic).
    pub const CLASS_FILTER: i32 = 0x8;
    /// Lite pull.
    pub const LITE_PULL: i32 = 0x10;
}

/// Permissions of brokers and topics (`PermName`).
pub mod permission {
    /// Usable as a template for new topics.
    pub const INHERIT: i32 = 0x1;
    /// Producers may write.
    pub const WRITE: i32 = 0x2;
    /// Consumers may read.
    pub const READ: i32 = 0x4;
    /// Exclusive upper bound of valid permissions.
    pub const PRIORITY: i32 = 0x8;

    /// Whether consumers may read.
    pub const fn is_readable(permission: i32) -> bool {
        permission & READ == READ
    }

    /// Whether producers may write.
    pub const fn is_writeable(permission: i32) -> bool {
        permission & WRITE == WRITE
    }

    /// Whether the topic may serve as a template.
    pub const fn is_inherited(permission: i32) -> bool {
        permission & INHERIT == INHERIT
    }
}

/// Topic and group flags (`TopicSysFlag`).
pub mod topic {
    /// Unit topic; as a group flag, unit group.
    pub const UNIT: i32 = 0x1;
    /// Subscribed to by a unit group.
    pub const UNIT_SUBSCRIPTION: i32 = 0x2;
}
