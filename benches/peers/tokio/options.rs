// SPDX-License-Identifier: BSL-1.0

use std::ffi::OsString;
use std::time::Duration;

/// Why there is no result: bad arguments (exit status 2) or a run that did not do its work (1).
pub enum Failure {
    Usage(String),
    Run(String),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Scenario {
    Starvation,
    Storm,
    Latency,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Starvation => "starvation",
            Scenario::Storm => "storm",
            Scenario::Latency => "latency",
        }
    }
}

#[derive(Clone, Copy)]
pub struct Options {
    pub scenario: Scenario,
    pub workers: usize,
    pub duration: Duration,
    pub cooperative: bool,
    pub tasks: usize,
    hog_ms: u64,
    rate: u64,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, Failure> {
        let mut words = arguments.map(|word| word.to_string_lossy().into_owned());
        let scenario = words.next().unwrap_or_default();
        let scenario = match scenario.as_str() {
            "starvation" => Scenario::Starvation,
            "storm" => Scenario::Storm,
            "latency" => Scenario::Latency,
            _ => {
                return usage(format!(
                    "the scenario must be starvation, storm or latency, and not {scenario:?}"
                ))
            }
        };
        let is_latency = scenario == Scenario::Latency;
        let mut options = Options {
            scenario,
            workers: 1,
            duration: Duration::from_millis(1000),
            cooperative: true,
            tasks: 20_000,
            hog_ms: if is_latency { 20 } else { 50 },
            rate: 2000,
        };
        while let Some(name) = words.next() {
            let value = words.next().unwrap_or_default();
            let whole = |least, most| whole_number(&name, &value, least, most);
            match name.as_str() {
                "--workers" => options.workers = whole(1, 2)? as usize,
                "--duration-ms" => options.duration = Duration::from_millis(whole(10, 600_000)?),
                "--seconds" => options.duration = Duration::from_secs(whole(1, 600)?),
                "--hog-ms" => options.hog_ms = whole(0, if is_latency { 100 } else { 10_000 })?,
                "--rate" => options.rate = whole(100, 20_000)?,
                "--tasks" => options.tasks = whole(1000, 200_000)? as usize,
                "--hog" => {
                    options.cooperative = match value.as_str() {
                        "cooperative" => true,
                        "uncooperative" => false,
                        _ => {
                            return usage(format!(
                                "--hog must be cooperative or uncooperative, and not {value:?}"
                            ))
                        }
                    }
                }
                _ => return usage(format!("there is no option {name:?}")),
            }
        }
        Ok(options)
    }

    pub fn variant(&self) -> String {
        let name = match (self.scenario, self.cooperative) {
            (Scenario::Storm, _) => "tasks",
            (_, true) => "cooperative",
            (_, false) => "uncooperative",
        };
        format!("{name}/{}", self.workers)
    }

    /// In a burst: steps of 10 us.
    pub fn hog_steps(&self) -> u64 {
        self.hog_ms * 100
    }

    pub fn arrival_period(&self) -> Duration {
        Duration::from_nanos(1_000_000_000 / self.rate)
    }

    pub fn arrivals(&self) -> usize {
        (self.duration.as_nanos() / self.arrival_period().as_nanos()) as usize
    }
}

fn usage<T>(sentence: String) -> Result<T, Failure> {
    Err(Failure::Usage(sentence))
}

fn whole_number(name: &str, value: &str, least: u64, most: u64) -> Result<u64, Failure> {
    match value.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => usage(format!(
            "{name} must be a whole number from {least} to {most}, and not {value:?}"
        )),
    }
}
