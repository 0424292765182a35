//! Where the clients of sessions are, as this replica last heard from them. No part of the replicated state: each replica knows
//! whom it has heard itself.

use dataplane_waist::Peer;

/// By a session's place in the table of sessions: its number, and who asked in its name.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    /// Grows to the table's length as it is used. No session has the number 0.
    places: Vec<(u64, Peer)>,
}

impl Askers {
    /// `peer` asked in the name of `session`, which stands at `place`.
    pub(crate) fn note(&mut self, place: usize, session: u64, peer: Peer) {
        if self.places.len() <= place {
            self.places.resize(place + 1, (0, Peer(0)));
        }
        self.places[place] = (session, peer);
    }

    /// Who asked last in the name of `session`, which stands at `place`.
    pub(crate) fn find(&self, place: usize, session: u64) -> Option<Peer> {
        let noted = self.places.get(place).filter(|(id, _)| *id == session && session != 0);
        noted.map(|&(_, peer)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_last_is_found_until_another_session_has_the_place() {
        let mut askers = Askers::default();
        assert_eq!(askers.find(3, 11), None);
        askers.note(3, 11, Peer(5));
        askers.note(3, 11, Peer(6));
        assert_eq!((askers.find(3, 11), askers.find(0, 0)), (Some(Peer(6)), None));
        askers.note(3, 15, Peer(7));
        assert_eq!((askers.find(3, 11), askers.find(3, 15)), (None, Some(Peer(7))));
    }
}
