//! The blocks against their models and against user space, with every kind of pause, from every kind of beginning.
#![forbid(unsafe_code)]

#[cfg(rtl)]
mod blocks;
mod conformance;
mod timing;

/// The tests of blocks.rs, where the RTL is not here: named, and not run.
#[cfg(not(rtl))]
mod blocks {
    macro_rules! skipped {
        ($($name:ident),* $(,)?) => {
            $(
                #[test]
                #[ignore = "Verilator was not here when this was built (apt-get install verilator)"]
                fn $name() {}
            )*
        };
    }
    skipped!(
        words_of_64_bits_through_a_skid_buffer,
        words_of_1_bit_through_a_skid_buffer,
        a_filter_sends_what_the_scan_of_its_rows_says,
        a_frame_is_copied_for_every_peer,
        an_array_multiplies_in_as_many_cycles_as_the_formula_says,
    );
}
