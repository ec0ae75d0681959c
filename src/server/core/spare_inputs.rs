//! Input buffers of large frames that are done, for the next ones. Owned by the shard.

use super::limits;

/// Input buffers of large frames that are done, for the next ones: at most [`limits::SPARE_INPUT_BYTES`].
#[derive(Debug, Default)]
pub(super) struct SpareInputs {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    were_used: bool,
}

impl SpareInputs {
    /// A buffer, with memory if there is one.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.were_used = true;
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps an empty buffer if there is room for it.
    pub(super) fn keep(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= limits::SPARE_INPUT_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    /// Drops all of them when none was taken since the last call.
    pub(super) fn release(&mut self) {
        if !std::mem::take(&mut self.were_used) {
            self.buffers = Vec::new();
            self.bytes = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: memory is reused, bounded, and given back when it is idle. Method: more buffers than fit, then two idle periods.
    #[test]
    fn keeps_a_bounded_number_while_they_are_used() {
        let mut spares = SpareInputs::default();
        assert_eq!(spares.take().capacity(), 0);
        for _ in 0..3 {
            spares.keep(Vec::with_capacity(limits::SPARE_INPUT_BYTES / 2));
        }
        assert_eq!(spares.buffers.len(), 2);
        assert_eq!(spares.take().capacity(), limits::SPARE_INPUT_BYTES / 2);
        spares.release();
        assert!(!spares.is_empty());
        spares.release();
        assert!(spares.is_empty() && spares.bytes == 0);
    }
}
