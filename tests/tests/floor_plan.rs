//! Holds the floor plan of ARCHITECTURE.md: which crate stands on which layer, that arrows point strictly down, which
//! folders stand at the top, and where `unsafe` may be written.
//!
//! The judging functions are pure, so each is also shown a plan that it must refuse.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::files::{tracked_files, workspace_root};

/// Every crate of the workspace, by folder, and its layer. A dependency leads to a lower layer; so crates of one layer,
/// L2's siblings above all, know nothing of each other.
const LAYERS: &[(&str, u32)] = &[
    ("dataplane/wire", 0),
    ("ebpf/abi", 0),
    ("dataplane/queue", 1),
    ("dataplane/waist", 1),
    ("rdma/rdma-sys", 1),
    ("dataplane/echo", 2),
    ("dataplane/faulty-disk", 2),
    ("dataplane/history", 2),
    ("dataplane/kv", 2),
    ("dataplane/netns", 2),
    ("dataplane/ports", 2),
    ("dataplane/quorum", 2),
    ("dataplane/service", 2),
    ("dataplane/sim", 2),
    ("dataplane/softswitch", 2),
    ("dataplane/transports", 2),
    ("dataplane/wal", 2),
    ("ebpf/host", 2),
    ("fpga/cpu", 2),
    ("fpga/model", 2),
    ("rdma", 2),
    ("bench", 3),
    ("fpga/tb", 3),
    ("lessons", 4),
    ("tests", 4),
];

/// The folders at the top; hidden ones are tools' own.
const TOP_FOLDERS: &[&str] = &[
    "bench",
    "dataplane",
    "docs",
    "ebpf",
    "fpga",
    "lessons",
    "rdma",
    "scripts",
    "tests",
];

/// Where `unsafe` may be written: behind these, safe code is all there is.
const UNSAFE_PATHS: &[&str] = &[
    "dataplane/ports/src/sys/",
    "dataplane/wal/src/sys.rs",
    "dataplane/wal/src/sys/",
    "dataplane/wire/src/checksum/sse42.rs",
    "ebpf/host/src/sys.rs",
    "ebpf/programs/",
    "fpga/cpu/src/sys.rs",
    "fpga/tb/src/sys.rs",
    // libibverbs' functions, found by name at run time; rdma/src/sys makes them safe.
    "rdma/rdma-sys/src/",
    "rdma/src/sys/",
];
/// And of no crate of this workspace: where loom watches who touches a ring's places.
const UNSAFE_APART: &str = "tests/loom/src/rings.rs";

/// A crate as this test needs it.
#[derive(Clone, Debug)]
struct Crate {
    name: String,
    /// Its folder, from the workspace's root.
    folder: String,
    /// Folders of the workspace's crates that it needs to be built; what only its tests need is not among them.
    needs: Vec<String>,
    /// Its libraries' and programs' first files, from the workspace's root.
    roots: Vec<String>,
}

#[test]
fn arrows_point_down() {
    let faults = arrow_faults(&crates(), LAYERS);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn an_upward_arrow_a_sibling_and_an_unknown_crate_are_refused() {
    let a_crate = |folder: &str, needs: &[&str]| Crate {
        name: folder.replace('/', "-"),
        folder: folder.into(),
        needs: needs.iter().map(|&need| need.into()).collect(),
        roots: Vec::new(),
    };
    let layers = &[("low", 0), ("mid/a", 1), ("mid/b", 1), ("top", 2)];
    let good = [
        a_crate("low", &[]),
        a_crate("mid/a", &["low"]),
        a_crate("mid/b", &["low"]),
        a_crate("top", &["mid/a", "mid/b", "low"]),
    ];
    assert_eq!(arrow_faults(&good, layers), [""; 0]);

    let faults_with = |extra: Crate| {
        let mut crates = good.to_vec();
        crates.retain(|a_crate| a_crate.folder != extra.folder);
        crates.push(extra);
        arrow_faults(&crates, layers).join("\n")
    };
    let upward = faults_with(a_crate("low", &["top"]));
    assert!(
        upward.contains("low (L0) depends on top (L2): arrows point down"),
        "{upward}"
    );
    let sibling = faults_with(a_crate("mid/a", &["low", "mid/b"]));
    assert!(sibling.contains("mid/a (L1) depends on mid/b (L1)"), "{sibling}");
    let unknown = faults_with(a_crate("attic", &["low"]));
    assert!(
        unknown.contains("attic has no layer: add it to LAYERS in tests/tests/floor_plan.rs"),
        "{unknown}"
    );
    let misnamed = faults_with(Crate {
        name: "middle".into(),
        ..a_crate("mid/a", &["low"])
    });
    assert!(misnamed.contains("mid/a is named middle"), "{misnamed}");
    assert_eq!(name_of("mid/low-sys"), "low-sys");
}

#[test]
fn the_top_has_only_the_folders_of_the_plan() {
    let faults = folder_faults(&tracked_files());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_folder_outside_the_plan_is_refused() {
    let files = ["Cargo.toml", ".ci/run", "bench/src/main.rs", "src/lib.rs"].map(String::from);
    let faults = folder_faults(&files);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("src/"), "{faults:?}");
}

#[test]
fn every_crate_root_forbids_unsafe_code() {
    let mut roots_count = 0;
    for a_crate in crates() {
        for root in &a_crate.roots {
            let text = fs::read_to_string(workspace_root().join(root)).expect("cargo names files that exist");
            let expected = expected_attribute(&a_crate.folder);
            assert!(
                text.lines().any(|line| line == expected),
                "{root} does not say {expected}: put it below the file's first comment"
            );
            roots_count += 1;
        }
    }
    assert!(
        roots_count >= LAYERS.len() / 2,
        "only {roots_count} crate roots were found"
    );
}

#[test]
fn unsafe_is_written_only_where_the_plan_has_it() {
    let mut files_count = 0;
    let mut faults = Vec::new();
    for path in tracked_files().iter().filter(|path| path.ends_with(".rs")) {
        // A file deleted and not yet committed is listed, and not there.
        let Ok(text) = fs::read_to_string(workspace_root().join(path)) else {
            continue;
        };
        files_count += 1;
        if !may_be_unsafe(path) {
            faults.extend(unsafe_lines(&text).iter().map(|line| format!("{path}:{line}")));
        }
    }
    assert!(files_count > LAYERS.len(), "only {files_count} Rust files were found");
    assert!(
        faults.is_empty(),
        "unsafe code outside {UNSAFE_PATHS:?}:\n{}",
        faults.join("\n")
    );
}

#[test]
fn unsafe_code_is_recognised() {
    // Spelled in two pieces, so that this file passes its own test.
    let keyword = concat!("un", "safe");
    let code = [
        format!("{keyword} {{ call() }}"),
        format!("pub {keyword} fn call() {{}}"),
        format!("{keyword}   impl Send for Ring {{}}"),
        format!("#[{keyword}(no_mangle)]"),
        format!("let value = {keyword} {{ *pointer }}; // {keyword} {{ }}"),
        format!("let value ={keyword}{{ *pointer }};"),
        format!("{keyword} extern \"C\" {{}}"),
        format!("    {keyword}"),
    ];
    for line in &code {
        assert_eq!(unsafe_lines(line), [1], "{line}");
    }
    let prose = [
        "#![forbid(unsafe_code)]".to_string(),
        format!("// {keyword} {{ in a comment }}"),
        format!("/// This is {keyword} to call twice."),
        format!("let sentence = \"{keyword} code outside\";"),
        format!("fn {keyword}_lines() {{}}"),
    ];
    for line in &prose {
        assert_eq!(unsafe_lines(line), [0; 0], "{line}");
    }
    assert!(may_be_unsafe("dataplane/ports/src/sys/ring.rs"));
    assert!(!may_be_unsafe("dataplane/ports/src/system.rs"));
    assert!(!may_be_unsafe("dataplane/ports/src/lib.rs"));
}

/// What the plan does not allow, a sentence each.
fn arrow_faults(crates: &[Crate], layers: &[(&str, u32)]) -> Vec<String> {
    let layers: BTreeMap<&str, u32> = layers.iter().copied().collect();
    let mut faults = Vec::new();
    for a_crate in crates {
        let folder = a_crate.folder.as_str();
        if a_crate.name != name_of(folder) {
            let name = &a_crate.name;
            faults.push(format!("{folder} is named {name}: a crate is named by its folder"));
        }
        let Some(layer) = layers.get(folder) else {
            faults.push(format!(
                "{folder} has no layer: add it to LAYERS in tests/tests/floor_plan.rs and to ARCHITECTURE.md"
            ));
            continue;
        };
        for need in &a_crate.needs {
            // A need without a layer is a fault of its own, found above.
            if let Some(needs_layer) = layers.get(need.as_str())
                && needs_layer >= layer
            {
                faults.push(format!(
                    "{folder} (L{layer}) depends on {need} (L{needs_layer}): arrows point down; move what both need to a \
                     lower layer, or let a higher one bring them together"
                ));
            }
        }
    }
    faults
}

/// A crate is named by its folder. A raw binding is named by the last part of it, which says already whose it is: cargo's
/// convention for them is the library's name and `-sys`.
fn name_of(folder: &str) -> String {
    match folder.rsplit_once('/') {
        Some((_, last)) if last.ends_with("-sys") => last.to_owned(),
        _ => folder.replace('/', "-"),
    }
}

fn folder_faults(files: &[String]) -> Vec<String> {
    let mut folders: Vec<&str> = files
        .iter()
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| folder)
        .filter(|folder| !folder.starts_with('.') && !TOP_FOLDERS.contains(folder))
        .collect();
    folders.dedup();
    folders
        .into_iter()
        .map(|folder| format!("{folder}/ is not in the floor plan: the top has {TOP_FOLDERS:?}"))
        .collect()
}

/// The attribute that a crate's first file must carry: where one module may, the rest is denied.
fn expected_attribute(folder: &str) -> &'static str {
    let has_unsafe_part = UNSAFE_PATHS
        .iter()
        .any(|path| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
    match has_unsafe_part {
        true => "#![deny(unsafe_code)]",
        false => "#![forbid(unsafe_code)]",
    }
}

fn may_be_unsafe(path: &str) -> bool {
    path == UNSAFE_APART || UNSAFE_PATHS.iter().any(|allowed| path.starts_with(allowed))
}

/// The lines, from 1, on which the keyword stands as code: outside line comments, and followed by what it can govern.
fn unsafe_lines(text: &str) -> Vec<usize> {
    let keyword = concat!("un", "safe");
    let is_code = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.match_indices(keyword).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = &code[at + keyword.len()..];
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let governed = ["{", "(", "fn ", "impl ", "impl<", "trait ", "extern "];
            let next = after.trim_start();
            !before.is_some_and(is_word)
                && !after.starts_with(is_word)
                && (next.is_empty() || governed.iter().any(|start| next.starts_with(start)))
        })
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| is_code(line))
        .map(|(index, _)| index + 1)
        .collect()
}

/// The workspace's crates, as cargo sees them. Asks nothing of the network.
fn crates() -> Vec<Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .expect("the cargo that built this test is still there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata failed: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
    let root = PathBuf::from(text(&metadata["workspace_root"]));
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(!packages.is_empty(), "a workspace without crates");
    packages.iter().map(|package| a_crate(package, &root)).collect()
}

fn a_crate(package: &Value, root: &Path) -> Crate {
    let from_root = |path: &str| {
        let inside = Path::new(path).strip_prefix(root).ok()?;
        Some(inside.to_str().expect("a path in UTF-8").to_string())
    };
    let manifest = from_root(text(&package["manifest_path"])).expect("a member of the workspace");
    let is_built = |target: &&Value| {
        let kinds = target["kind"].as_array().into_iter().flatten();
        kinds.map(text).any(|kind| ["lib", "bin", "proc-macro"].contains(&kind))
    };
    let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
    let targets = package["targets"].as_array().expect("a list of targets");
    Crate {
        name: text(&package["name"]).into(),
        folder: manifest.trim_end_matches("/Cargo.toml").into(),
        needs: dependencies
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| from_root(dependency["path"].as_str()?))
            .collect(),
        roots: targets
            .iter()
            .filter(is_built)
            .map(|target| from_root(text(&target["src_path"])).expect("a file of the workspace"))
            .collect(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text"))
}
