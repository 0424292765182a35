//! The account of a one-way run: every frame that was sent has arrived, or a counter with a name says where it went.
//!
//! ```text
//! handed to the port ─ sender_port ─▶ interface ─ interface_backlog ─▶ ─ sink_interface ─▶ IP, UDP ─ sink_no_socket,
//!      sink_udp_errors, sink_ip ─▶ socket or ring ─ sink_overflow, sink_no_buffer ─▶ port ─ sink_strangers, sink_malformed ─▶
//!      sink ─ sink_reject_… ─▶ received
//! ```
//!
//! A frame is in one place only, so the names along the way are counters that do not contain each other. Where the
//! kernel counts a frame twice, the account says which of the two it takes:
//!
//! - A frame that finds the receiving CPU's backlog full (net.core.netdev_max_backlog) counts as `tx_dropped` of the veth
//!   that sent it (`veth_xmit`, drivers/net/veth.c) *and* as `rx_dropped` of the one that was to receive it
//!   (`enqueue_to_backlog`, net/core/dev.c), and in the machine's `softnet_stat`. It is taken once, from the sender's.
//! - A packet socket that is told so keeps the frame in its ring and sends it again (`tpacket_snd`,
//!   net/packet/af_packet.c): there, `tx_dropped` is a retry and no loss.
//! - A frame that finds an AF_XDP socket's ring full counts there (XDP_STATISTICS, which the port reads) *and*, if the program
//!   runs in the driver, as `rx_dropped` of the veth whose redirect failed (`veth_xdp_rcv_skb`, drivers/net/veth.c). It is
//!   taken from the socket.
//! - `Udp.InErrors` contains what the socket dropped, and the sink's port has counted that itself (SK_MEMINFO_DROPS).
//!
//! Where the sink sends frames back, the way back has an account of the same kind, in which the two ends have changed places:
//! `tx_dropped` of the sink's interface are then replies for which XDP_TX found no room (`veth_xdp_flush_bq`, and
//! `veth_get_stats64`, which adds them there, drivers/net/veth.c).
//!
//! Between two machines the two interfaces have no counter in common, and there is a way between them on which a frame can be
//! lost by a cable or a switch whose counters nobody here can read. In front of a device there also is a queue, as a rule. Three
//! more names are for that:
//!
//! - `sender_queue`: frames that the sender's IP layer could not hand on (`OutDiscards`), those left out that a veth had no room
//!   for. The send call succeeds all the same.
//! - `sink_interface_errors`: frames that arrived damaged (`rx_errors`: a wrong checksum of Ethernet, and the like).
//! - `on_the_way`: frames that are missing, and that the interfaces themselves say left one and did not enter the other
//!   (`tx_packets` less `rx_packets`). It explains no more frames than those; what is missing beyond them is unexplained.
//!
//! Sockets, rings and ports count only their own. Interfaces and the UDP layer count a whole namespace; in one that the
//! lab made there is nothing else than kernel chatter (neighbour and group messages of IPv6), which no named counter
//! sees unless it is dropped too. Interfaces of two machines also carry what others send.

mod counters;

use std::collections::BTreeMap;

pub use counters::Counters;

use crate::sink::SinkReport;

/// How the sender's kernel half treats a frame that its interface has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxDrop {
    /// It is gone.
    Lost,
    /// It stays in the sender's ring and is sent again.
    Retried,
}

/// What a sink takes frames from, which decides which counters lie on a frame's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// A UDP socket, behind IP and UDP.
    Socket,
    /// A packet ring beside the stack. A copy of each frame goes up to a socket that drops it, so the stack's counters
    /// move and mean nothing.
    Ring,
    /// The ring of an AF_XDP socket, which a program in the driver or before the stack fills.
    Xsk,
    /// A program that drops what it takes, before the stack.
    Program,
    /// A ring between two threads or processes: no kernel.
    Memory,
}

/// What lies between the two interfaces, which decides whether a frame can be in the counters of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// One kernel that hands frames from one to the other, and counts one for which it has no room at both.
    Kernel,
    /// Two machines, as far as anybody knows.
    Machines {
        /// Both interfaces are veths: those of a pair are one kernel's, whatever runs at its ends.
        are_veths: bool,
    },
}

/// What was counted around a run: differences from before the first frame to after the last.
#[derive(Clone, Debug)]
pub struct Counted<'a> {
    /// Frames handed to the sender's port.
    pub offered_count: u64,
    /// Frames that the port says it could not send, refusals that were no hand-over left out.
    pub tx_dropped_count: u64,
    /// What becomes of frames that the sender's interface drops.
    pub tx_drop: TxDrop,
    /// The namespace and interface of the sender.
    pub sender: &'a Counters,
    /// The namespace and interface of the sink. The same as the sender's over loopback.
    pub at_sink: &'a Counters,
    /// What is between the two.
    pub between: Between,
    /// What the sink takes frames from.
    pub intake: Intake,
    /// What the sink has counted.
    pub sink: &'a SinkReport,
}

/// Where all frames of a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Frames handed to the sender's port.
    pub sent_count: u64,
    /// Frames that the sink has, each once.
    pub received_count: u64,
    /// Frames that came a second time.
    pub duplicate_count: u64,
    /// Frames lost on the way, by the counter that saw them; only counters that moved.
    pub losses: BTreeMap<String, u64>,
    /// What else moved, for whoever looks for frames that are not explained.
    hints: String,
}

/// Frames that left one machine's interface and did not enter the other's.
const ON_THE_WAY: &str = "on_the_way";

impl Account {
    /// Adds up.
    pub fn of(counted: &Counted<'_>) -> Account {
        let mut losses = BTreeMap::new();
        let mut lose = |name: &str, count: u64| {
            if count > 0 {
                losses.insert(name.to_owned(), count);
            }
        };
        let (sender, at_sink, sink) = (counted.sender, counted.at_sink, counted.sink);
        lose("sender_port", counted.tx_dropped_count);
        if counted.intake != Intake::Memory {
            let tx_dropped_count = sender.get("interface.tx_dropped");
            if counted.tx_drop == TxDrop::Lost {
                lose("interface_backlog", tx_dropped_count);
            }
            let redirects_count = match counted.intake {
                Intake::Xsk => sink.rx_dropped_count,
                _ => 0,
            };
            let counted_twice_count = match counted.between {
                Between::Kernel | Between::Machines { are_veths: true } => tx_dropped_count,
                Between::Machines { are_veths: false } => 0,
            };
            let rx_dropped_count = at_sink.get("interface.rx_dropped");
            lose(
                "sink_interface",
                rx_dropped_count.saturating_sub(counted_twice_count + redirects_count),
            );
            if let Between::Machines { .. } = counted.between {
                let discards_count = sender.get("Ip.OutDiscards") + sender.get("Ip6OutDiscards");
                lose("sender_queue", discards_count.saturating_sub(counted_twice_count));
                lose("sink_interface_errors", at_sink.get("interface.rx_errors"));
            }
        }
        if counted.intake == Intake::Socket {
            let sum = |names: &[&str]| names.iter().map(|name| at_sink.get(name)).sum::<u64>();
            lose("sink_no_socket", sum(&["Udp.NoPorts", "Udp6NoPorts"]));
            let in_errors_count = sum(&["Udp.InErrors", "Udp6InErrors"]);
            lose("sink_udp_errors", in_errors_count.saturating_sub(sink.rx_dropped_count));
            lose(
                "sink_ip",
                sum(&[
                    "Ip.InHdrErrors",
                    "Ip.InAddrErrors",
                    "Ip.InDiscards",
                    "Ip6InHdrErrors",
                    "Ip6InAddrErrors",
                    "Ip6InDiscards",
                ]),
            );
        }
        lose("sink_no_buffer", sink.rx_no_buffer_count.min(sink.rx_dropped_count));
        lose(
            "sink_overflow",
            sink.rx_dropped_count.saturating_sub(sink.rx_no_buffer_count),
        );
        lose("sink_strangers", sink.strangers_count);
        lose("sink_malformed", sink.malformed_count);
        for (reason, count) in &sink.rejects {
            lose(&format!("sink_reject_{reason}"), *count);
        }
        let moved = |end: &str, counters: &Counters| -> Vec<String> {
            counters
                .moved()
                .map(|(name, count)| format!("{end} {name} {count}"))
                .collect()
        };
        let hints = [moved("sender's", sender), moved("sink's", at_sink)]
            .concat()
            .join(", ");
        let mut account = Account {
            sent_count: counted.offered_count,
            received_count: sink.received_count,
            duplicate_count: sink.duplicate_count,
            losses,
            hints,
        };
        if let Between::Machines { .. } = counted.between {
            let left_count = sender.get("interface.tx_packets");
            let vanished_count = left_count.saturating_sub(at_sink.get("interface.rx_packets"));
            let missing_count = u64::try_from(account.unexplained_count()).unwrap_or(0);
            let lost_count = vanished_count.min(missing_count);
            if lost_count > 0 {
                account.losses.insert(ON_THE_WAY.to_owned(), lost_count);
            }
        }
        account
    }

    /// Frames lost, by all names.
    pub fn lost_count(&self) -> u64 {
        self.losses.values().sum()
    }

    /// Frames that no counter explains; negative if counters explain more than were sent. 0 is what an account is for.
    pub fn unexplained_count(&self) -> i64 {
        self.sent_count as i64 - self.received_count as i64 - self.lost_count() as i64
    }

    /// Why the run may not be judged, if it may not: what was seen, why it matters, what to try.
    pub fn fault(&self) -> Option<String> {
        let unexplained_count = self.unexplained_count();
        if unexplained_count == 0 && self.duplicate_count == 0 {
            return None;
        }
        let losses: Vec<String> = self
            .losses
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let losses = match losses.is_empty() {
            true => "none lost by any counter".to_owned(),
            false => losses.join(" + "),
        };
        Some(format!(
            "the account does not close: {} sent, {} received, {losses}; {unexplained_count} unexplained, {} came twice; \
             frames that vanish make every rate a guess; look at the counters that moved ({}), and at other traffic there",
            self.sent_count, self.received_count, self.duplicate_count, self.hints
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(
        sender: &[(&str, u64)],
        at_sink: &[(&str, u64)],
        change: impl FnOnce(&mut Counted<'_>, &mut SinkReport),
    ) -> Account {
        let (sender, at_sink) = (Counters::of(sender), Counters::of(at_sink));
        let mut sink = SinkReport {
            received_count: 90,
            ..SinkReport::default()
        };
        let nothing = SinkReport::default();
        let mut counted = Counted {
            offered_count: 100,
            tx_dropped_count: 0,
            tx_drop: TxDrop::Lost,
            sender: &sender,
            at_sink: &at_sink,
            between: Between::Kernel,
            intake: Intake::Socket,
            sink: &nothing,
        };
        change(&mut counted, &mut sink);
        Account::of(&Counted { sink: &sink, ..counted })
    }

    #[test]
    fn ten_frames_that_nobody_saw_are_a_fault_with_the_numbers() {
        let account = account(&[("interface.tx_packets", 100)], &[], |_, _| {});
        assert_eq!((account.lost_count(), account.unexplained_count()), (0, 10));
        let fault = account.fault().expect("ten are missing");
        for said in ["100 sent", "90 received", "10 unexplained", "tx_packets 100"] {
            assert!(fault.contains(said), "{fault}");
        }
    }

    #[test]
    fn each_counter_explains_its_frames_and_no_frame_twice() {
        // Four in a full backlog, which both interfaces count; three in a full socket, which UDP's errors contain; two
        // bad checksums; one that the port refused.
        let account = account(
            &[("interface.tx_dropped", 4)],
            &[
                ("interface.rx_dropped", 4),
                ("Udp.InErrors", 5),
                ("Udp.RcvbufErrors", 3),
            ],
            |counted, sink| {
                counted.tx_dropped_count = 1;
                sink.rx_dropped_count = 3;
            },
        );
        let losses: Vec<_> = account
            .losses
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(
            losses,
            [
                ("interface_backlog", 4),
                ("sender_port", 1),
                ("sink_overflow", 3),
                ("sink_udp_errors", 2)
            ]
        );
        assert_eq!(account.fault(), None);
    }

    #[test]
    fn a_packet_ring_sends_again_what_its_interface_dropped() {
        let account = account(
            &[("interface.tx_dropped", 50)],
            &[("interface.rx_dropped", 50)],
            |counted, sink| {
                counted.tx_drop = TxDrop::Retried;
                sink.received_count = 100;
            },
        );
        assert_eq!((account.lost_count(), account.fault()), (0, None));
    }

    #[test]
    fn beside_a_packet_ring_the_stack_s_counters_mean_nothing() {
        let account = account(&[], &[("Udp.InErrors", 100), ("Udp.NoPorts", 7)], |counted, sink| {
            counted.intake = Intake::Ring;
            sink.rx_dropped_count = 10;
        });
        assert_eq!(account.fault(), None);
    }

    #[test]
    fn a_full_af_xdp_ring_is_counted_once_whether_or_not_the_interface_counts_it_too() {
        for (rx_dropped, sink_interface) in [(0, None), (10, None), (13, Some(3))] {
            let account = account(&[], &[("interface.rx_dropped", rx_dropped)], |counted, sink| {
                counted.intake = Intake::Xsk;
                (sink.rx_dropped_count, sink.received_count) = (10, 90 - sink_interface.unwrap_or(0));
            });
            assert_eq!(account.losses.get("sink_interface").copied(), sink_interface);
            assert_eq!(account.fault(), None);
        }
    }

    #[test]
    fn a_full_ring_and_an_empty_fill_ring_have_names_of_their_own() {
        let account = account(&[], &[("interface.rx_dropped", 10)], |counted, sink| {
            counted.intake = Intake::Xsk;
            (sink.rx_dropped_count, sink.rx_no_buffer_count) = (10, 7);
        });
        assert_eq!(account.losses["sink_no_buffer"], 7);
        assert_eq!(account.losses["sink_overflow"], 3);
        assert_eq!((account.losses.len(), account.fault()), (2, None));
    }

    #[test]
    fn on_the_way_back_the_ends_change_places() {
        // The echo's interface had no room for four replies, which both interfaces count; a socket's ring had none for three,
        // which the driver that redirected them counts, too; what the sender's interface dropped on the way out is not theirs.
        let account = account(
            &[("interface.tx_dropped", 4), ("interface.rx_dropped", 9)],
            &[("interface.rx_dropped", 4 + 3), ("Udp.NoPorts", 5)],
            |counted, replies| {
                counted.intake = Intake::Xsk;
                (replies.rx_dropped_count, replies.received_count) = (3, 93);
            },
        );
        let losses: Vec<_> = account.losses.into_iter().collect();
        assert_eq!(
            losses,
            [("interface_backlog".to_owned(), 4), ("sink_overflow".to_owned(), 3)]
        );
    }

    #[test]
    fn between_machines_each_interface_counts_its_own() {
        let with = |are_veths| {
            account(
                &[("interface.tx_dropped", 4), ("Ip.OutDiscards", 4)],
                &[("interface.rx_dropped", 3), ("interface.rx_errors", 2)],
                |counted, sink| {
                    sink.received_count = 87;
                    counted.between = Between::Machines { are_veths };
                },
            )
        };
        let losses: Vec<_> = with(false).losses.into_iter().collect();
        let loss = |name: &str, count| (name.to_owned(), count);
        assert_eq!(
            losses,
            [
                loss("interface_backlog", 4),
                loss("sender_queue", 4),
                loss("sink_interface", 3),
                loss("sink_interface_errors", 2)
            ]
        );
        assert_eq!(with(false).fault(), None);
        let of_a_pair = with(true);
        assert_eq!(of_a_pair.losses.get("sink_interface"), None);
        assert_eq!(
            of_a_pair.losses.get("sender_queue"),
            None,
            "the veth had no room for them"
        );
        assert_eq!(of_a_pair.unexplained_count(), 7);
    }

    #[test]
    fn a_switch_explains_what_left_one_interface_and_did_not_enter_the_other_and_no_more() {
        // A hundred sent and ninety received. Three that others sent entered, too, in the last case.
        for (between, entered_count, lost, unexplained_count) in [
            (Between::Machines { are_veths: false }, 90, Some(10), 0),
            (Between::Machines { are_veths: true }, 90, Some(10), 0),
            (Between::Machines { are_veths: false }, 60, Some(10), 0),
            (Between::Machines { are_veths: false }, 93, Some(7), 3),
            (Between::Machines { are_veths: false }, 103, None, 10),
            (Between::Kernel, 90, None, 10),
        ] {
            let account = account(
                &[("interface.tx_packets", 100)],
                &[("interface.rx_packets", entered_count)],
                |counted, _| counted.between = between,
            );
            assert_eq!(
                account.losses.get(ON_THE_WAY).copied(),
                lost,
                "{between:?} {entered_count}"
            );
            assert_eq!(
                account.unexplained_count(),
                unexplained_count,
                "{between:?} {entered_count}"
            );
            assert_eq!(account.fault().is_some(), unexplained_count != 0);
        }
        let too_many = account(
            &[("interface.tx_packets", 100)],
            &[("Udp.NoPorts", 20)],
            |counted, _| counted.between = Between::Machines { are_veths: false },
        );
        assert_eq!(
            too_many.unexplained_count(),
            -10,
            "counters that explain too much are a fault"
        );
    }

    #[test]
    fn a_duplicate_or_a_frame_too_many_is_a_fault() {
        let twice = account(&[], &[], |_, sink| {
            (sink.received_count, sink.duplicate_count) = (100, 1)
        });
        assert!(twice.fault().expect("one came twice").contains("1 came twice"));
        let too_many = account(&[], &[("Udp.NoPorts", 11)], |_, _| {});
        assert_eq!(too_many.unexplained_count(), -1);
        assert!(too_many.fault().is_some());
    }
}
