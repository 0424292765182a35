//! The quorum's nodes, whatever they are made of: models always, and the RTL where it was verilated.

use fpga_model::node::{Follower, Leader, Node, Shape};

/// What a node is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The cycle model alone.
    Model,
    /// The RTL, with the model beside it: they must agree on every edge.
    Rtl {
        /// What registers and memories begin as.
        seed: u32,
    },
}

impl Made {
    /// A leader. The shape is one that was verilated.
    ///
    /// # Panics
    /// If the RTL is asked for and not here.
    pub fn leader(self, shape: Shape) -> Box<dyn Node> {
        match self {
            Made::Model => Box::new(Leader::new(shape)),
            #[cfg(rtl)]
            Made::Rtl { seed } => rtl::leader(shape, seed),
            #[cfg(not(rtl))]
            Made::Rtl { .. } => panic!("the RTL was not verilated"),
        }
    }

    /// A follower.
    ///
    /// # Panics
    /// As [`Made::leader`].
    pub fn follower(self, shape: Shape) -> Box<dyn Node> {
        match self {
            Made::Model => Box::new(Follower::new(shape)),
            #[cfg(rtl)]
            Made::Rtl { seed } => rtl::follower(shape, seed),
            #[cfg(not(rtl))]
            Made::Rtl { .. } => panic!("the RTL was not verilated"),
        }
    }
}

#[cfg(rtl)]
mod rtl {
    use fpga_model::{
        node::{Follower, Inputs, Leader, Node, Outputs, Shape},
        stream::{BEAT_BYTES_MAX, Beat},
    };

    use crate::{
        lockstep::Lockstep,
        sys::{Follower64, Follower512, Leader64, Leader512},
    };

    pub fn leader(shape: Shape, seed: u32) -> Box<dyn Node> {
        match shape {
            Shape::NARROW => Box::new(Lockstep::new(Leader64::new(seed), Leader::new(shape))),
            Shape::WIDE => Box::new(Lockstep::new(Leader512::new(seed), Leader::new(shape))),
            other => panic!("{other:?} was not verilated"),
        }
    }

    pub fn follower(shape: Shape, seed: u32) -> Box<dyn Node> {
        match shape {
            Shape::NARROW => Box::new(Lockstep::new(Follower64::new(seed), Follower::new(shape))),
            Shape::WIDE => Box::new(Lockstep::new(Follower512::new(seed), Follower::new(shape))),
            other => panic!("{other:?} was not verilated"),
        }
    }

    fn words(beat: &Beat) -> [u32; 16] {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(beat.data.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        words
    }

    fn data(words: &[u32]) -> [u8; BEAT_BYTES_MAX] {
        let mut data = [0; BEAT_BYTES_MAX];
        for (bytes, word) in data.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        data
    }

    /// Lanes that a beat has no bytes in mean nothing.
    fn masked(mut data: [u8; BEAT_BYTES_MAX], keep: u64) -> [u8; BEAT_BYTES_MAX] {
        for (lane, byte) in data.iter_mut().enumerate() {
            *byte *= (keep >> lane & 1) as u8;
        }
        data
    }

    /// One type per width and role; the ports are named alike.
    macro_rules! node {
        ($top:ident, $keep:ty, $in_data:expr, $out_data:expr, $write_ready:expr, $commit:expr, $commit_ready:expr) => {
            impl Node for $top {
                fn outputs(&self) -> Outputs {
                    let beat = |data: [u8; BEAT_BYTES_MAX], keep: $keep, last: u8, user: u8| Beat {
                        data: masked(data, keep.into()),
                        keep: keep.into(),
                        last: last == 1,
                        user: user == 1,
                    };
                    let tx = (self.m_axis_tx_tvalid() == 1).then(|| {
                        beat(
                            $out_data(&self.m_axis_tx_tdata()),
                            self.m_axis_tx_tkeep(),
                            self.m_axis_tx_tlast(),
                            0,
                        )
                    });
                    let slow = (self.m_axis_slow_tvalid() == 1).then(|| {
                        let user = self.m_axis_slow_tuser();
                        beat(
                            $out_data(&self.m_axis_slow_tdata()),
                            self.m_axis_slow_tkeep(),
                            self.m_axis_slow_tlast(),
                            user,
                        )
                    });
                    let log = (self.m_axis_log_tvalid() == 1).then(|| {
                        let data = $out_data(&self.m_axis_log_tdata());
                        (
                            beat(data, self.m_axis_log_tkeep(), self.m_axis_log_tlast(), 0),
                            self.m_axis_log_tuser(),
                        )
                    });
                    Outputs {
                        write_ready: $write_ready(self),
                        ready: self.s_axis_tready() == 1,
                        tx,
                        slow,
                        log,
                        commit: $commit(self),
                        next: self.stat_next(),
                        commit_end: self.stat_commit_end(),
                    }
                }

                fn clock(&mut self, inputs: &Inputs) {
                    self.set_clk(0);
                    self.set_rst(inputs.rst.into());
                    self.set_cfg_we(inputs.write.is_some().into());
                    if let Some((address, value)) = inputs.write {
                        self.set_cfg_addr(address);
                        self.set_cfg_data(value);
                    }
                    self.set_s_axis_tvalid(inputs.beat.is_some().into());
                    if let Some(beat) = &inputs.beat {
                        self.set_s_axis_tdata($in_data(&words(beat)));
                        self.set_s_axis_tkeep(beat.keep as $keep);
                        self.set_s_axis_tlast(beat.last.into());
                        self.set_s_axis_tuser(beat.user.into());
                    }
                    self.set_m_axis_tx_tready(inputs.tx_ready.into());
                    self.set_m_axis_slow_tready(inputs.slow_ready.into());
                    self.set_m_axis_log_tready(inputs.log_ready.into());
                    $commit_ready(self, inputs.commit_ready);
                    self.eval();
                    self.set_clk(1);
                    self.eval();
                }
            }
        };
    }

    fn narrow_in(words: &[u32; 16]) -> u64 {
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
    fn narrow_out(word: &u64) -> [u8; BEAT_BYTES_MAX] {
        data(&[*word as u32, (*word >> 32) as u32])
    }
    fn wide_in(words: &[u32; 16]) -> &[u32; 16] {
        words
    }
    fn wide_out(words: &[u32; 16]) -> [u8; BEAT_BYTES_MAX] {
        data(words)
    }

    macro_rules! leader {
        ($top:ident, $keep:ty, $in_data:expr, $out_data:expr) => {
            node!(
                $top,
                $keep,
                $in_data,
                $out_data,
                |top: &$top| top.cfg_ready() == 1,
                |top: &$top| (top.m_axis_commit_tvalid() == 1).then(|| top.m_axis_commit_tdata()),
                |top: &mut $top, ready: bool| top.set_m_axis_commit_tready(ready.into())
            );
        };
    }
    macro_rules! follower {
        ($top:ident, $keep:ty, $in_data:expr, $out_data:expr) => {
            node!(
                $top,
                $keep,
                $in_data,
                $out_data,
                |_: &$top| true,
                |_: &$top| None,
                |_: &mut $top, _: bool| {}
            );
        };
    }
    leader!(Leader64, u8, narrow_in, narrow_out);
    leader!(Leader512, u64, wide_in, wide_out);
    follower!(Follower64, u8, narrow_in, narrow_out);
    follower!(Follower512, u64, wide_in, wide_out);
}
