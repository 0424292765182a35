//! Which build is measuring. Filled in by `bench/build.rs`.

/// The commit of the sources, with `-dirty` when they had changes; `None` when they were not built in a checkout.
///
/// A packager may set `DPLAB_GIT_COMMIT` in the environment of a build from a tarball.
pub fn git_commit() -> Option<&'static str> {
    option_env!("DPLAB_GIT_COMMIT").filter(|commit| !commit.is_empty())
}

/// `release` (optimised) or `debug`. A debug build measures itself.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

/// Version of dplab.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_commit_is_hexadecimal() {
        let Some(commit) = super::git_commit() else {
            println!("not built in a checkout: no commit to look at");
            return;
        };
        let digits = commit.strip_suffix("-dirty").unwrap_or(commit);
        assert!(
            digits.len() >= 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()),
            "{commit}"
        );
    }
}
