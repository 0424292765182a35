//! What every provider must do, case by case; each begins with two fresh devices and a connection.

use rdma::{Faults, PathMtu, QpOptions};

use crate::{
    failures, messages,
    pair::{Pair, Testable},
    taken_back, windows,
};

/// What a case does with a fresh pair.
type Run<P> = dyn Fn(&mut Pair<P>);

/// How many ends must be software whose packets fail on command, and are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// None: any device will do.
    Any,
    /// One: what it sends is lost, repeated or late.
    OneEnd,
    /// Both.
    BothEnds,
}

/// One case.
pub struct Case<P> {
    pub name: String,
    pub options: QpOptions,
    pub faults: Faults,
    /// What of the pair must be this crate's own.
    pub needs: Needs,
    pub run: Box<Run<P>>,
}

impl<P> Case<P> {
    pub fn new(name: impl Into<String>, options: QpOptions, run: impl Fn(&mut Pair<P>) + 'static) -> Case<P> {
        Case {
            name: name.into(),
            options,
            faults: Faults::default(),
            needs: Needs::Any,
            run: Box::new(run),
        }
    }

    pub fn with(self, faults: Faults) -> Case<P> {
        Case {
            faults,
            needs: self.needs.max(Needs::OneEnd),
            ..self
        }
    }

    pub fn in_software(self) -> Case<P> {
        Case {
            needs: Needs::BothEnds,
            ..self
        }
    }
}

/// All cases, with what `options` say of time.
pub fn all<P: Testable + 'static>(options: QpOptions) -> Vec<Case<P>> {
    let mut cases = Vec::new();
    sizes(options, &mut cases);
    mtus(options, &mut cases);
    cases.extend(messages::cases(options));
    faults(options, &mut cases);
    cases.extend(failures::cases(options));
    cases.extend(windows::cases(options));
    cases.extend(taken_back::cases(options));
    cases
}

/// Every operation that moves a message, at every length around the MTU.
fn sizes<P: Testable + 'static>(options: QpOptions, cases: &mut Vec<Case<P>>) {
    let mtu = options.path_mtu.bytes();
    for what in messages::MOVES {
        for len in [0, 1, 3, mtu - 1, mtu, mtu + 1, 3 * mtu + 5, 1 << 16, 1 << 20] {
            cases.push(Case::new(format!("{what:?} of {len} bytes"), options, move |pair| {
                messages::moves(pair, what, len);
            }));
        }
    }
}

fn mtus<P: Testable + 'static>(options: QpOptions, cases: &mut Vec<Case<P>>) {
    for path_mtu in PathMtu::ALL {
        let options = QpOptions { path_mtu, ..options };
        cases.push(Case::new(format!("everything by {path_mtu:?}"), options, |pair| {
            messages::everything(pair, 1);
        }));
    }
}

fn faults<P: Testable + 'static>(options: QpOptions, cases: &mut Vec<Case<P>>) {
    let mut push = |name: String, faults: Faults| {
        cases.push(Case::new(name, options, |pair| messages::everything(pair, 4)).with(faults));
    };
    for lose_every in [3, 4, 5, 7, 17, 50] {
        let faults = Faults {
            lose_every,
            ..Faults::default()
        };
        push(format!("every {lose_every}th packet lost"), faults);
    }
    for repeat_every in [1, 2, 5] {
        let faults = Faults {
            repeat_every,
            ..Faults::default()
        };
        push(format!("every {repeat_every}th packet twice"), faults);
    }
    for delay_every in [3, 8] {
        let faults = Faults {
            delay_every,
            ..Faults::default()
        };
        push(format!("every {delay_every}th packet late"), faults);
    }
    for seed in 1..=4 {
        let faults = Faults {
            lose_every: 20,
            repeat_every: 10,
            delay_every: 10,
            seed,
            ..Faults::default()
        };
        push(format!("lost, twice and late by seed {seed}"), faults);
    }
}
