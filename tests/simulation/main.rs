//! `sim`: runs seeds, or shows one history with its events.

use std::process::ExitCode;

use stolon_simulation::{
    rules::{Rule, Without},
    run,
};

const USAGE: &str = "usage: sim [--seeds N] [--from M] [--seed S] [--without RULE]";

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    without: Without,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(args) => go(&args),
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args { seeds: 10_000, from: 0, seed: None, without: Without::none() };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word}: a value is missing"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => args.seed = Some(number()?),
            "--without" => {
                let rule = Rule::parse(&value).ok_or_else(|| format!("--without {value}: no such rule"))?;
                args.without = Without::rule(rule);
            }
            _ => return Err(format!("{word}: unknown")),
        }
    }
    Ok(args)
}

fn go(args: &Args) -> ExitCode {
    let failed = match args.seed {
        Some(seed) => {
            let outcome = run::history(seed, args.without, true);
            outcome.log.iter().for_each(|line| println!("{line}"));
            for finding in &outcome.findings {
                println!("{:>10.6}  FOUND {}: {}", finding.at as f64 / 1e6, finding.invariant, finding.what);
            }
            !outcome.findings.is_empty()
        }
        None => {
            let sum = run::many(args.from, args.seeds, args.without, 10);
            print!("{}", sum.report(args.without));
            !sum.failed.is_empty()
        }
    };
    ExitCode::from(u8::from(failed))
}
