//! Sends whose records are on their way, with the unique keys of their messages.
//!
//! Keys lie in a table of their own: what moves on the way in and out stays small.

use crate::server::slab::{Slab, SlotId};

use super::sends::PendingSend;

/// Longest unique key that has a place in the table; longer ones (none are known) are boxed.
const KEY_BYTES: usize = 64;

/// A message's unique key, kept for its answer.
pub(super) enum UniqueKey {
    Short([u8; KEY_BYTES], u8),
    Long(Box<[u8]>),
}

impl UniqueKey {
    /// The key; `None` for a message that came without one.
    pub(super) fn as_text(&self) -> Option<&str> {
        let bytes = match self {
            Self::Short(bytes, length) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        };
        if bytes.is_empty() { None } else { std::str::from_utf8(bytes).ok() }
    }
}

struct Place {
    key: [u8; KEY_BYTES],
    length: u8,
    long: Option<Box<[u8]>>,
}

/// See the module's text. Bounded as the slab is.
pub(super) struct PendingSends {
    sends: Slab<PendingSend>,
    /// By slot.
    keys: Vec<Place>,
}

impl PendingSends {
    /// None yet, and never more than `bound`.
    pub(super) fn new(bound: usize) -> Self {
        Self { sends: Slab::new(bound), keys: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.sends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.sends.is_full()
    }

    /// Slots that were ever taken.
    pub(super) fn slots(&self) -> u32 {
        self.sends.slots()
    }

    /// Keeps a send and its message's key; the slot, or `None` when the bound is reached.
    pub(super) fn insert(&mut self, send: PendingSend, key: &[u8]) -> Option<u32> {
        let SlotId { slot, .. } = self.sends.insert(send)?;
        if self.keys.len() <= slot as usize {
            self.keys.resize_with(slot as usize + 1, || Place { key: [0; KEY_BYTES], length: 0, long: None });
        }
        let place = &mut self.keys[slot as usize];
        if let Some(space) = place.key.get_mut(..key.len()) {
            space.copy_from_slice(key);
            place.length = key.len() as u8;
        } else {
            place.long = Some(key.into());
        }
        Some(slot)
    }

    /// Takes a send out; `None` if the slot is free.
    pub(super) fn take(&mut self, slot: u32) -> Option<(PendingSend, UniqueKey)> {
        let id = self.sends.id_of(slot)?;
        let send = self.sends.remove(id)?;
        let place = &mut self.keys[slot as usize];
        let key = match place.long.take() {
            Some(long) => UniqueKey::Long(long),
            None => UniqueKey::Short(place.key, place.length),
        };
        Some((send, key))
    }
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::frame::SerializeType;

    use super::*;

    /// Goal: each send gets its own key back, whatever the slot held before. Method: keys of all lengths around the size of a
    /// place go through two slots in turns.
    #[test]
    fn keys_stay_with_their_sends() {
        let mut pending = PendingSends::new(2);
        let keys: Vec<String> = [0, 1, 32, KEY_BYTES, KEY_BYTES + 1, 3, 300, 0].map(|length| "k".repeat(length)).into();
        for pair in keys.windows(2) {
            let slots = pair.iter().map(|key| {
                let send = PendingSend::of_one(SlotId { slot: 7, generation: 1 }, SerializeType::Json);
                pending.insert(send, key.as_bytes()).expect("room for two")
            });
            let slots: Vec<u32> = slots.collect();
            assert!(pending.is_full() && pending.len() == 2);
            for (slot, key) in slots.into_iter().zip(pair) {
                let (_, found) = pending.take(slot).expect("it is there");
                assert_eq!(found.as_text().unwrap_or(""), key);
                assert!(pending.take(slot).is_none());
            }
            assert!(pending.is_empty());
        }
        assert_eq!(pending.slots(), 2);
    }
}
