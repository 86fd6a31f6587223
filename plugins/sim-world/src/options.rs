//! The command line.

use insane_sim_world::mesh::scenario::Scenario;
use std::ops::Range;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Options {
    /// The names of the scenarios.
    List,
    /// The fixed seeds of the check.
    Check,
    /// What the options are.
    Help,
    /// These.
    Run(Select),
}

/// Which runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Select {
    /// One scenario; `None`: all.
    pub scenario: Option<Scenario>,
    /// The seeds.
    pub seeds: Range<u64>,
    /// Hosts of a mesh.
    pub hosts: usize,
    /// Streams of a mesh.
    pub streams: usize,
    /// Whether to tell everything that happens.
    pub aloud: bool,
}

/// Why the command line means nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    /// An unknown option.
    #[error("`{0}` is no option")]
    Unknown(String),
    /// An option without its value.
    #[error("`{0}` needs a value")]
    NoValue(String),
    /// A value that the option does not take.
    #[error("`{1}` is no value of {0}: {2}")]
    Value(String, String, &'static str),
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn parse(arguments: &[String]) -> Result<Self, OptionsError> {
        let mut select = Select { scenario: None, seeds: 1..2, hosts: 200, streams: 2000, aloud: false };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            match option.as_str() {
                "--list" => return Ok(Options::List),
                "--check" => return Ok(Options::Check),
                "--help" | "-h" => return Ok(Options::Help),
                "--seed" | "--seeds" | "--scenario" | "--hosts" | "--streams" => {
                    let value = rest.next().ok_or_else(|| OptionsError::NoValue(option.clone()))?;
                    let wrong = |accepted| OptionsError::Value(option.clone(), value.clone(), accepted);
                    select.set(option, value).map_err(wrong)?;
                }
                other => return Err(OptionsError::Unknown(other.to_owned())),
            }
        }
        Ok(Options::Run(select))
    }
}

impl Select {
    /// Takes one option; an error says what would be accepted.
    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        match option {
            "--seed" => {
                let seed: u64 = value.parse().map_err(|_| "a number")?;
                self.seeds = seed..seed.checked_add(1).ok_or("a smaller number")?;
                self.aloud = true;
            }
            "--seeds" => {
                let (from, to) = value.split_once("..").ok_or("A..B")?;
                let numbers = (from.parse(), to.parse());
                let (Ok(from), Ok(to)) = numbers else { return Err("A..B, two numbers") };
                self.seeds = from..to;
            }
            "--scenario" => {
                let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == value);
                self.scenario = Some(found.ok_or("one of those that --list names")?);
            }
            "--hosts" => self.hosts = bounded(value, 2, 1000).ok_or("2 to 1000")?,
            _ => self.streams = bounded(value, 1, 100_000).ok_or("1 to 100000")?,
        }
        Ok(())
    }
}

fn bounded(value: &str, least: usize, most: usize) -> Option<usize> {
    value.parse().ok().filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_seed_is_told_and_a_range_is_not() {
        let Ok(Options::Run(one)) = parse("--seed 7 --scenario storm --hosts 12 --streams 30") else { panic!() };
        let scenario = Some(Scenario::Storm);
        assert_eq!(one, Select { scenario, seeds: 7..8, hosts: 12, streams: 30, aloud: true });
        let Ok(Options::Run(many)) = parse("--seeds 3..9") else { panic!() };
        assert_eq!((many.seeds, many.aloud, many.scenario), (3..9, false, None));
        assert_eq!(parse("--check"), Ok(Options::Check));
    }

    #[test]
    fn wrong_options_are_refused() {
        assert_eq!(parse("--sed 7"), Err(OptionsError::Unknown("--sed".into())));
        assert_eq!(parse("--seed"), Err(OptionsError::NoValue("--seed".into())));
        for line in ["--seed x", "--seeds 3", "--scenario sunshine", "--hosts 1", "--streams 0"] {
            assert!(matches!(parse(line), Err(OptionsError::Value(..))), "{line}");
        }
    }
}
