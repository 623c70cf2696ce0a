use std::collections::HashSet;
use std::convert::Infallible;

use super::tale::tell;
use super::voice::{Alternative, Voice, Writer, is_allowed};
use super::words::{ANY, LINKS};
use super::{NotAStory, StoryCorpus, nats_of};

/// Writes like a [`Writer`], and checks every choice it is given.
struct Checker {
    writer: Writer,
    /// How often each link was taken.
    links: Vec<u32>,
    /// The choices met.
    checked: HashSet<Vec<String>>,
}

impl Voice for Checker {
    type Stop = Infallible;

    fn choose(&mut self, options: &[Alternative<'_>], allowed: u32) -> Result<usize, Infallible> {
        assert!(options.len() <= 32, "one bit an alternative");
        let words: Vec<String> =
            (0..options.len()).filter(|&i| is_allowed(allowed, i)).map(|i| options[i].1.to_owned()).collect();
        assert!(options.iter().all(|option| option.0 > 0), "an alternative nobody takes: {words:?}");
        for (i, a) in words.iter().enumerate() {
            for (j, b) in words.iter().enumerate() {
                assert!(i == j || !b.starts_with(a.as_str()), "{a:?} begins {b:?}");
            }
        }
        let taken = self.writer.choose(options, allowed)?;
        if options == LINKS {
            self.links[taken] += 1;
        }
        self.checked.insert(words);
        Ok(taken)
    }

    fn say(&mut self, words: &str) -> Result<(), Infallible> {
        self.writer.say(words)
    }
}

#[test]
fn no_alternative_begins_another_and_frequencies_follow_weights() {
    let mut checker =
        Checker { writer: Writer::new(5, 0), links: vec![0; LINKS.len()], checked: HashSet::new() };
    for _ in 0..4000 {
        let Ok(()) = tell(&mut checker);
    }
    assert!(checker.checked.len() > 60, "only {} different choices were met", checker.checked.len());
    let drawn = f64::from(checker.links.iter().sum::<u32>());
    let total = f64::from(LINKS.iter().map(|link| link.0).sum::<u32>());
    for (link, &count) in LINKS.iter().zip(&checker.links) {
        let p = f64::from(link.0) / total;
        let (mean, deviation) = (drawn * p, (drawn * p * (1.0 - p)).sqrt());
        assert!(
            (f64::from(count) - mean).abs() < 5.0 * deviation,
            "{link:?} taken {count} times, not {mean}"
        );
    }
}

/// The figure is −ln of the product of the weights' shares, reckoned here for the first choices of a story by hand.
#[test]
fn nats_are_minus_ln_p() {
    let mut writer = Writer::new(1, 0);
    let options: [Alternative<'_>; 3] = [(1, "a"), (2, "b"), (5, "c")];
    let mut expected = 0.0;
    for allowed in [ANY, 0b011, 0b100, 0b110] {
        let Ok(taken) = writer.choose(&options, allowed);
        let total: u32 = (0..3).filter(|&i| is_allowed(allowed, i)).map(|i| options[i].0).sum();
        expected -= (f64::from(options[taken].0) / f64::from(total)).ln();
    }
    assert!((writer.nats - expected).abs() < 1e-12, "{} instead of {expected}", writer.nats);
    assert!(expected > 0.0);
}

#[test]
fn text_tells_the_derivation() {
    let corpus = StoryCorpus::generate(3, 300_000);
    let read: f64 = corpus.text.lines().map(|story| nats_of(story).unwrap()).sum();
    assert_eq!(corpus.text.lines().count(), corpus.stories);
    assert!((read - corpus.nats).abs() < 1e-6, "told with {} nats, read with {read}", corpus.nats);
}

#[test]
fn what_the_grammar_does_not_say_is_refused() {
    let corpus = StoryCorpus::generate(3, 20_000);
    let mut altered = 0;
    for story in corpus.text.lines() {
        let swap = |from: &str, to: &str| {
            story.rfind(from).map(|at| (at, story[..at].to_owned() + to + &story[at + from.len()..]))
        };
        for (at, text) in [swap(", so she", ", so he"), swap(", so he ", ", so she ")].into_iter().flatten() {
            altered += 1;
            let NotAStory { offset } = nats_of(&text).unwrap_err();
            assert!((at..at + 6).contains(&offset), "{offset} instead of {at}: {text}");
        }
        assert!(nats_of(&story[..story.len() - 1]).is_err(), "a story without its end");
        assert!(nats_of(&format!("{story} ")).is_err(), "a story with more than its end");
    }
    assert!(altered > 10, "only {altered} stories could be altered");
    assert_eq!(nats_of(""), Err(NotAStory { offset: 0 }));
}

/// The bytes are part of the contract: runs on different machines train on the same stories.
#[test]
fn the_same_seed_tells_the_same_stories_everywhere() {
    let corpus = StoryCorpus::generate(42, 100_000);
    assert_eq!(
        blake3::hash(corpus.text.as_bytes()).to_hex().as_str(),
        "e8662f4fd52c6de5b0a12a28c60b44b7b29adc13bbdc5b8d36dc5fbe008ad79d"
    );
    assert_eq!(corpus.text, StoryCorpus::generate(42, 100_000).text);
    assert!(StoryCorpus::generate(42, 200_000).text.starts_with(&corpus.text));
    assert_ne!(StoryCorpus::generate(43, 100_000).text, corpus.text);
    assert_eq!(StoryCorpus::generate(42, 0), StoryCorpus { text: String::new(), nats: 0.0, stories: 0 });
}
