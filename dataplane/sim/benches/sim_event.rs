//! What an event of the simulator costs: a frame that comes, and the turn that it causes.
#![forbid(unsafe_code)]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_sim::{HostOptions, LinkOptions, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};

/// Sends each frame on to the next host; on every millisecond of its own clock, writes and sends a new one.
struct Relay {
    next: Peer,
    wake_at: Instant,
    end: dataplane_waist::Slot,
    keeps: bool,
}

const FRAME_BYTES: usize = 128;
const PERIOD: Duration = Duration::from_millis(1);

impl Protocol for Relay {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { bytes, .. } => {
                if self.keeps {
                    let _ = out.append(self.end, dataplane_waist::Term(1), bytes);
                    self.end.0 += 1;
                }
                let _ = out.send(self.next, bytes.len(), |frame| frame.copy_from_slice(bytes));
            }
            Input::Tick => {
                self.wake_at = now + PERIOD;
                let _ = out.send(self.next, FRAME_BYTES, |frame| frame.fill(7));
            }
            Input::Durable(_) => (),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        Some(self.wake_at)
    }
}

fn ring(hosts_count: u32, keeps: bool) -> Sim<Relay> {
    let hosts = vec![HostOptions::default(); hosts_count as usize];
    Sim::new(1, &hosts, LinkOptions::default(), move |boot| {
        Ok(Relay {
            next: Peer((boot.host.0 + 1) % hosts_count),
            wake_at: boot.now,
            end: dataplane_waist::Slot(0),
            keeps,
        })
    })
}

fn sim_event(c: &mut Criterion) {
    let mut group = c.benchmark_group("sim_event");
    group.sample_size(20);
    group.bench_function("new_7_hosts", |b| b.iter(|| ring(black_box(7), false).now()));
    for (name, keeps) in [("relay", false), ("relay_and_log", true)] {
        let end = SimTime::from_ms(20);
        let mut counted = ring(7, keeps);
        counted.run_until(end);
        group.throughput(Throughput::Elements(counted.events_count()));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || ring(7, keeps),
                |sim| {
                    sim.run_until(black_box(end));
                    sim.hash()
                },
                BatchSize::LargeInput,
            )
        });
    }
    group.finish();
}

criterion_group!(benches, sim_event);
criterion_main!(benches);
