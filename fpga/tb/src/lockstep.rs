//! Two nodes that must be one: both take the same edges, and whoever shows something else is told at once.

use fpga_model::node::{Inputs, Node, Outputs};

/// The RTL and its model.
pub struct Lockstep<A, B> {
    /// The one whose outputs count.
    pub rtl: A,
    /// The other one.
    pub model: B,
    cycle: u64,
    /// Since the last edge.
    shown: Outputs,
}

impl<A: Node, B: Node> Lockstep<A, B> {
    /// Both at their beginning.
    pub fn new(rtl: A, model: B) -> Lockstep<A, B> {
        let shown = rtl.outputs();
        Lockstep {
            rtl,
            model,
            cycle: 0,
            shown,
        }
    }
}

impl<A: Node, B: Node> Node for Lockstep<A, B> {
    fn outputs(&self) -> Outputs {
        self.shown
    }

    /// # Panics
    /// If they differ after the edge. Before the end of the reset nothing is compared: registers hold anything.
    fn clock(&mut self, inputs: &Inputs) {
        self.rtl.clock(inputs);
        self.model.clock(inputs);
        self.cycle += 1;
        self.shown = self.rtl.outputs();
        if inputs.rst {
            return;
        }
        let (rtl, model) = (&self.shown, self.model.outputs());
        assert!(
            *rtl == model,
            "cycle {}: the RTL shows\n{rtl:x?}\nand the model\n{model:x?}",
            self.cycle
        );
    }
}
