//! The text that describes a strategy, or something else that has options: a name, and options after a colon.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// Longest text that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// Why a text describes nothing. `subject` says what it was to describe: an option, or a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Nothing has this name.
    #[error("{subject} {text} is not known{nearest}; pass one of: {known}")]
    Name {
        /// What was to be described.
        subject: &'static str,
        /// As given.
        text: String,
        /// What may have been meant.
        nearest: String,
        /// All that there are.
        known: String,
    },
    /// Not an option of what has this name.
    #[error("{subject} {name} has no option '{option}'{instead}")]
    Option {
        /// What was to be described.
        subject: &'static str,
        /// Its name.
        name: String,
        /// As given.
        option: String,
        /// What may have been meant, those that there are, and how they are written.
        instead: String,
    },
    /// Not a value of the option.
    #[error("{subject} {name}: {option}={value} is not possible; write {option}={expected}")]
    Value {
        /// What was to be described.
        subject: &'static str,
        /// Its name.
        name: String,
        /// The option.
        option: String,
        /// As given.
        value: String,
        /// What is possible.
        expected: String,
    },
    /// An option is given twice.
    #[error("{subject} {name}: {option} is given twice")]
    Twice {
        /// What was to be described.
        subject: &'static str,
        /// Its name.
        name: String,
        /// The option.
        option: String,
    },
    /// Longer than any description.
    #[error("{subject}: a description has at most {TEXT_BYTES_MAX} bytes, not {bytes}")]
    Long {
        /// What was to be described.
        subject: &'static str,
        /// As given.
        bytes: usize,
    },
}

/// A text, taken apart: a name, and after a colon options, as in `checkfree:norm=l2-squared,moments=mix`. Whoever knows what the
/// name means asks for its options one by one, and at the end whether any other is there.
#[derive(Debug)]
pub struct Spec<'a> {
    subject: &'static str,
    name: &'a str,
    options: Vec<(&'a str, Option<&'a str>)>,
    /// Options that were asked for.
    asked: Vec<&'static str>,
}

impl<'a> Spec<'a> {
    /// Takes a text apart; errors begin with `subject`.
    ///
    /// # Errors
    /// A text that is too long, or an option given twice.
    pub fn parse(subject: &'static str, text: &'a str) -> Result<Self, SpecError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SpecError::Long { subject, bytes: text.len() });
        }
        let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let mut options: Vec<(&str, Option<&str>)> = Vec::new();
        for option in rest.into_iter().flat_map(|rest| rest.split(',').map(str::trim)) {
            let (key, value) =
                option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
            if options.iter().any(|(other, _)| *other == key) {
                return Err(SpecError::Twice { subject, name: name.to_owned(), option: key.to_owned() });
            }
            options.push((key, value));
        }
        Ok(Self { subject, name, options, asked: Vec::new() })
    }

    /// The name, which must be one of these.
    ///
    /// # Errors
    /// Another name.
    pub fn one_of(&self, known: &[&'static str]) -> Result<&'static str, SpecError> {
        known.iter().copied().find(|name| *name == self.name).ok_or_else(|| SpecError::Name {
            subject: self.subject,
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
        SpecError::Value { subject: self.subject, name, option, value, expected }
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

    /// A whole number in a range; `usual` where nothing is said.
    ///
    /// # Errors
    /// Anything else.
    pub fn whole(
        &mut self,
        option: &'static str,
        usual: u64,
        range: &RangeInclusive<u64>,
    ) -> Result<u64, SpecError> {
        self.parsed(option, "a whole number", range).map(|number| number.unwrap_or(usual))
    }

    /// Numbers in a range, with a slash between two; none where nothing is said.
    ///
    /// # Errors
    /// Anything else.
    pub fn numbers(
        &mut self,
        option: &'static str,
        range: &RangeInclusive<f64>,
    ) -> Result<Option<Vec<f64>>, SpecError> {
        let Some(text) = self.take(option) else { return Ok(None) };
        let number = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        let numbers: Option<Vec<f64>> = text.split('/').map(number).collect();
        numbers.map(Some).ok_or_else(|| {
            let (start, end) = (range.start(), range.end());
            self.refuse(
                option,
                text,
                format!("numbers from {start} to {end} with a slash between two, as 2/1/1"),
            )
        })
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
    ///
    /// # Errors
    /// An option that nobody asked for.
    pub fn finish(self) -> Result<(), SpecError> {
        match self.options.first() {
            None => Ok(()),
            Some((option, _)) => Err(SpecError::Option {
                subject: self.subject,
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
