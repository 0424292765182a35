//! Timers of flows: a hierarchical timing wheel (Varghese and Lauck, SOSP'87, scheme 7) with lazy re-arming.
//!
//! A retransmission timer is moved with every acknowledgement and hardly ever fires. Moving it later costs one store: the
//! entry stays where it is, is looked at when its old time comes, and then goes where the timer is due by now. Only a
//! move to an earlier time touches the wheel. A flow without a running timer has no entry, so idle flows cost nothing.
//!
//! Eight levels of 64 slots; the finest slot is 2^16 ps (65.5 ns), so that the levels together cover all 64 bits of
//! time. Timers fire at their exact picosecond: a slot that is due is sorted first.

const LEVELS_COUNT: usize = 8;
const SLOT_BITS: u32 = 6;
const SLOTS_COUNT: usize = 1 << SLOT_BITS;
const TICK_SHIFT: u32 = 64 - SLOT_BITS * LEVELS_COUNT as u32;
const NONE: u32 = u32::MAX;
/// Not in the wheel.
const NOWHERE: u16 = u16::MAX;
/// Among the timers that are due in this tick.
const IN_DUE: u16 = u16::MAX - 1;
const NEVER: u64 = u64::MAX;

/// A timer. Its number is its place in the list; 32 bytes.
#[derive(Clone, Copy, Debug)]
struct Timer {
    /// When it is to fire; [`NEVER`] if it does not run.
    due_ps: u64,
    /// When its entry is looked at; never later than `due_ps`.
    entry_ps: u64,
    next: u32,
    previous: u32,
    /// Who is told.
    host: u32,
    /// The entry's level and slot.
    place: u16,
}

const IDLE: Timer = Timer {
    due_ps: NEVER,
    entry_ps: NEVER,
    next: NONE,
    previous: NONE,
    host: 0,
    place: NOWHERE,
};

/// A timer that fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fired {
    pub at_ps: u64,
    pub timer: u32,
    pub host: u32,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    timers: Vec<Timer>,
    heads: Vec<u32>,
    occupied: [u64; LEVELS_COUNT],
    /// The tick up to which slots are emptied.
    elapsed: u64,
    /// Timers of the ticks up to `elapsed`, backwards: the last is the next.
    due: Vec<(u64, u32)>,
    /// No timer fires before.
    next_ps: u64,
}

impl Wheel {
    pub fn new() -> Wheel {
        Wheel {
            timers: Vec::new(),
            heads: vec![NONE; LEVELS_COUNT * SLOTS_COUNT],
            occupied: [0; LEVELS_COUNT],
            elapsed: 0,
            due: Vec::new(),
            next_ps: NEVER,
        }
    }

    /// Bytes that a wheel with so many timers takes.
    pub const fn memory_bytes(timers_count: usize) -> usize {
        timers_count * size_of::<Timer>() + LEVELS_COUNT * SLOTS_COUNT * size_of::<u32>()
    }

    /// A time before which nothing is due.
    #[inline]
    pub fn next_ps(&self) -> u64 {
        self.next_ps
    }

    /// Starts or moves a timer. A time that has passed is now.
    #[inline]
    pub fn set(&mut self, timer: u32, host: u32, at_ps: u64) {
        if timer as usize >= self.timers.len() {
            self.timers.resize(timer as usize + 1, IDLE);
        }
        let state = &mut self.timers[timer as usize];
        state.due_ps = at_ps;
        state.host = host;
        if at_ps >= state.entry_ps {
            return;
        }
        if at_ps != NEVER {
            self.unlink(timer);
            self.link(timer, at_ps);
        }
    }

    /// Stops a timer, if it runs.
    #[inline]
    pub fn cancel(&mut self, timer: u32) {
        if let Some(state) = self.timers.get_mut(timer as usize) {
            state.due_ps = NEVER;
        }
    }

    /// Does the next piece of work, which is at [`Wheel::next_ps`]: a timer that fires, or else an entry or slot that
    /// had to be looked at.
    pub fn step(&mut self) -> Option<Fired> {
        let Some((at_ps, timer)) = self.due.pop() else {
            self.advance();
            return None;
        };
        let state = &mut self.timers[timer as usize];
        let mut fired = None;
        // Otherwise the timer has been moved to an earlier time, and another entry stands for it.
        if state.place == IN_DUE && state.entry_ps == at_ps {
            state.place = NOWHERE;
            state.entry_ps = NEVER;
            let (due_ps, host) = (state.due_ps, state.host);
            if due_ps <= at_ps {
                state.due_ps = NEVER;
                fired = Some(Fired { at_ps, timer, host });
            } else if due_ps != NEVER {
                self.link(timer, due_ps);
            }
        }
        self.find_next();
        fired
    }

    /// Empties the next slot: into `due`, or into the finer slots below it.
    fn advance(&mut self) {
        let Some((level, slot, begin)) = self.next_slot() else {
            self.next_ps = NEVER;
            return;
        };
        self.elapsed = begin;
        let place = level * SLOTS_COUNT + slot;
        let mut timer = std::mem::replace(&mut self.heads[place], NONE);
        self.occupied[level] &= !(1 << slot);
        while timer != NONE {
            let state = &mut self.timers[timer as usize];
            let next = state.next;
            let at_ps = state.due_ps;
            state.place = NOWHERE;
            state.entry_ps = NEVER;
            if at_ps != NEVER {
                self.link(timer, at_ps);
            }
            timer = next;
        }
        self.find_next();
    }

    fn find_next(&mut self) {
        self.next_ps = match self.due.last() {
            Some(&(at_ps, _)) => at_ps,
            None => self.next_slot().map_or(NEVER, |(_, _, begin)| begin << TICK_SHIFT),
        };
    }

    /// The next slot that holds something, and its first tick. What lies on a finer level is always earlier: it shares
    /// the higher digits of its time with `elapsed`.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS_COUNT {
            let shift = level as u32 * SLOT_BITS;
            let digit = (self.elapsed >> shift) as usize % SLOTS_COUNT;
            let ahead = self.occupied[level] >> digit << digit;
            if ahead != 0 {
                let slot = ahead.trailing_zeros() as usize;
                let higher = self.elapsed >> shift >> SLOT_BITS << SLOT_BITS;
                return Some((level, slot, (higher | slot as u64) << shift));
            }
        }
        None
    }

    /// Puts an entry where `at_ps` belongs.
    fn link(&mut self, timer: u32, at_ps: u64) {
        let tick = at_ps >> TICK_SHIFT;
        self.timers[timer as usize].entry_ps = at_ps;
        if tick <= self.elapsed {
            self.timers[timer as usize].place = IN_DUE;
            let mut index = self.due.len();
            while index > 0 && self.due[index - 1] < (at_ps, timer) {
                index -= 1;
            }
            self.due.insert(index, (at_ps, timer));
            self.next_ps = self.next_ps.min(at_ps);
            return;
        }
        let level = (63 - (tick ^ self.elapsed).leading_zeros()) / SLOT_BITS;
        let digits = tick >> (level * SLOT_BITS);
        let slot = digits as usize % SLOTS_COUNT;
        let place = level as usize * SLOTS_COUNT + slot;
        let next = std::mem::replace(&mut self.heads[place], timer);
        self.occupied[level as usize] |= 1 << slot;
        if next != NONE {
            self.timers[next as usize].previous = timer;
        }
        let state = &mut self.timers[timer as usize];
        state.place = place as u16;
        state.next = next;
        state.previous = NONE;
        self.next_ps = self.next_ps.min(digits << (level * SLOT_BITS) << TICK_SHIFT);
    }

    /// Takes an entry out of its slot. One among those that are due stays, and is known by its time.
    fn unlink(&mut self, timer: u32) {
        let Timer {
            next, previous, place, ..
        } = self.timers[timer as usize];
        if place == NOWHERE || place == IN_DUE {
            return;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if previous != NONE {
            self.timers[previous as usize].next = next;
        } else {
            let place = usize::from(place);
            self.heads[place] = next;
            if next == NONE {
                self.occupied[place / SLOTS_COUNT] &= !(1 << (place % SLOTS_COUNT));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span_ps() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..3u64,
            0..200_000u64,
            0..50_000_000u64,
            0..300_000_000_000u64,
            0..90_000_000_000_000u64
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Cancel(u32),
        Run(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..12, span_ps()).prop_map(|(timer, span)| Step::Set(timer, span)),
            1 => (0u32..12).prop_map(Step::Cancel),
            2 => span_ps().prop_map(Step::Run),
        ]
    }

    /// What fires up to a time, by the wheel.
    fn run(wheel: &mut Wheel, until_ps: u64) -> Vec<(u64, u32)> {
        let mut fired = Vec::new();
        while wheel.next_ps() <= until_ps {
            fired.extend(wheel.step().map(|fired| (fired.at_ps, fired.timer)));
        }
        fired
    }

    proptest! {
        /// Set, moved either way and stopped, timers fire exactly when a plain list of them says.
        #[test]
        fn the_wheel_agrees_with_a_list(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Wheel::new();
            let mut plain = [NEVER; 12];
            let mut now_ps = 0;
            for step in steps.into_iter().chain([Step::Run(1 << 60)]) {
                match step {
                    Step::Set(timer, span_ps) => {
                        wheel.set(timer, 7, now_ps + span_ps);
                        plain[timer as usize] = now_ps + span_ps;
                    }
                    Step::Cancel(timer) => {
                        wheel.cancel(timer);
                        plain[timer as usize] = NEVER;
                    }
                    Step::Run(span_ps) => {
                        now_ps += span_ps;
                        let mut expected = Vec::new();
                        for (timer, due_ps) in plain.iter_mut().enumerate().filter(|(_, due_ps)| **due_ps <= now_ps) {
                            expected.push((*due_ps, timer as u32));
                            *due_ps = NEVER;
                        }
                        expected.sort();
                        prop_assert_eq!(run(&mut wheel, now_ps), expected);
                    }
                }
            }
            prop_assert_eq!(wheel.next_ps(), NEVER);
        }
    }

    /// Moved to and fro a million times, a timer has one entry.
    #[test]
    fn a_timer_that_moves_leaves_nothing_behind() {
        let mut wheel = Wheel::new();
        for step in 0..1_000_000u64 {
            let now_ps = step * 10_000_000;
            run(&mut wheel, now_ps);
            wheel.set(3, 0, now_ps + if step % 2 == 0 { 200_000_000_000 } else { 5_000_000 });
        }
        assert!(wheel.due.len() <= 1, "{} entries", wheel.due.len());
    }
}
