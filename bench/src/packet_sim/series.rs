//! Series of numbers over virtual time as files: CSV for everybody, Parquet where this build has it.

use std::fmt::Write;

use super::Observer;

/// Columns of whole numbers under names that carry their units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What it is, for people: where it was taken, the seed, the scenario.
    pub about: Vec<String>,
    /// The names.
    pub names: Vec<&'static str>,
    /// The columns, equally long.
    pub columns: Vec<Vec<u64>>,
}

impl Series {
    /// The queue before the watched link.
    pub fn of_queue(observer: &Observer, about: Vec<String>) -> Series {
        let column = |of: fn(&dataplane_sim::packet::DepthSample) -> u64| observer.depths.iter().map(of).collect();
        Series {
            about,
            names: vec!["at_ns", "queue_packets", "queue_bytes"],
            columns: vec![
                column(|sample| sample.at.as_ns()),
                column(|sample| sample.packets_count.into()),
                column(|sample| sample.bytes),
            ],
        }
    }

    /// The flows' windows.
    pub fn of_flows(observer: &Observer, about: Vec<String>) -> Series {
        let column = |of: fn(&super::FlowSample) -> u64| observer.flows.iter().map(of).collect();
        Series {
            about,
            names: vec![
                "at_ns",
                "flow",
                "window_bytes",
                "in_flight_bytes",
                "srtt_ns",
                "is_slow_start",
            ],
            columns: vec![
                column(|sample| sample.at.as_ns()),
                column(|sample| sample.flow.into()),
                column(|sample| sample.window_bytes),
                column(|sample| sample.in_flight_bytes),
                column(|sample| sample.srtt_ns),
                column(|sample| sample.is_slow_start.into()),
            ],
        }
    }

    /// As CSV: lines that begin with #, names, values.
    pub fn to_csv(&self) -> String {
        let mut text = String::from("# dplab series, version 1\n");
        self.about.iter().for_each(|line| {
            let _ = writeln!(text, "# {line}");
        });
        text.push_str(&self.names.join(","));
        text.push('\n');
        let rows_count = self.columns.first().map_or(0, Vec::len);
        for row in 0..rows_count {
            for (index, column) in self.columns.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(text, "{comma}{}", column[row]);
            }
            text.push('\n');
        }
        text
    }

    /// As a Parquet file, with what CSV has in its head as key-value metadata.
    ///
    /// # Errors
    /// The writer's.
    #[cfg(feature = "parquet")]
    pub fn to_parquet(&self) -> anyhow::Result<Vec<u8>> {
        use std::sync::Arc;

        use parquet::{
            basic::{Compression, ConvertedType, Repetition, Type as Physical},
            data_type::Int64Type,
            file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
            schema::types::Type,
        };
        let fields = self.names.iter().map(|name| {
            let builder = Type::primitive_type_builder(name, Physical::INT64);
            let builder = builder.with_repetition(Repetition::REQUIRED);
            Ok(Arc::new(builder.with_converted_type(ConvertedType::UINT_64).build()?))
        });
        let fields = fields.collect::<Result<Vec<_>, parquet::errors::ParquetError>>()?;
        let schema = Type::group_type_builder("series").with_fields(fields).build()?;
        let about = |(number, line): (usize, &String)| KeyValue::new(format!("dplab.about.{number}"), line.clone());
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_created_by("dplab series, version 1".to_owned())
            .set_key_value_metadata(Some(self.about.iter().enumerate().map(about).collect()))
            .build();
        let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
        let mut group = writer.next_row_group()?;
        let mut columns = self.columns.iter();
        while let Some(mut column) = group.next_column()? {
            // Parquet keeps unsigned numbers in the bits of signed ones.
            let values: Vec<i64> = columns
                .next()
                .into_iter()
                .flatten()
                .map(|value| *value as i64)
                .collect();
            column.typed::<Int64Type>().write_batch(&values, None, None)?;
            column.close()?;
        }
        group.close()?;
        Ok(writer.into_inner()?)
    }

    /// As a Parquet file, which this build cannot write.
    ///
    /// # Errors
    /// Always, with what would help.
    #[cfg(not(feature = "parquet"))]
    pub fn to_parquet(&self) -> anyhow::Result<Vec<u8>> {
        anyhow::bail!("this dplab was built without Parquet: cargo build --release --features parquet, or --series csv")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        Series {
            about: vec!["seed 7".to_owned()],
            names: vec!["at_ns", "queue_bytes"],
            columns: vec![vec![0, 10, 20], vec![1_500, 0, u64::MAX]],
        }
    }

    #[test]
    fn csv_has_a_head_names_and_values() {
        let wanted = "# dplab series, version 1\n# seed 7\nat_ns,queue_bytes\n0,1500\n10,0\n20,18446744073709551615\n";
        assert_eq!(series().to_csv(), wanted);
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn parquet_is_read_back() {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let bytes = series().to_parquet().expect("a file");
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).expect("a Parquet file");
        let metadata = reader.metadata().file_metadata();
        assert_eq!(metadata.num_rows(), 3);
        let about = metadata.key_value_metadata().expect("metadata");
        assert_eq!(about[0].value.as_deref(), Some("seed 7"));
        let rows: Vec<String> = reader
            .get_row_iter(None)
            .expect("rows")
            .map(|row| row.expect("a row").to_string())
            .collect();
        assert_eq!(rows[0], "{at_ns: 0, queue_bytes: 1500}");
        assert_eq!(rows[2], "{at_ns: 20, queue_bytes: 18446744073709551615}");
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn a_build_without_parquet_says_what_would_help() {
        let error = series().to_parquet().expect_err("no Parquet");
        assert!(error.to_string().contains("--features parquet"), "{error}");
    }
}
