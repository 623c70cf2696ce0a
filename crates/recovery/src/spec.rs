//! The text that describes a strategy: a name, and options after a colon.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// Longest text that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// Why a text describes no strategy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No strategy has this name.
    #[error("--recovery {text} is not known{nearest}; pass one of: {known}")]
    Name {
        /// As given.
        text: String,
        /// What may have been meant.
        nearest: String,
        /// All that there are.
        known: String,
    },
    /// Not an option of the strategy.
    #[error("--recovery {name} has no option '{option}'{instead}")]
    Option {
        /// The strategy.
        name: String,
        /// As given.
        option: String,
        /// What may have been meant, those that there are, and how they are written.
        instead: String,
    },
    /// Not a value of the option.
    #[error("--recovery {name}: {option}={value} is not possible; write {option}={expected}")]
    Value {
        /// The strategy.
        name: String,
        /// The option.
        option: String,
        /// As given.
        value: String,
        /// What is possible.
        expected: String,
    },
    /// An option is given twice.
    #[error("--recovery {name}: {option} is given twice")]
    Twice {
        /// The strategy.
        name: String,
        /// The option.
        option: String,
    },
    /// Longer than any strategy's description.
    #[error("--recovery: a strategy is described in at most {TEXT_BYTES_MAX} bytes, not {0}")]
    Long(usize),
}

/// A text, taken apart.
pub(crate) struct Spec<'a> {
    name: &'a str,
    options: Vec<(&'a str, Option<&'a str>)>,
    /// Options that the strategy has asked for.
    asked: Vec<&'static str>,
}

impl<'a> Spec<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, SpecError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SpecError::Long(text.len()));
        }
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let mut options: Vec<(&str, Option<&str>)> = Vec::new();
        for option in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (key, value) =
                option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
            if options.iter().any(|(other, _)| *other == key) {
                return Err(SpecError::Twice { name: name.to_owned(), option: key.to_owned() });
            }
            options.push((key, value));
        }
        Ok(Self { name, options, asked: Vec::new() })
    }

    /// The name, which must be one of these.
    pub(crate) fn one_of(&self, known: &[&'static str]) -> Result<&'static str, SpecError> {
        known.iter().copied().find(|name| *name == self.name).ok_or_else(|| SpecError::Name {
            text: self.name.to_owned(),
            nearest: nearest(self.name, known),
            known: known.join(", "),
        })
    }

    fn take(&mut self, option: &'static str) -> Option<&'a str> {
        self.asked.push(option);
        let index = self.options.iter().position(|(key, _)| *key == option)?;
        Some(self.options.remove(index).1.unwrap_or_default())
    }

    fn refuse(&self, option: &str, value: &str, expected: String) -> SpecError {
        let (name, option, value) = (self.name.to_owned(), option.to_owned(), value.to_owned());
        SpecError::Value { name, option, value, expected }
    }

    /// One of several values; the first where nothing is said.
    pub(crate) fn choice(
        &mut self,
        option: &'static str,
        values: &[&'static str],
    ) -> Result<&'static str, SpecError> {
        let Some(value) = self.take(option) else { return Ok(values.first().copied().unwrap_or_default()) };
        let found = values.iter().copied().find(|known| *known == value);
        found.ok_or_else(|| self.refuse(option, value, values.join(" or ")))
    }

    /// A number in a range; `kind` names it in words.
    fn parsed<T: FromStr + PartialOrd + Display>(
        &mut self,
        option: &'static str,
        kind: &str,
        range: &RangeInclusive<T>,
    ) -> Result<Option<T>, SpecError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        let number = value.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            self.refuse(option, value, format!("{kind} from {} to {}", range.start(), range.end()))
        })
    }

    /// A number in a range.
    pub(crate) fn number(
        &mut self,
        option: &'static str,
        usual: f64,
        range: &RangeInclusive<f64>,
    ) -> Result<f64, SpecError> {
        self.parsed(option, "a number", range).map(|number| number.unwrap_or(usual))
    }

    /// A whole number in a range.
    pub(crate) fn whole(
        &mut self,
        option: &'static str,
        usual: u64,
        range: &RangeInclusive<u64>,
    ) -> Result<u64, SpecError> {
        self.parsed(option, "a whole number", range).map(|number| number.unwrap_or(usual))
    }

    /// A whole number in a range, or a word, which is none.
    pub(crate) fn whole_or(
        &mut self,
        option: &'static str,
        word: &str,
        usual: u64,
        range: &RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        if self.options.contains(&(option, Some(word))) {
            self.take(option);
            return Ok(None);
        }
        let kind = format!("{word}, or a whole number");
        self.parsed(option, &kind, range).map(|number| Some(number.unwrap_or(usual)))
    }

    /// A number in a range, or `none`, which is the default.
    pub(crate) fn number_or_none(
        &mut self,
        option: &'static str,
        range: &RangeInclusive<f64>,
    ) -> Result<Option<f64>, SpecError> {
        if self.options.contains(&(option, Some("none"))) {
            self.take(option);
            return Ok(None);
        }
        self.parsed(option, "none, or a number", range)
    }

    /// A whole number in a range, or `none`; `usual` where nothing is said.
    pub(crate) fn whole_or_none(
        &mut self,
        option: &'static str,
        usual: Option<u64>,
        range: &RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        if self.options.contains(&(option, Some("none"))) {
            self.take(option);
            return Ok(None);
        }
        self.parsed(option, "none, or a whole number", range).map(|number| number.or(usual))
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), SpecError> {
        match self.options.first() {
            None => Ok(()),
            Some((option, _)) => Err(SpecError::Option {
                name: self.name.to_owned(),
                option: (*option).to_owned(),
                instead: format!(
                    "{}; {}",
                    nearest(option, &self.asked),
                    how_to_write(self.name, &self.asked)
                ),
            }),
        }
    }
}

/// `write match:OPTION=VALUE,OPTION=VALUE, with any of norm, clip`: the rest of a sentence about an option that there is not.
fn how_to_write(name: &str, options: &[&str]) -> String {
    if options.is_empty() {
        return format!("it has none: write {name}");
    }
    format!("write {name}, or {name}:OPTION=VALUE,OPTION=VALUE with any of {}", options.join(", "))
}

/// The known word that is most like this one, as the end of a sentence.
fn nearest(word: &str, known: &[&str]) -> String {
    let like = |other: &&str| strsim::jaro_winkler(word, other);
    let best = known.iter().copied().max_by(|a, b| like(a).total_cmp(&like(b)));
    best.filter(|best| like(best) > 0.7).map_or(String::new(), |best| format!(" (did you mean {best}?)"))
}
