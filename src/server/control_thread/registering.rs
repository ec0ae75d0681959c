//! Tells name servers what the control thread has changed, and lets answers wait for them (RocketMQ
//! `BrokerController.registerIncrementBrokerData`, which the thread of the request waits for).
//!
//! A name server of the same process is served by this very thread: it never waits itself.

use super::*;

/// How long a request waits for name servers that makes a topic on the side; it must not run into its client's time-out.
pub(super) const SIDE_PATIENCE_MS: u64 = 1_000;

/// The addresses of name servers: those configured, and the one in the same process.
pub fn namesrv_addresses(config: &Config, own: Option<&String>) -> Vec<String> {
    config.namesrv_addr.iter().chain(own).cloned().collect()
}

impl ControlThread {
    /// Registers these topics, or all, and begins the round that the answer to the request at hand waits for.
    ///
    /// Not once the process stops: behind its unregistration that would make it known again.
    pub(super) fn register(&mut self, topics: Option<&[String]>) {
        if self.stopping.load(Ordering::Acquire) {
            return;
        }
        let registered = self.registered.take();
        let Some(broker) = &mut self.broker else { return };
        if broker.registrars.is_empty() {
            return;
        }
        let command = broker.control.registration(topics);
        let round = self.round.get_or_insert_default();
        for registrar in &broker.registrars {
            let held = registrar.is_available().then(|| Arc::clone(round));
            registrar.deliver(Delivery { command: command.clone(), done: registered.clone(), held });
        }
    }

    /// Sends a message once those name servers have heard of the request's changes that can be reached, at most this much later.
    pub(super) fn send_when_registered(&mut self, connection: u64, message: ShardMessage, patience_ms: u64) {
        let (shard, _) = connection_slot(connection);
        match (self.round.take(), self.shards.get(shard)) {
            (Some(round), Some(mailbox)) => {
                let deadline_ms = self.now().steady_ms.saturating_add(patience_ms);
                self.held_answers.hold(round, mailbox.clone(), message, deadline_ms);
            }
            _ => self.send(connection, message),
        }
    }

    /// How long the answer waits for name servers: for tools that change topics, as long as a registration may take.
    pub(super) fn register_patience_ms(&self, code: i32) -> u64 {
        let is_tool = matches!(
            code,
            request::UPDATE_AND_CREATE_TOPIC | request::UPDATE_AND_CREATE_TOPIC_LIST | request::UPDATE_BROKER_CONFIG
        );
        let whole = self.broker.as_ref().filter(|_| is_tool).map(|broker| broker.register_timeout.as_millis());
        whole.map_or(SIDE_PATIENCE_MS, |whole| u64::try_from(whole).unwrap_or(u64::MAX))
    }
}
