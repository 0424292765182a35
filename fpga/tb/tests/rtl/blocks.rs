//! The small blocks, on every edge what their models say, and altogether what they are for.

use fpga_model::{
    filter::{Filter, LANES, Query, Row},
    replicate::{self, Replicate},
    rng::Rng,
    skid::Skid,
    stream::{BEAT_BYTES_MAX, Beat, Pauses, Sink, Source},
    systolic::{self, Inputs, Schedule, Systolic},
};
use fpga_tb::sys::{Filter512, Replicate64, Skid1, Skid64, Systolic8};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;

/// A clock edge, for any top.
macro_rules! edge {
    ($top:ident) => {
        $top.eval();
        $top.set_clk(1);
        $top.eval();
        $top.set_clk(0);
        $top.eval();
    };
}

/// Resets a top whose inputs of this name are to be quiet meanwhile.
macro_rules! reset {
    ($top:ident, $($quiet:ident),*) => {
        $top.set_clk(0);
        $top.set_rst(1);
        $($top.$quiet(0);)*
        for _ in 0..4 {
            edge!($top);
        }
        $top.set_rst(0);
    };
}

/// Words through a skid buffer: all arrive, in order, and the model knows when.
macro_rules! skid {
    ($test:ident, $top:ident, $word:ty, $mask:expr) => {
        #[test]
        fn $test() {
            for (seed, pauses) in SEEDS.flat_map(|seed| Pauses::ALL.map(|pauses| (seed, pauses))) {
                let mut rng = Rng::new(seed);
                let mut top = $top::new(seed as u32);
                reset!(top, set_s_axis_tvalid, set_m_axis_tready);
                let mut model = Skid::<$word>::new();
                let (mut sent, mut got, mut shown) = (Vec::new(), Vec::new(), None);
                for _ in 0..400 {
                    if shown.is_none() && !rng.percent(pauses.idle_percent) {
                        shown = Some((rng.draw() & $mask) as $word);
                    }
                    let taken = !rng.percent(pauses.stall_percent);
                    top.set_s_axis_tvalid(shown.is_some().into());
                    top.set_s_axis_tdata(shown.unwrap_or((rng.draw() & $mask) as $word));
                    top.set_m_axis_tready(taken.into());
                    let rtl = (top.m_axis_tvalid() == 1).then(|| top.m_axis_tdata());
                    assert_eq!(
                        (top.s_axis_tready() == 1, rtl),
                        (model.is_ready(), model.shows()),
                        "seed {seed}"
                    );
                    got.extend(rtl.filter(|_| taken));
                    model.clock(shown, taken);
                    if top.s_axis_tready() == 1 {
                        sent.extend(shown.take());
                    }
                    edge!(top);
                }
                assert_eq!(got[..], sent[..got.len()], "seed {seed}");
                assert!(
                    sent.len() - got.len() <= 2 && got.len() > 50,
                    "{} of {}",
                    got.len(),
                    sent.len()
                );
            }
        }
    };
}

skid!(words_of_64_bits_through_a_skid_buffer, Skid64, u64, u64::MAX);
skid!(words_of_1_bit_through_a_skid_buffer, Skid1, u8, 1);

#[test]
fn a_filter_sends_what_the_scan_of_its_rows_says() {
    for (seed, pauses) in SEEDS.flat_map(|seed| Pauses::ALL.map(|pauses| (seed, pauses))) {
        let mut rng = Rng::new(seed);
        let query = Query {
            low: rng.below(400),
            high: 300 + rng.below(700),
            keep: rng.draw() as u8,
            column: rng.below(LANES as u64) as u8,
        };
        let mut top = Filter512::new(seed as u32);
        reset!(top, set_s_axis_tvalid, set_m_axis_tready, set_cfg_we);
        for (address, value) in [query.low, query.high, query.keep.into(), query.column.into()]
            .into_iter()
            .enumerate()
        {
            top.set_cfg_we(1);
            top.set_cfg_addr(address as u8);
            top.set_cfg_data(value);
            edge!(top);
        }
        top.set_cfg_we(0);
        let mut model = Filter::new(query);
        let scans: Vec<Vec<Row>> = (0..3)
            .map(|_| {
                (0..1 + rng.below(60))
                    .map(|_| std::array::from_fn(|_| rng.below(1_000)))
                    .collect()
            })
            .collect();
        let rows = scans
            .iter()
            .flat_map(|scan| scan.iter().enumerate().map(|(at, row)| (*row, at + 1 == scan.len())));
        let mut rows = rows.collect::<std::collections::VecDeque<_>>();
        let (mut got, mut is_shown) = (Vec::new(), false);
        for _ in 0..2_000 {
            is_shown = !rows.is_empty() && (is_shown || !rng.percent(pauses.idle_percent));
            let shown = rows.front().copied().filter(|_| is_shown);
            let taken = !rng.percent(pauses.stall_percent);
            let words = |row: &Row| std::array::from_fn(|word| (row[word / 2] >> (32 * (word % 2))) as u32);
            top.set_s_axis_tvalid(shown.is_some().into());
            if let Some((row, is_last)) = &shown {
                top.set_s_axis_tdata(&words(row));
                top.set_s_axis_tlast((*is_last).into());
            }
            top.set_m_axis_tready(taken.into());
            let data = top.m_axis_tdata();
            let row = std::array::from_fn(|lane| u64::from(data[2 * lane]) | u64::from(data[2 * lane + 1]) << 32);
            let rtl = (top.m_axis_tvalid() == 1).then_some((row, top.m_axis_tlast() == 1));
            assert_eq!(
                (top.s_axis_tready() == 1, rtl),
                (model.is_ready(), model.shows()),
                "seed {seed}"
            );
            got.extend(rtl.filter(|_| taken));
            model.clock(shown, taken);
            if is_shown && top.s_axis_tready() == 1 {
                rows.pop_front();
                is_shown = false;
            }
            edge!(top);
        }
        let expected: Vec<(Row, bool)> = scans.iter().flat_map(|scan| query.scan(scan)).collect();
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[test]
fn a_frame_is_copied_for_every_peer() {
    for (seed, pauses) in SEEDS.flat_map(|seed| Pauses::ALL.map(|pauses| (seed, pauses))) {
        let mut rng = Rng::new(seed);
        let peers: Vec<(u64, u64)> = (0..1 + seed % 6)
            .map(|_| (rng.draw() >> 16, rng.draw() >> 16))
            .collect();
        let mut top = Replicate64::new(seed as u32);
        reset!(top, set_s_axis_tvalid, set_m_axis_tready, set_cfg_we);
        let mut write = |address: u64, value: u64| {
            top.set_cfg_we(1);
            top.set_cfg_addr(address as u8);
            top.set_cfg_data(value);
            edge!(top);
            top.set_cfg_we(0);
        };
        write(0, peers.len() as u64);
        for (index, &(place, mac)) in (0..).zip(&peers) {
            write(16 + index, place);
            write(32 + index, mac);
        }
        let mut model = Replicate::new(peers.clone(), 256);
        let (mut source, mut sink, mut expected) = (Source::default(), Sink::default(), Vec::new());
        for _ in 0..8 {
            let bytes = match rng.below(8) {
                0 => 2_049 + rng.below(100),
                _ => 60 + rng.below(200),
            };
            let frame: Vec<u8> = (0..bytes).map(|_| rng.draw() as u8).collect();
            source.send(&frame, 8, false);
            if bytes <= 2_048 {
                expected.extend(peers.iter().map(|&peer| replicate::copy(&frame, peer)));
            }
        }
        // Both have seen the end of the reset, and the RTL alone its registers.
        model.clock(None, true);
        for cycle in 0..12_000 {
            let shown = source.show(&mut rng, pauses);
            let taken = !rng.percent(pauses.stall_percent);
            top.set_s_axis_tvalid(shown.is_some().into());
            if let Some(beat) = &shown {
                top.set_s_axis_tdata(u64::from_le_bytes(*beat.data.first_chunk().expect("eight bytes")));
                top.set_s_axis_tkeep(beat.keep as u8);
                top.set_s_axis_tlast(beat.last.into());
            }
            top.set_m_axis_tready(taken.into());
            let rtl = (top.m_axis_tvalid() == 1).then(|| {
                let keep = top.m_axis_tkeep();
                let mut data = [0; BEAT_BYTES_MAX];
                for (lane, byte) in top.m_axis_tdata().to_le_bytes().into_iter().enumerate() {
                    data[lane] = byte * (keep >> lane & 1);
                }
                Beat {
                    data,
                    keep: keep.into(),
                    last: top.m_axis_tlast() == 1,
                    user: false,
                }
            });
            assert_eq!(
                (top.s_axis_tready() == 1, rtl),
                (model.is_ready(), model.shows()),
                "seed {seed}, cycle {cycle}"
            );
            sink.see(cycle, rtl.as_ref(), taken);
            if top.s_axis_tready() == 1 {
                source.taken(cycle);
            }
            model.clock(shown, taken);
            edge!(top);
        }
        let got: Vec<Vec<u8>> = sink.frames.iter().map(|frame| frame.bytes.clone()).collect();
        assert!(
            got == expected,
            "seed {seed}: {} copies of {}",
            got.len(),
            expected.len()
        );
    }
}

#[test]
fn an_array_multiplies_in_as_many_cycles_as_the_formula_says() {
    const SIDE: usize = 8;
    let mut rng = Rng::new(3);
    for shape in 0..64 {
        let (rows, tiles) = (1 + rng.below(80) as usize, 1 + rng.below(5) as usize);
        let schedule = Schedule::random(SIDE, rows, tiles, &mut rng);
        let mut top = Systolic8::new(1 + shape % 16);
        reset!(top, set_w_shift, set_a_valid, set_a_swap);
        let mut model = Systolic::new(SIDE);
        let (mut got, mut last) = (Vec::new(), 0);
        for cycle in 0..SIDE + tiles * rows.max(3 * SIDE) + 4 * SIDE {
            let inputs = schedule.inputs(cycle).unwrap_or(Inputs {
                weights: None,
                activations: None,
            });
            let packed = |values: &[i8]| {
                values
                    .iter()
                    .rev()
                    .fold(0, |word, &value| word << 8 | u64::from(value as u8))
            };
            top.set_w_shift(inputs.weights.is_some().into());
            top.set_w_i(inputs.weights.map_or(0, packed));
            top.set_a_valid(inputs.activations.is_some().into());
            top.set_a_swap(inputs.activations.is_some_and(|(_, swap)| swap).into());
            top.set_a_i(inputs.activations.map_or(0, |(values, _)| packed(values)));
            let rtl = (top.c_valid() == 1).then(|| top.c_o().map(|word| word as i32).to_vec());
            assert_eq!(rtl, model.shows(), "shape {shape}, cycle {cycle}");
            if let Some(sums) = rtl {
                got.push(sums);
                last = cycle as u64;
            }
            model.clock(&inputs);
            edge!(top);
        }
        assert!(got == schedule.expected(), "{rows} rows, {tiles} tiles");
        assert_eq!(
            last + 1,
            systolic::cycles(SIDE as u64, rows as u64, tiles as u64),
            "{rows} rows, {tiles} tiles"
        );
    }
}
