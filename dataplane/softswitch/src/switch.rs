//! The switch: cards, forwarding, ports, in the order of time.

use dataplane_queue::{Discipline, DropTailOptions, Enqueued, Marking, SharedBuffer, Sharing, SimTime};

use dataplane_wire::ethernet::Mac;

use crate::{
    Account, Headers, Memory, PortAccount, QueueEvent, QueueLog, Refused, SwitchOptions, What,
    burst::{Burst, HOST_WINDOW_FRAMES, PORT_WINDOW_FRAMES},
    events::{Events, Place},
    headers::{mark, trim},
    link::{Waiting, Way},
    random::{Chance, Fate},
    stations::Stations,
};

/// A frame that has arrived at its host.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<F> {
    /// Which host.
    pub port: usize,
    /// The frame.
    pub frame: F,
    /// Its bytes.
    pub frame_bytes: usize,
    /// When it should be handed over. Whoever does it later makes the link slower than it claims to be.
    pub due_at: SimTime,
}

/// A switch with a host at each port.
#[derive(Debug)]
pub struct Switch<F> {
    hosts: Vec<Cable>,
    /// Of the hosts' cards, which share nothing.
    unshared: SharedBuffer,
    pool: SharedBuffer,
    stations: Stations,
    /// What happens inside.
    events: Events,
    /// What reaches hosts.
    releases: Events,
    slots: Slots<F>,
    log: QueueLog,
}

/// What lies between a host and the switch.
#[derive(Debug)]
struct Cable {
    up: Way,
    down: Way,
    chance: Chance,
    account: PortAccount,
    /// From the host, beside its own link.
    host_burst: Burst,
    /// To the host.
    port_burst: Burst,
}

impl<F> Switch<F> {
    /// A switch that has heard nobody.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn new(options: &SwitchOptions) -> Result<Switch<F>, Refused> {
        options.check()?;
        let cables = options.links.iter().enumerate().map(|(port, link)| {
            let card = Discipline::DropTail(DropTailOptions {
                limit: link.card,
                marking: Marking::Never,
            });
            let way = |discipline: &Discipline, number: u64| {
                let seed = options.seed.wrapping_add(2 * port as u64 + number);
                Way::new(discipline, link.bits_per_sec, options.overhead_bytes, link.delay, seed)
            };
            Cable {
                up: way(&card, 0),
                down: way(&link.discipline, 1),
                chance: Chance::new(link.faults, options.seed, port),
                account: PortAccount::default(),
                host_burst: Burst::new(HOST_WINDOW_FRAMES, link.bits_per_sec, options.overhead_bytes),
                port_burst: Burst::new(PORT_WINDOW_FRAMES, link.bits_per_sec, options.overhead_bytes),
            }
        });
        Ok(Switch {
            hosts: cables.collect(),
            unshared: SharedBuffer::new(Sharing::Static),
            pool: SharedBuffer::new(options.sharing),
            stations: Stations::default(),
            events: Events::default(),
            releases: Events::default(),
            slots: Slots::default(),
            log: QueueLog::new(options.log_events_max),
        })
    }

    /// Says behind which port a host is that has not sent yet; without it, what is for that host goes to all until it does.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn introduce(&mut self, host: Mac, port: usize) {
        assert!(port < self.hosts.len(), "port {port} of {}", self.hosts.len());
        self.stations.learn(host, port as u32);
    }

    /// The host at `port` sent a frame at `now`, which is never before an earlier call's.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn receive(&mut self, now: SimTime, port: usize, mut frame: F, memory: &mut impl Memory<Frame = F>) {
        self.advance(now, memory);
        let cable = &mut self.hosts[port];
        let bytes = memory.bytes_mut(&mut frame);
        cable.account.received_count += 1;
        cable.account.received_bytes += bytes.len() as u64;
        cable.host_burst.came(now, bytes.len() as u32);
        let Some(headers) = Headers::read(bytes) else {
            cable.account.drops.short_count += 1;
            return memory.give_back(frame);
        };
        let waiting = Waiting {
            frame_bytes: bytes.len() as u32,
            headers,
            slot: self.slots.put(frame),
            is_marked: false,
            is_trimmed: false,
        };
        if let Enqueued::Dropped { packet, .. } = cable.up.enqueue(now, waiting, &mut self.unshared) {
            cable.account.drops.card_full_count += 1;
            return memory.give_back(self.slots.take(packet.slot));
        }
        if !cable.up.is_planned {
            cable.up.is_planned = true;
            self.events.plan(cable.up.free_at(now), Place::Card(port as u32));
        }
    }

    /// Everything that happens until `now`.
    pub fn advance(&mut self, now: SimTime, memory: &mut impl Memory<Frame = F>) {
        while let Some((at, place)) = self.events.next_until(now) {
            match place {
                Place::Card(port) => self.send_up(at, port),
                Place::Arrival(port) => self.forward(at, port, memory),
                Place::Port(port) => self.send_down(at, port, memory),
            }
        }
    }

    /// The next frame that its host has by `now`; in the order of time.
    pub fn next_due(&mut self, now: SimTime) -> Option<Due<F>> {
        while let Some((at, place)) = self.releases.next_until(now) {
            let (Place::Card(port) | Place::Arrival(port) | Place::Port(port)) = place;
            let cable = &mut self.hosts[port as usize];
            // A frame that overtook another planned its own arrival.
            if cable.down.next_arrival() != Some(at) {
                continue;
            }
            let (due_at, waiting) = cable.down.arrived(now)?;
            if let Some(next_at) = cable.down.next_arrival() {
                self.releases.plan(next_at, Place::Port(port));
            }
            cable.account.sent_count += 1;
            cable.account.sent_bytes += u64::from(waiting.frame_bytes);
            return Some(Due {
                port: port as usize,
                frame: self.slots.take(waiting.slot),
                frame_bytes: waiting.frame_bytes as usize,
                due_at,
            });
        }
        None
    }

    /// When something happens next, if nothing comes.
    pub fn next_at(&self) -> Option<SimTime> {
        match (self.events.next_at(), self.releases.next_at()) {
            (Some(inside), Some(outside)) => Some(inside.min(outside)),
            (inside, outside) => inside.or(outside),
        }
    }

    /// Where every frame went.
    pub fn account(&self) -> Account {
        Account {
            ports: self.hosts.iter().map(Cable::account).collect(),
            held_count: self
                .hosts
                .iter()
                .map(|cable| cable.up.held_count() + cable.down.held_count())
                .sum(),
        }
    }

    /// The longest queues and the fastest bursts count from now on; all else counts from the beginning.
    pub fn forget_maxima(&mut self) {
        for cable in &mut self.hosts {
            cable.account.queue_bytes_max = cable.down.waiting_bytes();
            cable.account.queue_frames_max = cable.down.waiting_count() as u32;
            cable.host_burst.forget();
            cable.port_burst.forget();
        }
    }

    /// What happened at the queues to hosts.
    pub fn log(&self) -> &QueueLog {
        &self.log
    }

    /// What waits at the port to a host, in bytes.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn queue_bytes(&self, port: usize) -> u64 {
        self.hosts[port].down.waiting_bytes()
    }

    /// The host's card begins to send.
    fn send_up(&mut self, at: SimTime, port: u32) {
        let Cable { up, account, .. } = &mut self.hosts[port as usize];
        up.is_planned = false;
        let mut never = |_: Waiting, _| unreachable!("a drop-tail queue drops nothing that waits");
        let Some(waiting) = up.dequeue(at, &mut self.unshared, &mut never) else {
            return;
        };
        account.idle += up.idle_until(at);
        let arrives_at = up.depart(at, waiting.frame_bytes);
        if up.carry(arrives_at, waiting) {
            self.events.plan(arrives_at, Place::Arrival(port));
        }
        if up.waiting_count() > 0 {
            up.is_planned = true;
            self.events.plan(up.free_at(at), Place::Card(port));
        }
    }

    /// A frame has come to the switch.
    fn forward(&mut self, at: SimTime, from: u32, memory: &mut impl Memory<Frame = F>) {
        let cable = &mut self.hosts[from as usize];
        let Some((_, waiting)) = cable.up.arrived(at) else {
            return;
        };
        if let Some(next_at) = cable.up.next_arrival() {
            self.events.plan(next_at, Place::Arrival(from));
        }
        self.stations.learn(waiting.headers.src, from);
        match self.stations.port_of(waiting.headers.dst) {
            Some(to) if to == from => {
                cable.account.drops.same_port_count += 1;
                memory.give_back(self.slots.take(waiting.slot));
            }
            Some(to) => self.queue(at, to, waiting, memory),
            None => self.flood(at, from, waiting, memory),
        }
    }

    /// The original goes to the last of them.
    fn flood(&mut self, at: SimTime, from: u32, waiting: Waiting, memory: &mut impl Memory<Frame = F>) {
        let mut others = (0..self.hosts.len() as u32).filter(|port| *port != from);
        // A switch has two ports at least.
        let Some(last) = others.next_back() else { return };
        for to in others {
            let account = &mut self.hosts[from as usize].account;
            account.copied_count += 1;
            match memory.copy(self.slots.get(waiting.slot)) {
                Some(copy) => {
                    let slot = self.slots.put(copy);
                    self.queue(at, to, Waiting { slot, ..waiting }, memory);
                }
                None => account.drops.no_memory_count += 1,
            }
        }
        self.queue(at, last, waiting, memory);
    }

    /// A frame joins the queue to a host.
    fn queue(&mut self, at: SimTime, port: u32, waiting: Waiting, memory: &mut impl Memory<Frame = F>) {
        let Cable {
            down,
            account,
            port_burst,
            ..
        } = &mut self.hosts[port as usize];
        port_burst.came(at, waiting.frame_bytes);
        let what = match down.enqueue(at, waiting, &mut self.pool) {
            Enqueued::Queued => What::Queued,
            Enqueued::Marked => What::Marked,
            Enqueued::Trimmed => What::Trimmed,
            Enqueued::Dropped { packet, why } => {
                account.drops.count(why);
                memory.give_back(self.slots.take(packet.slot));
                What::Dropped(why)
            }
        };
        let (queue_bytes, queue_frames_count) = (down.waiting_bytes(), down.waiting_count() as u32);
        account.queue_bytes_max = account.queue_bytes_max.max(queue_bytes);
        account.queue_frames_max = account.queue_frames_max.max(queue_frames_count);
        self.log.note(|| QueueEvent {
            at,
            port,
            what,
            frame_bytes: waiting.frame_bytes,
            flow_hash: waiting.headers.flow_hash,
            queue_bytes,
            queue_frames_count,
        });
        if !down.is_planned && queue_frames_count > 0 {
            down.is_planned = true;
            self.events.plan(down.free_at(at), Place::Port(port));
        }
    }

    /// The switch's port begins to send to its host.
    fn send_down(&mut self, at: SimTime, port: u32, memory: &mut impl Memory<Frame = F>) {
        let Cable {
            down, account, chance, ..
        } = &mut self.hosts[port as usize];
        down.is_planned = false;
        let (slots, drops) = (&mut self.slots, &mut account.drops);
        let dequeued = down.dequeue(at, &mut self.pool, &mut |lost: Waiting, why| {
            drops.count(why);
            memory.give_back(slots.take(lost.slot));
        });
        let Some(mut waiting) = dequeued else { return };
        if waiting.is_marked {
            account.marked_count += 1;
            mark(memory.bytes_mut(self.slots.get_mut(waiting.slot)));
        }
        if waiting.is_trimmed {
            account.trimmed_count += 1;
            let frame = self.slots.get_mut(waiting.slot);
            if let Some(len_bytes) = trim(memory.bytes_mut(frame)) {
                memory.shorten(frame, len_bytes);
                waiting.frame_bytes = len_bytes as u32;
            }
        }
        self.log.note(|| QueueEvent {
            at,
            port,
            what: What::Sent,
            frame_bytes: waiting.frame_bytes,
            flow_hash: waiting.headers.flow_hash,
            queue_bytes: down.waiting_bytes(),
            queue_frames_count: down.waiting_count() as u32,
        });
        let arrives_at = down.depart(at, waiting.frame_bytes);
        match chance.fate() {
            Fate::Lost => {
                account.drops.lost_count += 1;
                memory.give_back(self.slots.take(waiting.slot));
            }
            Fate::Arrives { late_by } => {
                account.late_count += u64::from(late_by > SimTime::ZERO);
                if down.carry(arrives_at + late_by, waiting) {
                    self.releases.plan(arrives_at + late_by, Place::Port(port));
                }
            }
        }
        if down.waiting_count() > 0 {
            down.is_planned = true;
            self.events.plan(down.free_at(at), Place::Port(port));
        }
    }
}

impl Cable {
    fn account(&self) -> PortAccount {
        PortAccount {
            sent_burst_ratio: self.host_burst.ratio_max(),
            overrun_ratio: self.port_burst.ratio_max(),
            ..self.account
        }
    }
}

/// Frames that are inside, by number.
#[derive(Debug)]
struct Slots<F> {
    frames: Vec<Option<F>>,
    free: Vec<u32>,
}

impl<F> Default for Slots<F> {
    fn default() -> Slots<F> {
        Slots {
            frames: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<F> Slots<F> {
    fn put(&mut self, frame: F) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.frames[slot as usize] = Some(frame);
                slot
            }
            None => {
                self.frames.push(Some(frame));
                (self.frames.len() - 1) as u32
            }
        }
    }

    fn get(&self, slot: u32) -> &F {
        self.frames[slot as usize].as_ref().expect("a frame that is inside")
    }

    fn get_mut(&mut self, slot: u32) -> &mut F {
        self.frames[slot as usize].as_mut().expect("a frame that is inside")
    }

    fn take(&mut self, slot: u32) -> F {
        self.free.push(slot);
        self.frames[slot as usize].take().expect("a frame that is inside")
    }
}
