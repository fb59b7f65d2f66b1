//! Things in flight: found by a key that is never valid twice, and by which of them ends first.

use std::time::Instant;

/// What waits until a moment and no longer.
pub(super) trait Timed {
    fn deadline(&self) -> Instant;
}

/// Names one thing; stale once it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Generations begin again after this one.
pub(super) const LAST_GENERATION: u32 = (1 << 30) - 1;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A bounded number of things. Memory is given back when none is left.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    generation: u32,
    /// Not later than the first deadline.
    earliest: Option<Instant>,
    max: usize,
}

impl<T: Timed> Slots<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), generation: 0, earliest: None, max }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// The key that the next insertion gives.
    pub(super) fn next_key(&self) -> Key {
        let end = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        Key { index: self.free.last().copied().unwrap_or(end), generation: self.generation }
    }

    /// Adds a thing; `None` when there are too many.
    pub(super) fn insert(&mut self, value: T) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let key = self.next_key();
        self.generation = if self.generation == LAST_GENERATION { 0 } else { self.generation + 1 };
        self.note(value.deadline());
        let slot = Slot { generation: key.generation, value: Some(value) };
        match self.free.pop() {
            Some(index) => self.slots[index as usize] = slot,
            None => self.slots.push(slot),
        }
        Some(key)
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation { slot.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        self.free.push(key.index);
        if self.len() == 0 {
            self.slots.clear();
            self.free.clear();
            self.slots.shrink_to(8);
            self.free.shrink_to(8);
            self.earliest = None;
        }
        Some(value)
    }

    /// A deadline was moved.
    pub(super) fn note(&mut self, deadline: Instant) {
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// When to look for what is over: never after the first deadline, seldom before it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// One thing whose deadline has passed.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Key> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return None;
        }
        let first = self.first()?;
        let deadline = self.get(first)?.deadline();
        self.earliest = Some(deadline);
        (deadline <= now).then_some(first)
    }

    /// The thing that ends first.
    pub(super) fn first(&self) -> Option<Key> {
        let living = self.slots.iter().zip(0_u32..).filter_map(|(slot, index)| {
            let value = slot.value.as_ref()?;
            Some((value.deadline(), Key { index, generation: slot.generation }))
        });
        living.min_by_key(|(deadline, _)| *deadline).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Timed for Instant {
        fn deadline(&self) -> Instant {
            *self
        }
    }

    #[test]
    fn keys_are_not_valid_twice_and_the_first_deadline_comes_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut slots = Slots::new(3);
        let late = slots.insert(at(9)).unwrap();
        let early = slots.insert(at(2)).unwrap();
        assert_eq!(slots.next_key().index, 2);
        let middle = slots.insert(at(5)).unwrap();
        assert!(slots.is_full() && slots.insert(at(1)).is_none());
        assert_eq!(slots.deadline(), Some(at(2)));
        assert_eq!(slots.expired(at(1)), None);
        assert_eq!(slots.expired(at(6)), Some(early));
        assert!(slots.remove(early).is_some() && slots.remove(early).is_none());
        let again = slots.insert(at(7)).unwrap();
        assert_eq!(again.index, early.index);
        assert!(slots.get(early).is_none() && slots.get(again).is_some());
        assert_eq!(slots.expired(at(6)), Some(middle));
        slots.remove(middle);
        assert_eq!(slots.expired(at(6)), None);
        assert_eq!(slots.deadline(), Some(at(7)));
        slots.remove(again);
        slots.remove(late);
        assert_eq!((slots.len(), slots.deadline()), (0, None));
    }
}
