//! A table of reusable slots whose generations tell a new occupant from the old one.

/// Names a slot's occupant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId {
    /// Index into the table.
    pub slot: u32,
    /// Low 24 bits count; a stale id never finds the new occupant.
    pub generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A bounded slab. Freed slots are reused last in, first out, which keeps the hot ones in cache.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    bound: usize,
}

/// Generations wrap where the completion token's 24 bits do.
const GENERATIONS: u32 = ringmq_shards::runtime::ring::GENERATION_MASK;

impl<T> Slab<T> {
    /// An empty slab of at most `bound` occupants.
    pub fn new(bound: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), bound }
    }

    /// How many slots are taken.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots that were ever taken: names are below it.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the bound is reached.
    pub fn is_full(&self) -> bool {
        self.len() >= self.bound
    }

    /// Takes a slot; `None` when the bound is reached.
    pub fn insert(&mut self, value: T) -> Option<SlotId> {
        if self.is_full() {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, value: None });
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.value = Some(value);
        Some(SlotId { slot, generation: entry.generation })
    }

    /// The occupant, if the id is still its name.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        let entry = self.slots.get(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    /// As [`Slab::get`], for changing.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    /// The current name of a taken slot.
    pub fn id_of(&self, slot: u32) -> Option<SlotId> {
        let entry = self.slots.get(slot as usize)?;
        entry.value.as_ref().map(|_| SlotId { slot, generation: entry.generation })
    }

    /// Frees a slot.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATIONS;
        self.free.push(id.slot);
        Some(value)
    }

    /// All occupants with their names.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let value = entry.value.as_ref()?;
            Some((SlotId { slot: slot as u32, generation: entry.generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stale id must not reach the slot's new occupant, and the bound must hold.
    #[test]
    fn generations_and_bound() {
        let mut slab = Slab::new(2);
        let first = slab.insert("a").expect("room");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b").expect("room");
        assert_eq!(second.slot, first.slot);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get(second), Some(&"b"));
        slab.insert("c").expect("room");
        assert!(slab.insert("d").is_none());
        assert_eq!(slab.len(), 2);
    }
}
