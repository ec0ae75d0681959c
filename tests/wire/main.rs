//! The protocol as clients see it: the real binary over real sockets.

mod adopt;
mod bad_input;
mod bounds;
mod broker;
mod calls;
mod cold;
mod consumers;
mod doctor;
mod lost_queues;
mod order;
mod preflight;
mod proxies;
mod pull;
mod queries;
mod random;
mod refusals;
mod registration;
mod restart;
mod retention;
mod scale;
mod send;
mod state_files;
mod surroundings;
#[allow(dead_code, reason = "a measurement needs more of it")]
mod threads;
mod tools;
