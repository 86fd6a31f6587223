//! Sets of cores, as the kernel writes them: `0-3,8`, `0-31:2/4`, `all`, `N`.

use std::collections::BTreeSet;
use std::fmt;

/// Most cores that Linux is built for on any machine (`NR_CPUS` of x86).
const CORES_MAX: u32 = 8192;

/// A set of cores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cores(pub BTreeSet<u16>);

impl Cores {
    /// Parses a list ("cpu lists" of `admin-guide/kernel-parameters`). `all` and `N` stand
    /// for the cores in `present`, and for the last of them. `None`: it is no such list.
    pub fn parse(text: &str, present: &Cores) -> Option<Cores> {
        let text = text.trim();
        let mut cores = Cores::default();
        // `nohz_full` says "(null)" where the parameter was not given.
        if text.is_empty() || text == "(null)" {
            return Some(cores);
        }
        for part in text.split(',') {
            match part {
                "all" => cores.0.extend(&present.0),
                part => cores.0.extend(range(part, present)?),
            }
        }
        Some(cores)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the core is among them.
    pub fn has(&self, core: u16) -> bool {
        self.0.contains(&core)
    }

    /// Those that are here and not there.
    pub fn without(&self, others: &Cores) -> Cores {
        Cores(self.0.difference(&others.0).copied().collect())
    }

    /// Those that are here and there.
    pub fn both(&self, others: &Cores) -> Cores {
        Cores(self.0.intersection(&others.0).copied().collect())
    }
}

impl FromIterator<u16> for Cores {
    fn from_iter<I: IntoIterator<Item = u16>>(cores: I) -> Cores {
        Cores(cores.into_iter().collect())
    }
}

/// One core, a range, or the first `used` of every `group` of a range.
fn range(part: &str, present: &Cores) -> Option<impl Iterator<Item = u16> + use<>> {
    let number = |text: &str| match text {
        "N" => present.0.last().copied(),
        // `parse` would take a sign.
        text if text.starts_with(|c: char| c.is_ascii_digit()) => {
            text.parse::<u16>().ok().filter(|core| u32::from(*core) < CORES_MAX)
        }
        _ => None,
    };
    let (bounds, groups) = match part.split_once(':') {
        Some((bounds, groups)) => (bounds, Some(groups)),
        None => (part, None),
    };
    let (first, last) = bounds.split_once('-').unwrap_or((bounds, bounds));
    let (first, last) = (number(first)?, number(last)?);
    let (used, group) = match groups {
        Some(groups) => groups.split_once('/').and_then(|(used, group)| Some((number(used)?, number(group)?)))?,
        None => (1, 1),
    };
    let is_sound = first <= last && used > 0 && used <= group;
    is_sound.then(|| (first..=last).filter(move |core| (core - first) % group < used))
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for core in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *core => *last = *core,
                _ => ranges.push((*core, *core)),
            }
        }
        for (at, (first, last)) in ranges.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<String> {
        let present = (0..8).collect();
        Cores::parse(text, &present).map(|cores| cores.to_string())
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (text, meant) in [
            ("0-3,5\n", "0-3,5"),
            ("", "none"),
            (" (null)", "none"),
            ("all", "0-7"),
            ("6-N", "6-7"),
            ("0-10:2/5", "0-1,5-6,10"),
            ("7,1,2,3", "1-3,7"),
            ("8191", "8191"),
        ] {
            assert_eq!(list(text).as_deref(), Some(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        for text in
            ["0-3,5,^2", "3-1", "-", "0-", "a", "+1", "1,,2", "65536", "8192", "0-3:2", "0-3:0/2", "0-3:1/0", "\0"]
        {
            assert_eq!(list(text), None, "{text}");
        }
        assert_eq!(Cores::parse("1-N", &Cores::default()), None);
    }
}
