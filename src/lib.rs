//! RingMQ: the broker, the name server and their tools. See ARCHITECTURE.md for the map.

pub mod broker;
