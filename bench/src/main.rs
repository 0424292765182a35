//! The `dplab` command.
#![forbid(unsafe_code)]

use std::{io::Write, process::ExitCode};

use bench::{
    agent, breakdown,
    cli::{Cli, Command},
    cluster, commands, hogs, replicas, run,
    run::Exit,
    server, service, soak, wal,
};
use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(exit) => exit,
        // A reader that has seen enough (`dplab list | head`) is no error of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dplab: {error:#}");
            ExitCode::from(Exit::Error as u8)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match cli.command {
        Command::Run(args) => {
            return {
                drop(out);
                run::run(&args).map(code)
            };
        }
        Command::Verify { seed, out: folder } => {
            return {
                drop(out);
                run::verify(seed, folder).map(code)
            };
        }
        Command::Soak(args) => return Ok(ExitCode::from(soak::soak(&args, &mut out)? as u8)),
        Command::Agent(args) => {
            drop(out);
            if let Some(path) = &args.new_key {
                agent::key::Key::make(path)?;
            }
            if let Some(options) = args.options() {
                agent::serve(&options)?;
            }
        }
        Command::Serve(args) => {
            drop(out);
            cluster::serve::serve(&args)?
        }
        Command::Kv(args) => {
            drop(out);
            return Ok(ExitCode::from(cluster::kv::kv(&args)? as u8));
        }
        Command::Wal(args) => return Ok(ExitCode::from(wal::wal(&args, &mut out)? as u8)),
        Command::ServeTrial { config } => {
            drop(out);
            server::main(&config)?
        }
        Command::ServeReplica { config } => {
            drop(out);
            replicas::main(&config)?
        }
        Command::ServeShards { config } => {
            drop(out);
            replicas::main_hosted(&config)?
        }
        Command::ServeHog { config } => {
            drop(out);
            hogs::main(&config)?
        }
        Command::ServeService { config } => {
            drop(out);
            service::process::main(&config)?
        }
        Command::ServeStamped { config } => {
            drop(out);
            breakdown::serve(&config)?
        }
        Command::List { json } => out.write_all(commands::list(json)?.as_bytes())?,
        Command::Probe { json } => out.write_all(commands::probe(json)?.as_bytes())?,
        Command::Compare { a, b, format } => out.write_all(commands::compare(&a, &b, format)?.as_bytes())?,
        Command::Order { folders } => {
            let (text, exit) = commands::order(&folders)?;
            out.write_all(text.as_bytes())?;
            return Ok(code(exit));
        }
        Command::Report { folders, format } => out.write_all(commands::report(&folders, format)?.as_bytes())?,
        Command::Explain { id } => out.write_all(commands::explain(&id)?.as_bytes())?,
        Command::Schema { scenario } => out.write_all(commands::schema(scenario)?.as_bytes())?,
        Command::Completions { shell } => clap_complete::generate(shell, &mut Cli::command(), "dplab", &mut out),
        Command::Man => clap_mangen::Man::new(Cli::command()).render(&mut out)?,
    }
    Ok(code(Exit::Holds))
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
