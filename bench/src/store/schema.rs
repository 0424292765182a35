//! The published JSON Schema of a record line, made from the types and held to them by a test.

use serde_json::Value;

use crate::record::{Record, SCHEMA_VERSION};

/// Where the schema of this build is published, from the workspace's root.
pub const SCHEMA_FILE: &str = "docs/schema/record.v1.schema.json";

/// The JSON Schema (draft 2020-12) of one line of `records.jsonl`.
pub fn record_schema() -> Value {
    let mut schema = schemars::schema_for!(Record);
    schema.insert(
        "title".into(),
        format!("dplab record, schema version {SCHEMA_VERSION}").into(),
    );
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;
    use crate::{report::sample, store::encode};

    #[test]
    fn the_published_schema_is_the_codes() {
        assert!(
            SCHEMA_FILE.contains(&format!(".v{SCHEMA_VERSION}.")),
            "the file's name carries the version"
        );
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(SCHEMA_FILE);
        let wanted = format!("{:#}\n", record_schema());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &wanted).unwrap();
        }
        let published = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            published == wanted,
            "{SCHEMA_FILE} differs from bench/src/record.rs. If the change only adds optional fields, publish it with\n\
             UPDATE_SCHEMA=1 cargo test -p bench the_published_schema\n\
             Otherwise SCHEMA_VERSION grows first."
        );
    }

    #[test]
    fn records_pass_the_schema_and_nonsense_does_not() {
        let validator = jsonschema::validator_for(&record_schema()).unwrap();
        for record in sample::records() {
            let line: Value = serde_json::from_slice(&encode(&record).unwrap()).unwrap();
            let errors: Vec<String> = validator.iter_errors(&line).map(|error| error.to_string()).collect();
            assert_eq!(errors, Vec::<String>::new());
        }
        for nonsense in [
            json!({}),
            json!({"record": "unheard of"}),
            json!({"record": "end", "elapsed_s": "soon"}),
        ] {
            assert!(!validator.is_valid(&nonsense), "{nonsense}");
        }
    }
}
