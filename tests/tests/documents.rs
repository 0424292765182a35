//! The documents hold together: relative links lead somewhere, and the book has every page that exists.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, fs, path::Path};

use tests::files::{tracked_files, workspace_root};

#[test]
fn relative_links_lead_to_files_and_headings() {
    let root = workspace_root();
    let (mut links_count, mut faults) = (0, Vec::new());
    for document in documents() {
        let text = fs::read_to_string(root.join(&document)).expect("it was there a moment ago");
        for link in links(&text) {
            links_count += 1;
            faults.extend(fault(&root, &document, &text, &link));
        }
    }
    assert!(links_count > 20, "only {links_count} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_book_lists_every_page_and_every_page_exists() {
    let listed: BTreeSet<String> = {
        let summary = fs::read_to_string(workspace_root().join("docs/src/SUMMARY.md")).expect("the book's contents");
        links(&summary)
            .into_iter()
            .map(|page| format!("docs/src/{page}"))
            .collect()
    };
    let written: BTreeSet<String> = documents()
        .into_iter()
        .filter(|path| path.starts_with("docs/src/") && !path.ends_with("/SUMMARY.md"))
        .collect();
    let unlisted: Vec<_> = written.difference(&listed).collect();
    assert!(unlisted.is_empty(), "add to docs/src/SUMMARY.md: {unlisted:?}");
    let unwritten: Vec<_> = listed.difference(&written).collect();
    assert!(
        unwritten.is_empty(),
        "listed in docs/src/SUMMARY.md, but not there: {unwritten:?}"
    );
}

#[test]
fn broken_links_are_found_and_code_is_not_searched() {
    let text =
        "[a](b.md) and [c](d.md#e \"title\"), ![p](p.png) `[no](no.md)`\n```text\n[no](no.md)\n```\n[t](<x y.md>)\n";
    assert_eq!(links(text), ["b.md", "d.md#e", "p.png", "x y.md"]);

    let root = workspace_root();
    let of = |link: &str| fault(&root, "docs/src/measuring.md", "## A heading, with `code`\n", link);
    for good in [
        "records.md",
        "../../Cargo.toml",
        "https://example.org/none",
        "#a-heading-with-code",
        "records.md#validity",
    ] {
        assert_eq!(of(good), None, "{good}");
    }
    for broken in [
        "recordings.md",
        "../Cargo.toml",
        "#no-such-heading",
        "records.md#no-such-heading",
        "/records.md",
    ] {
        assert!(of(broken).is_some(), "{broken}");
    }
}

#[test]
fn headings_become_anchors() {
    assert_eq!(
        anchors("# A/A: how large is nothing?\n```\n# no\n```\n## Lost means +∞\n"),
        ["aa-how-large-is-nothing", "lost-means-"]
    );
}

/// Every Markdown file that is there.
fn documents() -> Vec<String> {
    let root = workspace_root();
    let mut files = tracked_files();
    files.retain(|path| path.ends_with(".md") && root.join(path).is_file());
    files
}

/// What is wrong with a link of `document`, whose text is `text`.
fn fault(root: &Path, document: &str, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = root.join(document).parent().expect("a file has a folder").to_path_buf();
    let target = folder.join(path);
    if path.starts_with('/') || !(path.is_empty() || target.exists()) {
        return Some(format!("{document}: {link} leads to nothing"));
    }
    if anchor.is_empty() || !(path.is_empty() || path.ends_with(".md")) {
        return None;
    }
    let there = match path.is_empty() {
        true => text.to_owned(),
        false => fs::read_to_string(&target).unwrap_or_default(),
    };
    let is_there = anchors(&there).iter().any(|have| have == anchor);
    (!is_there).then(|| format!("{document}: {link} leads to no heading"))
}

/// The targets of Markdown's inline links and images, outside code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        // Inline code stands between back ticks: every second piece.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (at, opening) in plain.match_indices("](") {
            let rest = &plain[at + opening.len()..];
            let target = match rest.strip_prefix('<') {
                Some(quoted) => quoted.split('>').next(),
                None => rest.split([')', ' ']).next(),
            };
            links.extend(target.filter(|target| !target.is_empty()).map(str::to_owned));
        }
    }
    links
}

/// Anchors of the headings, as GitHub and mdBook make them: lower case, words joined by dashes, nothing but letters,
/// digits, dashes and underscores.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    });
    let anchor = |title: &str| -> String {
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect()
    };
    headings.map(anchor).collect()
}

/// The lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}
