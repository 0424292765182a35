//! The switch with frames in vectors, on a clock of the test's own.

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, Sharing, SimTime, TrimmingOptions};
use dataplane_softswitch::{Due, Faults, Headers, HostLink, Memory, Refused, Switch, SwitchOptions, What};
use proptest::prelude::*;

/// Counts what it gave and what came back.
#[derive(Default)]
struct Heap {
    copies_left_count: usize,
    given_back_count: u64,
    copied_count: u64,
}

impl Memory for Heap {
    type Frame = Vec<u8>;

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Vec<u8>) -> &'a mut [u8] {
        frame
    }

    fn copy(&mut self, frame: &Vec<u8>) -> Option<Vec<u8>> {
        self.copies_left_count = self.copies_left_count.checked_sub(1)?;
        self.copied_count += 1;
        Some(frame.clone())
    }

    fn shorten(&mut self, frame: &mut Vec<u8>, len_bytes: usize) {
        frame.truncate(len_bytes);
    }

    fn give_back(&mut self, _: Vec<u8>) {
        self.given_back_count += 1;
    }
}

const MBIT: u64 = 1_000_000;
/// 100 Mbit/s: a byte takes 80 ns.
const BYTE: SimTime = SimTime::from_ns(80);

/// A UDP datagram over IPv4 from host to host, whose sender reacts to marks. `len_bytes` with the Ethernet header.
fn frame(from: u8, to: u8, len_bytes: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![0; len_bytes];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[15] = 0b10;
    frame[16..18].copy_from_slice(&((len_bytes - 14) as u16).to_be_bytes());
    frame[23] = 17;
    frame[26..34].copy_from_slice(&[10, 203, 0, from, 10, 203, 0, to]);
    frame[38..40].copy_from_slice(&((len_bytes - 34) as u16).to_be_bytes());
    frame[42..46].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]])
}

/// A link of 100 Mbit/s with a delay of 10 µs each way.
fn link(limit: Limit, marking: Marking) -> HostLink {
    HostLink {
        discipline: Discipline::DropTail(DropTailOptions { limit, marking }),
        ..HostLink::new(100 * MBIT, SimTime::from_us(10), limit)
    }
}

fn switch(options: &SwitchOptions) -> Switch<Vec<u8>> {
    Switch::new(options).expect("options that a switch can have")
}

/// Everybody is known: each host has sent a frame to itself.
fn introduce(switch: &mut Switch<Vec<u8>>, hosts_count: u8, memory: &mut Heap) {
    for host in 0..hosts_count {
        switch.receive(SimTime::ZERO, usize::from(host), frame(host, host, 60, 0), memory);
    }
}

/// All that arrives until `until`.
fn run(switch: &mut Switch<Vec<u8>>, until: SimTime, memory: &mut Heap) -> Vec<Due<Vec<u8>>> {
    let mut due = Vec::new();
    switch.advance(until, memory);
    while let Some(next) = switch.next_due(until) {
        due.push(next);
    }
    due
}

/// A host that was introduced gets its frames alone, before it has sent any; maxima of bursts and queues begin anew when they are forgotten.
#[test]
fn who_is_introduced_is_found_and_bursts_are_measured_until_they_are_forgotten() {
    let mut memory = Heap::default();
    let mut switch = switch(&SwitchOptions::new(3, link(Limit::NONE, Marking::Never), 1));
    switch.introduce(dataplane_wire::ethernet::Mac([2, 0, 0, 0, 0, 2]), 2);
    for number in 0..80 {
        for host in [0, 1] {
            switch.receive(
                SimTime::ZERO,
                usize::from(host),
                frame(host, 2, 1514, number),
                &mut memory,
            );
        }
    }
    let arrived = run(&mut switch, SimTime::from_ms(100), &mut memory);
    assert_eq!(arrived.len(), 160);
    assert!(arrived.iter().all(|due| due.port == 2));
    let ports = switch.account().ports;
    // Eighty frames at once, of eight for which there is time; and two links into one.
    assert_eq!(ports[0].sent_burst_ratio, 10.0);
    assert!((1.9..2.1).contains(&ports[2].overrun_ratio), "{ports:?}");
    switch.forget_maxima();
    let ports = switch.account().ports;
    assert_eq!((ports[0].sent_burst_ratio, ports[2].overrun_ratio), (0.0, 0.0));
    assert_eq!((ports[2].queue_bytes_max, ports[2].sent_count), (0, 160));
}

/// Two hops: serialised by the card, then again by the port; what follows finds the wires busy.
#[test]
fn frames_arrive_when_the_wires_have_carried_their_bytes() {
    let mut memory = Heap::default();
    let mut switch = switch(&SwitchOptions::new(2, link(Limit::NONE, Marking::Never), 1));
    introduce(&mut switch, 2, &mut memory);
    let start = SimTime::from_ms(1);
    for number in 0..1000 {
        switch.receive(start, 0, frame(0, 1, 1514, number), &mut memory);
    }
    let arrived = run(&mut switch, SimTime::from_ms(1000), &mut memory);
    let frame_ps = BYTE.as_ps() * (1514 + 24);
    let delays_ps = 2 * SimTime::from_us(10).as_ps();
    assert_eq!(arrived.len(), 1000);
    for (index, due) in arrived.iter().enumerate() {
        assert_eq!(number_of(&due.frame) as usize, index);
        assert_eq!(due.port, 1);
        let expected_ps = start.as_ps() + delays_ps + (index as u64 + 2) * frame_ps;
        assert_eq!(due.due_at.as_ps(), expected_ps, "frame {index}");
    }
    assert_eq!(switch.account().unexplained_count(), 0);
    // Nothing ever waits at the port: the card is as slow.
    assert_eq!(switch.account().ports[1].queue_frames_max, 1);
}

/// What a host's link had nothing to carry is counted between its frames, and neither before the first nor after the last.
#[test]
fn a_hosts_link_is_idle_between_its_frames() {
    let mut memory = Heap::default();
    let mut switch = switch(&SwitchOptions::new(2, link(Limit::NONE, Marking::Never), 1));
    for (at, count) in [(SimTime::from_ms(1), 10), (SimTime::from_ms(50), 5)] {
        for number in 0..count {
            switch.receive(at, 0, frame(0, 1, 1514, number), &mut memory);
        }
    }
    run(&mut switch, SimTime::from_ms(1000), &mut memory);
    let busy_ps = 10 * BYTE.as_ps() * (1514 + 24);
    let ports = switch.account().ports;
    assert_eq!(ports[0].idle.as_ps(), SimTime::from_ms(49).as_ps() - busy_ps);
    assert_eq!(ports[1].idle, SimTime::ZERO, "it never sent");
}

#[test]
fn two_senders_fill_the_queue_to_its_bound_and_the_rest_is_counted() {
    let mut memory = Heap::default();
    let limit = Limit::Packets(20);
    let mut switch = switch(&SwitchOptions::new(3, link(limit, Marking::Never), 1));
    introduce(&mut switch, 3, &mut memory);
    let start = SimTime::from_ms(1);
    for number in 0..100 {
        for host in [0, 1] {
            switch.receive(start, usize::from(host), frame(host, 2, 1514, number), &mut memory);
        }
    }
    let arrived = run(&mut switch, SimTime::from_ms(1000), &mut memory);
    let account = switch.account();
    assert_eq!(account.unexplained_count(), 0);
    assert_eq!(account.held_count, 0);
    let to = account.ports[2];
    // A pair comes, one of it leaves: the twentieth pair finds 19 waiting, so that one of it and of each later pair is lost.
    assert_eq!((to.queue_frames_max, to.drops.queue_full_count), (20, 81));
    assert_eq!(arrived.len(), 119);
    assert_eq!(memory.given_back_count, 81 + 3, "and three to themselves");
}

#[test]
fn marks_in_the_frames_are_the_marks_that_were_counted() {
    let mut memory = Heap::default();
    let marking = Marking::AtEnqueue(Limit::Packets(5));
    let mut options = SwitchOptions::new(3, link(Limit::Packets(50), marking), 1);
    options.log_events_max = 10_000;
    let mut switch = switch(&options);
    introduce(&mut switch, 3, &mut memory);
    for number in 0..60 {
        for host in [0, 1] {
            switch.receive(
                SimTime::from_ms(1),
                usize::from(host),
                frame(host, 2, 1514, number),
                &mut memory,
            );
        }
    }
    let arrived = run(&mut switch, SimTime::from_ms(1000), &mut memory);
    let is_marked = |due: &&Due<Vec<u8>>| due.frame[15] & 0b11 == 0b11;
    let marked_count = arrived.iter().filter(is_marked).count() as u64;
    assert!(marked_count > 20, "{marked_count}");
    assert_eq!(switch.account().ports[2].marked_count, marked_count);
    let logged = switch.log().events().iter();
    assert_eq!(
        logged.filter(|event| event.what == What::Marked).count() as u64,
        marked_count
    );
    assert_eq!(switch.log().missed_count(), 0);
}

#[test]
fn what_does_not_fit_is_cut_to_its_headers_and_overtakes() {
    let mut memory = Heap::default();
    let trimming = Discipline::Trimming(TrimmingOptions {
        data: Limit::Packets(8),
        headers: Limit::Packets(100),
        headers_per_data: 10,
    });
    let link = HostLink {
        discipline: trimming,
        ..HostLink::new(100 * MBIT, SimTime::from_us(10), Limit::NONE)
    };
    let mut switch = switch(&SwitchOptions::new(3, link, 1));
    introduce(&mut switch, 3, &mut memory);
    for number in 0..50 {
        for host in [0, 1] {
            switch.receive(
                SimTime::from_ms(1),
                usize::from(host),
                frame(host, 2, 1514, number),
                &mut memory,
            );
        }
    }
    let arrived = run(&mut switch, SimTime::from_ms(1000), &mut memory);
    let account = switch.account();
    assert_eq!(arrived.len(), 100, "nothing is lost: {account:?}");
    let cut: Vec<&Due<Vec<u8>>> = arrived.iter().filter(|due| due.frame.len() == 42).collect();
    assert_eq!(cut.len() as u64, account.ports[2].trimmed_count);
    assert!(cut.len() > 20, "{}", cut.len());
    for due in cut {
        assert_eq!(due.frame_bytes, 42);
        assert_eq!(due.frame[38..40], [0, 8], "UDP's length");
    }
}

#[test]
fn a_frame_to_all_is_copied_and_one_to_a_stranger_too() {
    let mut memory = Heap {
        copies_left_count: 4,
        ..Heap::default()
    };
    let mut switch = switch(&SwitchOptions::new(4, link(Limit::NONE, Marking::Never), 1));
    let mut to_all = frame(0, 9, 60, 1);
    to_all[..6].fill(0xff);
    switch.receive(SimTime::ZERO, 0, to_all, &mut memory);
    switch.receive(SimTime::ZERO, 0, frame(0, 3, 60, 2), &mut memory);
    // 0 is known by now, so the answer goes to it alone.
    switch.receive(SimTime::from_ms(1), 3, frame(3, 0, 60, 3), &mut memory);
    switch.receive(SimTime::from_ms(2), 1, frame(1, 9, 60, 4), &mut memory);
    let arrived = run(&mut switch, SimTime::from_ms(10), &mut memory);
    let mut seen: Vec<(u32, usize)> = arrived.iter().map(|due| (number_of(&due.frame), due.port)).collect();
    seen.sort_unstable();
    let account = switch.account();
    // The last flood has no memory for two of its three.
    assert_eq!(seen, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 0), (4, 3)]);
    assert_eq!(account.ports[1].drops.no_memory_count, 2);
    assert_eq!(account.unexplained_count(), 0);
}

#[test]
fn what_cannot_be_a_link_is_refused_with_its_port() {
    let good = SwitchOptions::new(2, link(Limit::NONE, Marking::Never), 1);
    let refusal = |change: fn(&mut SwitchOptions)| {
        let mut options = good.clone();
        change(&mut options);
        Switch::<Vec<u8>>::new(&options).map(drop).expect_err("refused")
    };
    assert_eq!(
        refusal(|options| options.links.truncate(1)),
        Refused::Hosts { count: 1 }
    );
    let no_rate = refusal(|options| options.links[1].bits_per_sec = 0);
    assert_eq!(no_rate, Refused::NoRate { port: 1 });
    assert!(no_rate.to_string().contains("rate of 0"), "{no_rate}");
    let ratio = refusal(|options| options.links[0].faults.loss_ratio = f64::NAN);
    assert!(
        matches!(
            ratio,
            Refused::Ratio {
                port: 0,
                option: "loss_ratio",
                ..
            }
        ),
        "{ratio:?}"
    );
}

#[test]
fn a_card_holds_no_more_than_it_has_room_for() {
    let mut memory = Heap::default();
    let link = HostLink {
        card: Limit::Bytes(15_140),
        ..link(Limit::NONE, Marking::Never)
    };
    let mut switch = switch(&SwitchOptions::new(2, link, 1));
    introduce(&mut switch, 2, &mut memory);
    for number in 0..30 {
        switch.receive(SimTime::from_ms(1), 0, frame(0, 1, 1514, number), &mut memory);
    }
    let arrived = run(&mut switch, SimTime::from_ms(100), &mut memory);
    // Ten wait, and one is on the wire.
    assert_eq!(switch.account().ports[0].drops.card_full_count, 19);
    assert_eq!(arrived.len(), 11);
}

/// What a host does, in the property below.
#[derive(Clone, Debug)]
struct Sends {
    after_ns: u64,
    from: u8,
    to: u8,
    len_bytes: usize,
}

fn sends(hosts_count: u8) -> impl Strategy<Value = Sends> {
    // Sometimes to nobody, sometimes no frame at all.
    (0..200_000_u64, 0..hosts_count, 0..hosts_count + 1, 46..1515_usize).prop_map(|(after_ns, from, to, len_bytes)| {
        Sends {
            after_ns,
            from,
            to,
            len_bytes,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_frame_is_somewhere_queues_keep_their_bound_and_time_goes_on(
        sent in prop::collection::vec(sends(5), 1..400), limit_bytes in 1_500_u64..20_000, loss_ratio in 0.0..0.5_f64,
        late_ratio in 0.0..0.5_f64, copies_left_count in 0..100_usize, shares: bool, seed: u64,
    ) {
        let mut link = link(Limit::Bytes(limit_bytes), Marking::AtDequeue(Limit::Bytes(limit_bytes / 2)));
        link.faults = Faults { loss_ratio, late_ratio, late_by: SimTime::from_us(300) };
        let mut options = SwitchOptions::new(5, link, seed);
        if shares {
            options.sharing = Sharing::Dynamic { memory_bytes: 2 * limit_bytes, alpha: 1.0 };
        }
        let go = || {
            let mut memory = Heap { copies_left_count, ..Heap::default() };
            let mut switch = switch(&options);
            let mut now = SimTime::ZERO;
            let mut arrived = Vec::new();
            for (number, Sends { after_ns, from, to, len_bytes }) in sent.iter().enumerate() {
                now += SimTime::from_ns(*after_ns);
                let frame = frame(*from, *to, *len_bytes, number as u32);
                switch.receive(now, usize::from(*from), frame, &mut memory);
                arrived.extend(run(&mut switch, now, &mut memory));
                assert_eq!(switch.account().unexplained_count(), 0, "{:?}", switch.account());
            }
            let end = now + SimTime::from_ms(10_000);
            arrived.extend(run(&mut switch, end, &mut memory));
            (arrived, switch.account(), switch.next_at(), memory)
        };
        let (arrived, account, next_at, memory) = go();
        prop_assert_eq!(next_at, None);
        prop_assert_eq!(account.held_count, 0);
        prop_assert_eq!(account.unexplained_count(), 0);
        // By the switch's own books and by those of whoever has the memory.
        let in_count = sent.len() as u64 + memory.copied_count;
        prop_assert_eq!(in_count, arrived.len() as u64 + memory.given_back_count);
        prop_assert!(arrived.is_sorted_by_key(|due| due.due_at));
        for port in &account.ports {
            prop_assert!(port.queue_bytes_max <= limit_bytes, "{} > {}", port.queue_bytes_max, limit_bytes);
        }
        prop_assert!(arrived.iter().all(|due| Headers::read(&due.frame).is_some()));
        let (again, same, ..) = go();
        prop_assert_eq!(arrived, again);
        prop_assert_eq!(account, same);
    }
}
