//! This repository's jwks-cache beside its peers, in one process: reads, memory, and behaviour under load.
//! See README.md for what the figures mean.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

mod by_hand;
mod contender;
mod cores;
mod counting;
mod limit;
mod load;
mod reads;
mod registries;
mod report;
mod upstream;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use contender::KINDS;
use report::Table;

const USAGE: &str = "\
bench [--only W4,W5] [--cap SECONDS] [--json]

  --only   these workloads alone: W1, W2, W3, W4, W5, W6, W7, W8, W9, S32
  --cap    give up on callers who still wait after this long; default 20
  --json   one JSON document in place of tables

Exit code: 0 every goal met, 1 one missed, 2 wrong arguments.";

struct Options {
    only: Vec<String>,
    cap: Duration,
    json: bool,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(upstream::ARGUMENT) {
        upstream::serve();
        return ExitCode::SUCCESS;
    }
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let wanted = |id: &str| options.only.is_empty() || options.only.iter().any(|only| id.starts_with(only));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug: figures mean little" } else { "release" };
    let names = KINDS.map(|kind| kind.name()).join(", ");
    if !options.json {
        println!("contenders: {names}\nmachine: {cores} cores, {}; build: {build}", std::env::consts::ARCH);
        println!("callers who wait longer than {} s are given up\n", options.cap.as_secs());
    }
    let mut tables: Vec<Table> = Vec::new();
    for (id, run) in workload::ALL {
        if wanted(id) {
            let table = run(options.cap);
            if !options.json {
                println!("{table}");
            }
            tables.push(table);
        }
    }
    let (goals, missed) = tables.iter().map(Table::score).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    if options.json {
        let workloads: Vec<_> = tables.iter().map(Table::json).collect();
        let machine = json!({"cores": cores, "arch": std::env::consts::ARCH, "build": build});
        let cap = options.cap.as_secs();
        println!(
            "{:#}",
            json!({"machine": machine, "cap_seconds": cap, "workloads": workloads, "goals": goals, "missed": missed})
        );
    } else {
        println!("ours: {} of {goals} goals met, {missed} missed", goals - missed);
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { only: Vec::new(), cap: Duration::from_secs(20), json: false };
    let mut args = args;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--json" => options.json = true,
            "--only" => options.only = value()?.split(',').map(|id| id.trim().to_uppercase()).collect(),
            "--cap" => {
                let seconds = value()?.parse().map_err(|_| "--cap wants seconds")?;
                options.cap = Duration::from_secs(seconds);
            }
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    let known = |only: &String| workload::ALL.iter().any(|(id, _)| id.starts_with(only.as_str()));
    match options.only.iter().find(|only| !known(only)) {
        Some(unknown) => Err(format!("there is no workload {unknown}")),
        None => Ok(options),
    }
}
