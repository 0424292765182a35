//! `axis_skid`.

/// See the module. `W` is a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skid<W> {
    out: Option<W>,
    waiting: Option<W>,
}

impl<W: Copy> Skid<W> {
    /// Empty.
    pub const fn new() -> Skid<W> {
        Skid {
            out: None,
            waiting: None,
        }
    }

    /// A word is taken in this cycle.
    pub const fn is_ready(&self) -> bool {
        self.waiting.is_none()
    }

    /// What it shows.
    pub const fn shows(&self) -> Option<W> {
        self.out
    }

    /// The next edge: what it is shown, and whether what it shows is taken.
    pub fn clock(&mut self, word: Option<W>, taken: bool) {
        let word = word.filter(|_| self.is_ready());
        if self.out.is_none() || taken {
            self.out = self.waiting.take().or(word);
        } else if word.is_some() {
            self.waiting = word;
        }
    }
}
