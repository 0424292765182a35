//! A switch's memory, which its ports share: how much of it one queue may take.
//!
//! ```text
//!   memory  |■■■■■■■■■■ used ■■■■■■■■■■|········ free ········|
//!   a queue may grow while it is shorter than  alpha × free
//! ```

/// How ports share the memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sharing {
    /// Each queue has its own bound and the memory has none: what papers call static buffers.
    Static,
    /// A queue may grow while it is shorter than `alpha` times what is free: Choudhury and Hahne, Dynamic queue length
    /// thresholds for shared-memory packet switches, IEEE/ACM Transactions on Networking 6(2), 1998. With n queues at their
    /// threshold each has `alpha × memory ÷ (1 + n × alpha)`.
    Dynamic {
        /// All memory of the switch.
        memory_bytes: u64,
        /// Powers of two from 1/128 to 8 in the switches that name it.
        alpha: f64,
    },
}

/// The memory of a switch, and how much of it is in use.
#[derive(Clone, Copy, Debug)]
pub struct SharedBuffer {
    sharing: Sharing,
    used_bytes: u64,
    used_bytes_max: u64,
}

impl SharedBuffer {
    /// All of it is free.
    pub fn new(sharing: Sharing) -> SharedBuffer {
        SharedBuffer {
            sharing,
            used_bytes: 0,
            used_bytes_max: 0,
        }
    }

    /// What all queues hold.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The most that all queues held at once.
    pub fn used_bytes_max(&self) -> u64 {
        self.used_bytes_max
    }

    /// The length up to which a queue may grow at this moment.
    pub fn threshold_bytes(&self) -> u64 {
        match self.sharing {
            Sharing::Static => u64::MAX,
            // A product beyond the range of u64 saturates.
            Sharing::Dynamic { memory_bytes, alpha } => (alpha * (memory_bytes - self.used_bytes) as f64) as u64,
        }
    }

    /// Takes memory for a packet that would join a queue of `queue_bytes`. No, if the queue is at its threshold or memory
    /// is full.
    pub(crate) fn take(&mut self, queue_bytes: u64, packet_bytes: u32) -> bool {
        let used_bytes = self.used_bytes + u64::from(packet_bytes);
        if let Sharing::Dynamic { memory_bytes, .. } = self.sharing
            && (used_bytes > memory_bytes || queue_bytes >= self.threshold_bytes())
        {
            return false;
        }
        self.used_bytes = used_bytes;
        self.used_bytes_max = self.used_bytes_max.max(used_bytes);
        true
    }

    /// A packet takes the place of one that is no smaller, whatever the threshold is by now.
    pub(crate) fn exchange(&mut self, old_bytes: u32, new_bytes: u32) {
        debug_assert!(new_bytes <= old_bytes, "{new_bytes} B in the place of {old_bytes}");
        self.give_back(old_bytes);
        self.used_bytes += u64::from(new_bytes);
    }

    /// Gives memory back.
    ///
    /// # Panics
    /// If more is given back than was taken: a packet left a queue of another switch.
    pub(crate) fn give_back(&mut self, packet_bytes: u32) {
        let left = self.used_bytes.checked_sub(u64::from(packet_bytes));
        self.used_bytes =
            left.unwrap_or_else(|| panic!("{packet_bytes} B leave a buffer that holds {}", self.used_bytes));
    }
}

/// Memory without a bound.
impl Default for SharedBuffer {
    fn default() -> SharedBuffer {
        SharedBuffer::new(Sharing::Static)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// n greedy queues settle at alpha × B ÷ (1 + n × alpha) each, to within a packet (Choudhury and Hahne, equation 2).
    #[test]
    fn greedy_queues_settle_at_the_papers_share() {
        const PACKET_BYTES: u32 = 1_500;
        for (alpha, queues_count) in [(1.0, 1), (1.0, 7), (0.5, 3), (2.0, 15), (0.21, 1)] {
            let memory_bytes = 4_000_000;
            let mut buffer = SharedBuffer::new(Sharing::Dynamic { memory_bytes, alpha });
            let mut queues = vec![0_u64; queues_count];
            loop {
                let before = buffer.used_bytes();
                for queue_bytes in &mut queues {
                    if buffer.take(*queue_bytes, PACKET_BYTES) {
                        *queue_bytes += u64::from(PACKET_BYTES);
                    }
                }
                if buffer.used_bytes() == before {
                    break;
                }
            }
            let share = alpha * memory_bytes as f64 / (1.0 + queues_count as f64 * alpha);
            for queue_bytes in queues {
                let off = (queue_bytes as f64 - share).abs();
                assert!(
                    off <= 2.0 * f64::from(PACKET_BYTES),
                    "{queue_bytes} B, not {share}, of {queues_count} at {alpha}"
                );
            }
        }
    }

    #[test]
    fn a_large_alpha_fills_the_memory_and_not_more() {
        let sharing = Sharing::Dynamic {
            memory_bytes: 3_000,
            alpha: 1e30,
        };
        let mut buffer = SharedBuffer::new(sharing);
        assert!(buffer.take(0, 1_500) && buffer.take(1_500, 1_500));
        assert!(!buffer.take(0, 1));
        buffer.give_back(1_500);
        assert!(buffer.take(0, 1_000));
        assert_eq!((buffer.used_bytes(), buffer.used_bytes_max()), (2_500, 3_000));
    }
}
