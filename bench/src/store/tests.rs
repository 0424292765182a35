//! Every way a record file gets hurt: torn, corrupt, newer, full disk, no permission.

use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::{
    environment::Environment,
    record::{Better, Metric, ModeRecord, Outcome, RunEnd, RunHeader, SCHEMA_VERSION, Validity, VerdictRecord},
};

/// A folder that is gone after the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dplab-store-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn header() -> RunHeader {
    RunHeader {
        schema_version: SCHEMA_VERSION,
        version: "0.1.0".into(),
        git_commit: None,
        build_profile: "debug".into(),
        command: vec!["dplab".into(), "run".into()],
        seed: 7,
        started_unix_ms: 1_700_000_000_000,
        budget_s: Some(30.0),
        place: "loopback".into(),
        environment: Environment::default(),
        backends: Vec::new(),
        generator: None,
        agent: None,
        published: Vec::new(),
    }
}

fn row(round: u32) -> Row {
    Row {
        experiment: "rtt-ladder".into(),
        backend: "udp/blocking".into(),
        mode: ModeRecord::Native,
        axis: BTreeMap::from([("frame_bytes".into(), "64".into())]),
        round,
        twin: false,
        seed: 1,
        at_s: 0.5,
        elapsed_s: 1.0,
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: BTreeMap::new(),
        series: Vec::new(),
        facts: BTreeMap::new(),
        validity: Validity::Valid,
    }
}

fn records() -> Vec<Record> {
    vec![
        Record::Run(Box::new(header())),
        Record::Row(Box::new(row(0))),
        Record::Row(Box::new(row(1))),
        Record::Verdict(VerdictRecord {
            claim: "spin-is-faster".into(),
            experiment: "rtt-ladder".into(),
            sentence: "Spinning is faster.".into(),
            source: "our own".into(),
            outcome: Outcome::Holds,
            measured: Vec::new(),
        }),
        Record::End(RunEnd {
            elapsed_s: 2.5,
            rows_count: 2,
            interrupted: false,
            steal_ratio: 0.0,
            errors: Vec::new(),
        }),
    ]
}

fn bytes() -> Vec<u8> {
    records().iter().flat_map(|record| encode(record).unwrap()).collect()
}

fn read_bytes(bytes: &[u8]) -> Result<Run, StoreError> {
    read_from(bytes, Path::new("records.jsonl"))
}

/// Whole records of a run.
fn records_count(run: &Run) -> usize {
    1 + run.rows.len() + run.verdicts.len() + usize::from(run.end.is_some())
}

#[test]
fn what_is_written_is_read() {
    let scratch = Scratch::new();
    let mut folder = RunFolder::create(scratch.0.join("a/b")).unwrap();
    for record in records() {
        folder.append(&record).unwrap();
    }
    let run = read(folder.path()).unwrap();
    assert_eq!(run.header, header());
    assert_eq!(run.rows, [row(0), row(1)]);
    assert_eq!(run.verdicts.len(), 1);
    assert!(run.is_complete());
    assert_eq!(run.damage, []);
    assert!(folder.path().join(HISTOGRAMS_FOLDER).is_dir());
    assert_eq!(read(folder.path().join(RECORDS_FILE)).unwrap(), run);
}

#[test]
fn a_line_can_be_read_as_soon_as_it_is_written() {
    let scratch = Scratch::new();
    let mut folder = RunFolder::create(&scratch.0).unwrap();
    for (index, record) in records().iter().enumerate() {
        folder.append(record).unwrap();
        assert_eq!(records_count(&read(&scratch.0).unwrap()), index + 1);
    }
}

#[test]
fn a_folder_with_a_run_is_refused_and_unchanged() {
    let scratch = Scratch::new();
    RunFolder::create(&scratch.0).unwrap().append(&records()[0]).unwrap();
    let before = fs::read(scratch.0.join(RECORDS_FILE)).unwrap();
    let error = RunFolder::create(&scratch.0).unwrap_err();
    assert!(matches!(error, StoreError::HoldsARun { .. }), "{error}");
    assert!(error.to_string().contains("--out"), "{error}");
    assert_eq!(fs::read(scratch.0.join(RECORDS_FILE)).unwrap(), before);
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_with_advice() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("file"), "").unwrap();
    let error = RunFolder::create(scratch.0.join("file/run")).unwrap_err();
    assert!(error.to_string().contains("is a file, not a folder"), "{error}");

    fs::create_dir(scratch.0.join("closed")).unwrap();
    fs::set_permissions(scratch.0.join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    // Permissions do not stop root.
    if !nix::unistd::geteuid().is_root() {
        let error = RunFolder::create(scratch.0.join("closed/run")).unwrap_err();
        assert!(error.to_string().contains("give a folder of your own"), "{error}");
    }
    let error = read(scratch.0.join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("There is no such run"), "{error}");
}

#[test]
fn a_full_device_is_an_error_with_advice() {
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let mut folder = RunFolder {
        path: "/dev".into(),
        lines: Lines::new(full),
    };
    let error = folder.append(&records()[0]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("The disk is full"), "{text}");
    assert!(text.contains("0 lines before it"), "{text}");
}

/// A disk with room for so many bytes.
struct SmallDisk {
    bytes: Vec<u8>,
    room_bytes: usize,
    can_cut: bool,
}

impl io::Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room_bytes - self.bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for SmallDisk {
    fn cut(&mut self, len_bytes: u64) -> io::Result<()> {
        if !self.can_cut {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.bytes.truncate(len_bytes as usize);
        Ok(())
    }
}

#[test]
fn a_disk_that_fills_up_keeps_every_line_before_and_takes_lines_again() {
    let whole = bytes();
    let last = records().len() - 1;
    for can_cut in [true, false] {
        for room_bytes in 0..whole.len() {
            let mut lines = Lines::new(SmallDisk {
                bytes: Vec::new(),
                room_bytes,
                can_cut,
            });
            let encoded: Vec<Vec<u8>> = records().iter().map(|record| encode(record).unwrap()).collect();
            let written = encoded.iter().take_while(|line| lines.write(line).is_ok()).count();
            assert_eq!(lines.lines_count as usize, written);
            // Where nothing can be cut off, a line that lacks its newline alone stands, though its writer heard an error.
            let extra = |count: usize, expected: usize| count == expected || (!can_cut && count == expected + 1);
            if written > 0 {
                let count = records_count(&read_bytes(&lines.sink.bytes).unwrap());
                assert!(
                    extra(count, written),
                    "{count} for {written}, room for {room_bytes} bytes"
                );
            }
            // Room again: the next line is whole whatever the last one left behind.
            lines.sink.room_bytes = usize::MAX;
            for line in &encoded[written..=last] {
                lines.write(line).unwrap();
            }
            let count = records_count(&read_bytes(&lines.sink.bytes).unwrap());
            assert!(extra(count, records().len()), "{count}, room for {room_bytes} bytes");
        }
    }
}

#[test]
fn truncated_at_every_byte_every_whole_line_is_kept() {
    let whole = bytes();
    for len_bytes in 0..whole.len() {
        let kept = &whole[..len_bytes];
        let newlines = kept.iter().filter(|&&byte| byte == b'\n').count();
        // A line that lacks nothing but its newline is whole too.
        let lines = newlines + usize::from(whole[len_bytes] == b'\n');
        match read_bytes(kept) {
            Ok(run) => {
                assert_eq!(records_count(&run), lines, "cut after {len_bytes} bytes");
                let torn = lines == newlines && kept.last() != Some(&b'\n');
                assert_eq!(run.damage.len(), usize::from(torn), "cut after {len_bytes} bytes");
            }
            Err(error) => {
                assert_eq!(lines, 0, "cut after {len_bytes} bytes: {error}");
                assert!(matches!(error, StoreError::NoHeader { .. }), "{error}");
            }
        }
    }
}

#[test]
fn a_corrupt_line_is_named_and_the_rest_is_kept() {
    let mut lines: Vec<Vec<u8>> = records().iter().map(|record| encode(record).unwrap()).collect();
    lines[1] = b"{\"record\":\"row\",\"experiment\":\xff\n".to_vec();
    let run = read_bytes(&lines.concat()).unwrap();
    assert_eq!(run.rows, [row(1)]);
    assert!(run.end.is_some());
    assert_eq!(run.damage.len(), 1);
    assert_eq!(run.damage[0].line, 2);
}

#[test]
fn a_damaged_header_is_an_error_that_counts_what_else_is_there() {
    let mut bytes = bytes();
    bytes[2] = b'!';
    let text = read_bytes(&bytes).unwrap_err().to_string();
    assert!(text.contains("line 1 is damaged"), "{text}");
    assert!(text.contains("4 other lines are whole records"), "{text}");
    assert!(read_bytes(b"").unwrap_err().to_string().contains("the file is empty"));
}

#[test]
fn a_newer_schema_is_refused_by_its_number() {
    let newer = "{\"record\":\"run\",\"schema_version\":99,\"version\":\"3.1.4\",\"unheard_of\":[]}\n";
    let text = read_bytes(newer.as_bytes()).unwrap_err().to_string();
    for part in ["schema version 99", "3.1.4", "touched nothing"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn zero_rows_are_a_run() {
    let run = read_bytes(&encode(&records()[0]).unwrap()).unwrap();
    assert_eq!((run.rows.len(), run.end.is_some(), run.damage.len()), (0, false, 0));
    assert!(!run.is_complete());
}

#[test]
fn a_metric_that_is_not_finite_is_left_out_by_name() {
    let metric = |value| Metric {
        value,
        unit: "ratio".into(),
        better: Better::Neither,
    };
    let mut bad = row(0);
    bad.metrics = BTreeMap::from([("a".into(), metric(f64::NAN)), ("b".into(), metric(1.5))]);
    let line = encode(&Record::Row(Box::new(bad.clone()))).unwrap();
    let Record::Row(read) = serde_json::from_slice(&line).unwrap() else {
        panic!("not a row")
    };
    assert_eq!(read.metrics.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(read.facts["not_finite"], "a");

    bad.at_s = f64::INFINITY;
    let error = encode(&Record::Row(Box::new(bad))).unwrap_err();
    assert!(matches!(error, StoreError::NotARecord { .. }), "{error}");
}

#[test]
fn an_endless_line_is_damage_and_bounded() {
    let mut bytes = encode(&records()[0]).unwrap();
    bytes.resize(bytes.len() + LINE_BYTES_MAX + 10, b'x');
    bytes.push(b'\n');
    bytes.extend(encode(&records()[1]).unwrap());
    let run = read_bytes(&bytes).unwrap();
    assert_eq!(run.rows.len(), 1);
    assert_eq!(run.damage[0].line, 2);
    assert!(run.damage[0].what.contains("longer than"), "{:?}", run.damage);
}

#[test]
fn damage_is_listed_up_to_a_bound_and_counted_beyond() {
    let mut bytes = encode(&records()[0]).unwrap();
    bytes.extend(b"?\n".repeat(5000));
    let run = read_bytes(&bytes).unwrap();
    assert_eq!(run.damage.len(), 101);
    assert!(run.damage[100].what.contains("4900 more"), "{:?}", run.damage[100]);
}

#[test]
fn histogram_names_are_plain() {
    let mut row = row(3);
    row.axis.insert("../etc".into(), "ü/ä".into());
    assert_eq!(
        histogram_stem(&row),
        "rtt-ladder.udp_blocking..._etc=___.frame_bytes=64.round3"
    );
}

#[test]
fn a_file_beside_the_records_is_replaced_whole() {
    let scratch = Scratch::new();
    let folder = RunFolder::create(&scratch.0).unwrap();
    folder.write_file("report.html", b"one").unwrap();
    let path = folder.write_file("report.html", b"two").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"two");
    assert_eq!(
        fs::read_dir(&scratch.0).unwrap().count(),
        3,
        "nothing unfinished is left behind"
    );
    assert!(folder.write_file("missing/report.html", b"").is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn any_bytes_after_a_header_keep_it(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut all = encode(&records()[0]).unwrap();
        all.extend(bytes);
        prop_assert_eq!(read_bytes(&all).unwrap().header, header());
    }

    #[test]
    fn a_flipped_byte_costs_one_record_at_most(at in 0usize..10_000, to in any::<u8>()) {
        let mut all = bytes();
        let header_len = encode(&records()[0]).unwrap().len();
        let at = header_len + at % (all.len() - header_len);
        all[at] = to;
        // A newline that is lost joins two lines; any other byte hurts its own.
        prop_assert!(records_count(&read_bytes(&all).unwrap()) >= records().len() - 2);
    }
}
