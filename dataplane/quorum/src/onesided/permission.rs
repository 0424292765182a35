//! Who may write here: whoever has asked last.
//!
//! A request is a word in the asker's mailbox; the answer is in our beacon, which the asker reads. The change of permission is a
//! fence, and only then the answer is stored.

use dataplane_waist::{Instant, StateMachine};

use super::{
    config::Mutation,
    layout::{self, PERMISSION_AT, WORD_BYTES},
    replica::{Planes, Replica},
};

impl<S: StateMachine> Replica<S> {
    /// Grants one request, of the lowest number that has a new one: two that ask at once get it one after the other.
    pub(super) fn look_at_requests(&mut self, now: Instant, planes: &mut Planes<'_>) {
        for index in 0..self.others.len() {
            let other = &self.others[index];
            let mut word = [0; WORD_BYTES];
            let at = layout::mailbox_at(other.node) + PERMISSION_AT;
            planes.background.load(at, &mut word);
            let number = layout::parse_word(&word);
            if number <= other.granted_number {
                continue;
            }
            let (node, peer) = (other.node, other.peer);
            let granted = match self.config.makes(Mutation::PermissionKept) {
                true => planes.replication.open(),
                false => planes.replication.grant(Some(peer)),
            };
            if granted.is_err() {
                return;
            }
            self.others[index].granted_number = number;
            self.granted = Some((node, number));
            self.counters.grants_count += 1;
            self.step_down(now);
            return;
        }
    }

    /// Takes our own memory for ourselves.
    pub(super) fn grant_ourselves(&mut self, number: u64, planes: &mut Planes<'_>) -> bool {
        let granted = match self.config.makes(Mutation::PermissionKept) {
            true => planes.replication.open(),
            false => planes.replication.grant(None),
        };
        if granted.is_ok() {
            self.granted = Some((self.config.node, number));
        }
        granted.is_ok()
    }
}
