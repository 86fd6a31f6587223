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

/// A kind of world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// Many hosts, in this trouble.
    Mesh(Scenario),
    /// A few hosts with whole engines; with reliable streams, or without.
    Fleet {
        /// Which.
        reliable: bool,
    },
    /// Many hosts that find each other.
    Discovery,
}

impl World {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = World> {
        let fleets = [false, true].map(|reliable| World::Fleet { reliable });
        Scenario::ALL.into_iter().map(World::Mesh).chain([World::Discovery]).chain(fleets)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            World::Mesh(scenario) => scenario.name(),
            World::Discovery => "discovery",
            World::Fleet { reliable: false } => "fleet",
            World::Fleet { reliable: true } => "reliable",
        }
    }
}

/// Which runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Select {
    /// One kind; `None`: all.
    pub world: Option<World>,
    /// The seeds.
    pub seeds: Range<u64>,
    /// Hosts of a mesh.
    pub hosts: usize,
    /// Streams of a mesh.
    pub streams: usize,
    /// Messages of a fleet.
    pub messages: u64,
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
        let mut select = Select::default();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            match option.as_str() {
                "--list" => return Ok(Options::List),
                "--check" => return Ok(Options::Check),
                "--help" | "-h" => return Ok(Options::Help),
                "--seed" | "--seeds" | "--scenario" | "--hosts" | "--streams" | "--messages" => {
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

impl Default for Select {
    fn default() -> Self {
        Select { world: None, seeds: 1..2, hosts: 200, streams: 2000, messages: 1_000_000, aloud: false }
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
                let found = World::all().find(|world| world.name() == value);
                self.world = Some(found.ok_or("one of those that --list names")?);
            }
            "--messages" => self.messages = bounded(value, 1, 1 << 40).ok_or("1 to 2^40")? as u64,
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
        let world = Some(World::Mesh(Scenario::Storm));
        let wanted = Select { world, seeds: 7..8, hosts: 12, streams: 30, aloud: true, ..Select::default() };
        assert_eq!(one, wanted);
        let Ok(Options::Run(many)) = parse("--seeds 3..9") else { panic!() };
        assert_eq!((many.seeds, many.aloud, many.world), (3..9, false, None));
        let Ok(Options::Run(fleet)) = parse("--scenario fleet --messages 5000") else { panic!() };
        assert_eq!((fleet.world, fleet.messages), (Some(World::Fleet { reliable: false }), 5000));
        assert_eq!(parse("--check"), Ok(Options::Check));
    }

    #[test]
    fn wrong_options_are_refused() {
        assert_eq!(parse("--sed 7"), Err(OptionsError::Unknown("--sed".into())));
        assert_eq!(parse("--seed"), Err(OptionsError::NoValue("--seed".into())));
        for line in ["--seed x", "--seeds 3", "--scenario sunshine", "--hosts 1", "--streams 0", "--messages -1"] {
            assert!(matches!(parse(line), Err(OptionsError::Value(..))), "{line}");
        }
    }
}
