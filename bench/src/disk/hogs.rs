//! CPU hogs: a thread on each CPU that never rests, at the ordinary priority. They are what a disk's completion has to find
//! a CPU beside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::load::thread as load_thread;

/// Hogs, until this is dropped.
#[derive(Debug)]
pub struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Starts one on each CPU that this process may use.
    pub fn start() -> Hogs {
        let mut hogs = Hogs {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let mut cpus: Vec<Option<usize>> = load_thread::usable_cpus().into_iter().map(Some).collect();
        if cpus.is_empty() {
            cpus.push(None);
        }
        for cpu in cpus {
            let stop = hogs.stop.clone();
            hogs.threads.push(thread::spawn(move || {
                if let Some(cpu) = cpu {
                    load_thread::pin(cpu);
                }
                let mut sum = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..10_000 {
                        sum = std::hint::black_box(sum.wrapping_mul(3).wrapping_add(1));
                    }
                }
            }));
        }
        hogs
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for hog in self.threads.drain(..) {
            // A hog has nothing to say, whatever became of it.
            let _ = hog.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_end_with_their_owner() {
        let hogs = Hogs::start();
        assert!(hogs.count() >= 1);
        let stop = Arc::downgrade(&hogs.stop);
        drop(hogs);
        assert!(stop.upgrade().is_none(), "a thread still holds it");
    }
}
