//! What happened at an emulated switch's queues, frame by frame, as a file beside the records.
//!
//! ```text
//!   # emulated-switch, check=rate, frame_bytes=512, round 0, seed 1
//!   # 100000 events; 3201 more were not kept: --queue-log says how many are
//!   time_ns,port,event,frame_bytes,queue_bytes,queue_frames,flow
//!   1503220,1,queued,512,1024,2,9f3a01c7
//! ```

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context;
use dataplane_queue::DropReason;
use dataplane_softswitch::{QueueEvent, QueueLog, What};

/// Under which a row says where its log is.
pub const FACT: &str = "queue_log";
/// In a run's folder.
const FOLDER: &str = "queues";

/// The log as text with commas, under lines that say what it is of. Columns:
///
/// - `time_ns`: since the switch began, on the monotonic clock, by when the switch looked at its ports;
/// - `port`: the queue to the host behind it, from 0; the receiver of an incast is the last;
/// - `event`: `queued`, `marked` (queued, with a mark of congestion that it did not have), `trimmed` (queued without its payload), `sent` (its
///   first bit goes onto the wire), or `dropped:` and why;
/// - `frame_bytes`: of the frame that came or goes, without preamble, check sequence and gap;
/// - `queue_bytes`, `queue_frames`: what waits at the port afterwards, without what is on the wire;
/// - `flow`: the same for all frames of one flow (a hash of addresses, protocol and ports), in hexadecimal digits.
pub fn csv(log: &QueueLog, about: &str) -> String {
    let mut text = format!("# {about}\n# {} events", log.events().len());
    if log.missed_count() > 0 {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "; {} more were not kept: --queue-log says how many are",
            log.missed_count()
        );
    }
    text.push_str("\ntime_ns,port,event,frame_bytes,queue_bytes,queue_frames,flow\n");
    for event in log.events() {
        let QueueEvent {
            at,
            port,
            what,
            frame_bytes,
            flow_hash,
            queue_bytes,
            queue_frames_count,
        } = event;
        let (event, why) = name(*what);
        let _ = writeln!(
            text,
            "{},{port},{event}{why},{frame_bytes},{queue_bytes},{queue_frames_count},{flow_hash:08x}",
            at.as_ns()
        );
    }
    text
}

fn name(what: What) -> (&'static str, &'static str) {
    match what {
        What::Queued => ("queued", ""),
        What::Marked => ("marked", ""),
        What::Trimmed => ("trimmed", ""),
        What::Sent => ("sent", ""),
        What::Dropped(why) => (
            "dropped:",
            match why {
                DropReason::QueueFull => "queue_full",
                DropReason::BufferFull => "buffer_full",
                DropReason::Early => "early",
                DropReason::Delay => "delay",
                DropReason::HeaderQueueFull => "header_queue_full",
                DropReason::HeadroomFull => "headroom_full",
            },
        ),
    }
}

/// Writes the log into the run's folder, as `queues/STEM.csv`; what a row says of it, as its fact `queue_log`.
///
/// # Errors
/// The file could not be written.
pub fn write(run_folder: &Path, log: &QueueLog, stem: &str, about: &str) -> anyhow::Result<String> {
    let folder = run_folder.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(format!("{stem}.csv"));
    fs::write(&path, csv(log, about)).with_context(|| format!("writing {}", path.display()))?;
    Ok(format!(
        "{FOLDER}/{stem}.csv, {} events, {} more not kept",
        log.events().len(),
        log.missed_count()
    ))
}

#[cfg(test)]
mod tests {
    use dataplane_queue::{Limit, SimTime};
    use dataplane_softswitch::{HostLink, Memory, Switch, SwitchOptions};

    use super::*;

    /// Frames are their own bytes.
    struct Heap;

    impl Memory for Heap {
        type Frame = Vec<u8>;
        fn bytes_mut<'a>(&'a mut self, frame: &'a mut Vec<u8>) -> &'a mut [u8] {
            frame
        }
        fn copy(&mut self, frame: &Vec<u8>) -> Option<Vec<u8>> {
            Some(frame.clone())
        }
        fn shorten(&mut self, frame: &mut Vec<u8>, len_bytes: usize) {
            frame.truncate(len_bytes);
        }
        fn give_back(&mut self, _: Vec<u8>) {}
    }

    #[test]
    fn each_event_is_a_line_and_what_was_not_kept_is_said() {
        let link = HostLink::new(1_000_000_000, SimTime::ZERO, Limit::Packets(1));
        let options = SwitchOptions {
            log_events_max: 5,
            ..SwitchOptions::new(3, link, 1)
        };
        let mut switch = Switch::new(&options).expect("a switch");
        // Two hosts send two frames each to the third, at once: one too many for its port, and more than the log holds.
        for port in [0, 1, 0, 1] {
            let mut frame = vec![0; 100];
            frame[5] = 9;
            frame[11] = port as u8;
            switch.introduce(dataplane_wire::ethernet::Mac([0, 0, 0, 0, 0, 9]), 2);
            switch.receive(SimTime::ZERO, port, frame, &mut Heap);
        }
        switch.advance(SimTime::from_ms(1), &mut Heap);
        let text = csv(switch.log(), "a test");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# a test");
        assert!(
            lines[1].starts_with("# 5 events; ") && lines[1].contains("more were not kept"),
            "{text}"
        );
        assert_eq!(lines[2], "time_ns,port,event,frame_bytes,queue_bytes,queue_frames,flow");
        // 124 bytes on the wire of 1 Gbit/s.
        assert!(lines[3].starts_with("992,2,queued,100,100,1,"), "{text}");
        assert_eq!(lines.len(), 8);
        let fields = lines[3..].iter().map(|line| line.split(',').count());
        assert!(fields.eq([7; 5]), "{text}");
        assert!(text.contains(",sent,100,"), "{text}");
    }

    #[test]
    fn a_file_is_written_beside_the_records() {
        let folder = std::env::temp_dir().join(format!("dplab-queue-log-{}", std::process::id()));
        let fact = write(&folder, &QueueLog::default(), "x", "nothing").expect("it is written");
        assert_eq!(fact, "queues/x.csv, 0 events, 0 more not kept");
        let text = fs::read_to_string(folder.join("queues/x.csv")).expect("a file");
        fs::remove_dir_all(&folder).expect("it is removed");
        assert!(text.starts_with("# nothing\n# 0 events\ntime_ns,"), "{text}");
    }
}
