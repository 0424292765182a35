//! Counts of a switch that goes on: its thread is asked between two turns, and has nothing to allocate for the answer.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use anyhow::Context;
use dataplane_softswitch::{Account, Switch};

use super::{Lateness, memory::Held};

/// A turn takes microseconds.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a switch did until it was asked.
#[derive(Debug)]
pub struct Lap {
    /// Where every frame went since it started; maxima since the last lap.
    pub account: Account,
    /// How punctual it was since the last lap.
    pub lateness: Lateness,
}

/// How the switch's thread is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    is_asked: Arc<AtomicBool>,
    question: Arc<Mutex<Option<Question>>>,
}

#[derive(Debug)]
struct Question {
    /// What the thread records into from now on.
    fresh: Lateness,
    answer: SyncSender<Lap>,
}

impl Counter {
    pub fn ask(&self) -> anyhow::Result<Lap> {
        let (answer, answers): (SyncSender<Lap>, Receiver<Lap>) = sync_channel(1);
        let fresh = Lateness::new();
        *self.question.lock().unwrap_or_else(PoisonError::into_inner) = Some(Question { fresh, answer });
        self.is_asked.store(true, Ordering::Release);
        answers
            .recv_timeout(ANSWER_WAIT_MAX)
            .context("the switch's thread did not say what it counted: it has stopped, or gets no CPU")
    }

    #[inline]
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// On the switch's thread.
    #[cold]
    pub fn answer(&self, switch: &mut Switch<Held>, lateness: &mut Lateness) {
        // With Acquire, what was written before the flag is seen.
        if !self.is_asked.swap(false, Ordering::Acquire) {
            return;
        }
        let question = self.question.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Question { fresh, answer }) = question else {
            return;
        };
        let lap = Lap {
            account: switch.account(),
            lateness: mem::replace(lateness, fresh),
        };
        switch.forget_maxima();
        // Who has given up waiting needs no answer.
        let _ = answer.try_send(lap);
    }
}
