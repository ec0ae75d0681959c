//! The remoting version that every header carries (`MQVersion`), and the versions at which behaviour changes.

/// `V5_3_3`, the version that this implementation announces in every header. Clients compare it with gates of their own.
pub const CURRENT: i32 = 479;

/// A consumer from this version on can be told to reset its offsets.
pub const CONSUMER_RESET: i32 = 28;
/// A broker from this version on registers with a full body.
pub const REGISTER_BODY: i32 = 37;
/// A consumer from this version on answers running-info and consume-directly requests.
pub const CONSUMER_RELAY: i32 = 62;
/// A client from this version on has its `maxReconsumeTimes` honoured.
pub const MAX_RECONSUME_TIMES: i32 = 121;
/// Up to this version the ACL signature leaves out `_UNIQUE_KEY_QUERY`.
pub const SIGNATURE_SKIPS_UNIQUE_KEY_QUERY: i32 = 399;
/// A client from this version on is given its routes as standard JSON.
pub const STANDARD_ROUTE_JSON: i32 = 401;
/// A client above this version understands `GO_AWAY`.
pub const GO_AWAY_ABOVE: i32 = 475;
