//! Verilates every top, reads its ports out of the header that Verilator writes, and generates a typed wrapper for each. Without
//! Verilator nothing is generated, `cfg(rtl)` stays off, and the tests of the RTL say that they are skipped.
//!
//! `FPGA_TRACE=DIR` builds models that write a VCD file of every run into that folder.

use std::{
    collections::VecDeque,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
};

/// A module with parameters, and the files that it is made of.
struct Top {
    /// The C++ class and, in camel case, the Rust type.
    name: &'static str,
    module: &'static str,
    parameters: &'static [&'static str],
    files: &'static [&'static str],
}

const LEADER: &[&str] = &[
    "quorum_leader",
    "quorum_votes",
    "compare_pipe",
    "frame_emit",
    "frame_head",
    "eth_ipv4_udp_parser",
];
const FOLLOWER: &[&str] = &[
    "quorum_follower",
    "compare_pipe",
    "frame_emit",
    "frame_head",
    "eth_ipv4_udp_parser",
];

const TOPS: &[Top] = &[
    top("leader64", "quorum_leader", &["NODES=7"], LEADER),
    top(
        "leader512",
        "quorum_leader",
        &["NODES=7", "DATA_W=512", "DEPTH_LOG2=6"],
        LEADER,
    ),
    top("follower64", "quorum_follower", &[], FOLLOWER),
    top(
        "follower512",
        "quorum_follower",
        &["DATA_W=512", "DEPTH_LOG2=6"],
        FOLLOWER,
    ),
    top("skid64", "axis_skid", &["DATA_W=64"], &["axis_skid"]),
    top("skid1", "axis_skid", &["DATA_W=1"], &["axis_skid"]),
    top("replicate64", "replicate", &[], &["replicate"]),
    top("filter512", "kv_filter", &[], &["kv_filter"]),
    top(
        "systolic8",
        "systolic_array",
        &["N=8"],
        &["systolic_array", "systolic_pe"],
    ),
];

const fn top(
    name: &'static str,
    module: &'static str,
    parameters: &'static [&'static str],
    files: &'static [&'static str],
) -> Top {
    Top {
        name,
        module,
        parameters,
        files,
    }
}

/// What is neither a mistake nor helped: parts of a wide port, and constants of the shared include file, that a block has no use for.
const WARNINGS: &[&str] = &["-Wall", "-Wno-UNUSEDSIGNAL", "-Wno-UNUSEDPARAM"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(rtl)");
    for name in ["VERILATOR", "FPGA_TRACE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../rtl");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let verilator = env::var("VERILATOR").unwrap_or_else(|_| "verilator".into());
    let Ok(root) = output(Command::new(&verilator).args(["--getenv", "VERILATOR_ROOT"])) else {
        println!(
            "cargo::warning=no Verilator (apt-get install verilator): the tests of the RTL are skipped, its models are tested"
        );
        fs::write(out.join("rtl.rs"), "").expect("the build's own folder");
        return;
    };
    let include = Path::new(root.trim()).join("include");
    let has_trace = env::var_os("FPGA_TRACE").is_some();

    // The runtime once, and every top: two at a time on two cores.
    let jobs = Mutex::new((0..=TOPS.len()).collect::<VecDeque<_>>());
    let generated = Mutex::new(vec![String::new(); TOPS.len()]);
    let threads_count = env::var("NUM_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(2);
    thread::scope(|scope| {
        for _ in 0..threads_count {
            scope.spawn(|| {
                loop {
                    let Some(job) = jobs.lock().expect("no panic before").pop_front() else {
                        return;
                    };
                    let done = match job.checked_sub(1) {
                        None => runtime(&include, &out, has_trace),
                        Some(index) => verilate(&verilator, &TOPS[index], &include, &out, has_trace)
                            .map(|text| generated.lock().expect("no panic before")[index] = text),
                    };
                    if let Err(fault) = done {
                        panic!("{fault}");
                    }
                }
            });
        }
    });
    fs::write(out.join("rtl.rs"), generated.into_inner().expect("no panic").concat()).expect("the build's own folder");
    println!("cargo::rustc-cfg=rtl");
    println!("cargo::rustc-link-search=native={}", out.display());
    for top in TOPS {
        println!("cargo::rustc-link-lib=static={}", top.name);
    }
    println!("cargo::rustc-link-lib=static=verilated_runtime");
    println!("cargo::rustc-link-lib=dylib=stdc++");
    println!("cargo::rustc-link-lib=dylib=atomic");
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}\n{}{}", text(&output.stdout), text(&output.stderr))),
    }
}

/// Compiles one C++ file to an object beside it, optimised at that level.
fn compile(source: &Path, include: &Path, dir: &Path, level: &str, has_trace: bool) -> Result<PathBuf, String> {
    let object = dir.join(source.file_stem().expect("a file")).with_extension("o");
    let trace = if has_trace { "1" } else { "0" };
    output(
        Command::new("g++")
            .args([
                "-std=gnu++17",
                level,
                "-w",
                "-fPIC",
                "-DVM_COVERAGE=0",
                "-DVM_SC=0",
                "-DVM_TRACE_FST=0",
            ])
            .args([format!("-DVM_TRACE={trace}"), format!("-DVM_TRACE_VCD={trace}")])
            .arg("-I")
            .arg(include)
            .arg("-I")
            .arg(include.join("vltstd"))
            .arg("-I")
            .arg(dir)
            .arg("-c")
            .arg(source)
            .arg("-o")
            .arg(&object),
    )?;
    Ok(object)
}

fn archive(name: &str, objects: &[PathBuf], out: &Path) -> Result<(), String> {
    let archive = out.join(format!("lib{name}.a"));
    let _ = fs::remove_file(&archive);
    output(Command::new("ar").arg("crs").arg(archive).args(objects)).map(drop)
}

/// What all models share.
fn runtime(include: &Path, out: &Path, has_trace: bool) -> Result<(), String> {
    let mut names = vec!["verilated.cpp", "verilated_threads.cpp"];
    if has_trace {
        names.push("verilated_vcd_c.cpp");
    }
    let mut objects = Vec::new();
    for name in names {
        // What runs in every cycle stands in its headers.
        objects.push(compile(&include.join(name), include, out, "-O0", has_trace)?);
    }
    archive("verilated_runtime", &objects, out)
}

/// A port of the model's C++ class.
struct Port {
    name: String,
    is_input: bool,
    bits: u32,
}

/// `VL_IN8(&clk,0,0);`, `VL_OUTW(&c_o,255,0,8);`: name, top bit, bottom bit.
fn port_of(line: &str) -> Option<Port> {
    let (kind, arguments) = line.trim().split_once('(')?;
    let is_input = kind.starts_with("VL_IN");
    if !is_input && !kind.starts_with("VL_OUT") {
        return None;
    }
    let mut arguments = arguments.trim_end_matches([';', ')']).split(',');
    let name = arguments.next()?.trim_start_matches('&').to_owned();
    let bits = arguments.next()?.trim().parse::<u32>().ok()? + 1;
    Some(Port { name, is_input, bits })
}

/// The bits of a word behind the port, and its words of 32 bits if it is wider than 64.
fn rust_type(bits: u32) -> (&'static str, u32) {
    match bits {
        0..=8 => ("u8", 0),
        9..=16 => ("u16", 0),
        17..=32 => ("u32", 0),
        33..=64 => ("u64", 0),
        _ => ("u32", bits.div_ceil(32)),
    }
}

fn verilate(verilator: &str, top: &Top, include: &Path, out: &Path, has_trace: bool) -> Result<String, String> {
    let name = top.name;
    let dir = out.join(name);
    let _ = fs::remove_dir_all(&dir);
    let rtl = Path::new("../rtl");
    let mut command = Command::new(verilator);
    command
        .args([
            "--cc",
            "--assert",
            "-O3",
            "--x-assign",
            "unique",
            "--x-initial",
            "unique",
            // A loop that is not unrolled goes bit by bit in every cycle: the longest has a turn for each byte of a head.
            "--unroll-count",
            "256",
        ])
        .args(WARNINGS)
        .args(["--top-module", top.module, "--prefix", name, "--Mdir"])
        .arg(&dir)
        .arg("-I../rtl")
        .args(top.parameters.iter().map(|parameter| format!("-G{parameter}")))
        .args(top.files.iter().map(|file| rtl.join(file).with_extension("sv")));
    if has_trace {
        command.arg("--trace");
    }
    output(&mut command)?;
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let header = read(&dir.join(format!("{name}.h")))?;
    let ports: Vec<Port> = header.lines().filter_map(port_of).collect();
    let mut sources: Vec<String> = fs::read_dir(&dir)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|file| file.ends_with(".cpp"))
        .collect();
    sources.sort();
    let shim = dir.join("shim.cpp");
    fs::write(&shim, shim_of(name, &ports, &sources, has_trace)).map_err(|error| error.to_string())?;
    let object = compile(&shim, include, &dir, "-O1", has_trace)?;
    archive(name, &[object], out)?;
    Ok(wrapper_of(name, &ports))
}

/// One translation unit: the model and the functions that Rust calls.
fn shim_of(name: &str, ports: &[Port], sources: &[String], has_trace: bool) -> String {
    let mut text: String = sources.iter().map(|file| format!("#include \"{file}\"\n")).collect();
    let (mut sets, mut gets) = (String::new(), String::new());
    for (index, Port { name, is_input, bits }) in ports.iter().enumerate() {
        let (_, words) = rust_type(*bits);
        let (set, get) = match words {
            0 if *bits > 32 => (
                format!("m->{name} = w[0] | (uint64_t)w[1] << 32;"),
                format!("w[0] = m->{name}; w[1] = m->{name} >> 32;"),
            ),
            0 => (format!("m->{name} = w[0];"), format!("w[0] = m->{name};")),
            words => (
                format!("for (int i = 0; i < {words}; ++i) m->{name}[i] = w[i];"),
                format!("for (int i = 0; i < {words}; ++i) w[i] = m->{name}[i];"),
            ),
        };
        match is_input {
            true => sets += &format!("    case {index}: {set} break;\n"),
            false => gets += &format!("    case {index}: {get} break;\n"),
        }
    }
    let (trace_head, open, dump, close) = match has_trace {
        true => (
            "#include \"verilated_vcd_c.h\"\n",
            "h->c->traceEverOn(true); h->t = new VerilatedVcdC; h->m->trace(h->t, 99); h->t->open(path);",
            "h->t->dump(h->c->time()); h->c->timeInc(1);",
            "h->t->close(); delete h->t;",
        ),
        false => ("", "(void)path;", "", ""),
    };
    let field = if has_trace { "VerilatedVcdC* t;" } else { "" };
    text += &format!(
        "{trace_head}\nextern \"C\" {{\nstruct {name}_handle {{ VerilatedContext* c; {name}* m; {field} }};\n\
        void* {name}_new(unsigned seed, const char* path) {{\n  auto* h = new {name}_handle;\n  h->c = new VerilatedContext;\n  \
        h->c->randReset(2); h->c->randSeed(seed);\n  h->m = new {name}{{h->c}};\n  {open}\n  return h;\n}}\n\
        void {name}_free(void* p) {{\n  auto* h = static_cast<{name}_handle*>(p);\n  h->m->final(); {close}\n  delete h->m; delete h->c; \
        delete h;\n}}\n\
        void {name}_eval(void* p) {{\n  auto* h = static_cast<{name}_handle*>(p);\n  h->m->eval(); {dump}\n}}\n\
        void {name}_set(void* p, unsigned port, const uint32_t* w) {{\n  auto* m = static_cast<{name}_handle*>(p)->m;\n  switch (port) \
        {{\n{sets}  }}\n}}\n\
        void {name}_get(const void* p, unsigned port, uint32_t* w) {{\n  auto* m = static_cast<const {name}_handle*>(p)->m;\n  switch (port) \
        {{\n{gets}  }}\n}}\n}}\n"
    );
    text
}

/// In two pieces: the test of the floor plan reads this file too, and there is no such code in it.
const UNSAFE: &str = concat!("un", "safe");

/// The Rust type of a top. Included by `src/sys.rs`.
fn wrapper_of(name: &str, ports: &[Port]) -> String {
    let camel: String = name[..1].to_uppercase() + &name[1..];
    let mut methods = String::new();
    for (index, Port { name, is_input, bits }) in ports.iter().enumerate() {
        let (word, words) = rust_type(*bits);
        methods += &match (*is_input, words) {
            (true, 0) => format!(
                "    /// Sets `{name}`, {bits} bits.\n    pub fn set_{name}(&mut self, value: {word}) {{ let value = u64::from(value); \
                self.0.set({index}, &[value as u32, (value >> 32) as u32]); }}\n"
            ),
            (false, 0) => format!(
                "    /// `{name}`, {bits} bits.\n    pub fn {name}(&self) -> {word} {{ let mut words = [0; 2]; self.0.get({index}, &mut \
                words); (u64::from(words[0]) | u64::from(words[1]) << 32) as {word} }}\n"
            ),
            (true, _) => format!(
                "    /// Sets `{name}`, {bits} bits.\n    pub fn set_{name}(&mut self, words: &[u32; {words}]) {{ self.0.set({index}, \
                words); }}\n"
            ),
            (false, _) => format!(
                "    /// `{name}`, {bits} bits.\n    pub fn {name}(&self) -> [u32; {words}] {{ let mut words = [0; {words}]; \
                self.0.get({index}, &mut words); words }}\n"
            ),
        };
    }
    format!(
        "{UNSAFE} extern \"C\" {{\n    fn {name}_new(seed: u32, trace: *const c_char) -> *mut c_void;\n    fn {name}_free(model: *mut c_void);\n    \
        fn {name}_eval(model: *mut c_void);\n    fn {name}_set(model: *mut c_void, port: u32, words: *const u32);\n    \
        fn {name}_get(model: *const c_void, port: u32, words: *mut u32);\n}}\n\
        /// `{name}`, verilated.\npub struct {camel}(Model);\n\
        impl {camel} {{\n    /// A model whose registers and memories begin as the seed says.\n    pub fn new(seed: u32) -> {camel} {{\n        \
        {camel}(Model::new(\"{name}\", seed, Functions {{ new: {name}_new, free: {name}_free, eval: {name}_eval, set: {name}_set, get: \
        {name}_get }}))\n    }}\n    /// Settles combinational logic and takes edges.\n    pub fn eval(&mut self) {{ self.0.eval(); }}\n{methods}}}\n"
    )
}
