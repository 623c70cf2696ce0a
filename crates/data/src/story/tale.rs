//! The grammar: how a story unfolds. Facts set early decide words later.

use super::voice::Voice;
use super::words::{
    ADJECTIVES, ANIMALS, ANY, AT_LAST, CLOSES, COLOURS, DEEDS, FEELINGS, FOODS, KINDS, Kind, LEADS, LINKS,
    LIVED, MOODS, MOVES, OWNED, PLACES, REACTIONS, REFRAINS, SCENES, SHAPES, SIZES, SOUNDS, STRANGERS,
    STUFFS, TASTES, THINGS, TRAITS, TREASURES, WHERE,
};

/// A thing that stands about; indices into the word lists.
#[derive(Clone, Copy)]
struct Thing {
    adjective: usize,
    noun: usize,
}

/// A thing, and where something lies by it.
#[derive(Clone, Copy)]
struct Spot {
    side: usize,
    thing: Thing,
}

/// What is settled about the story being told; indices into the word lists.
struct Tale<'v, V: Voice> {
    voice: &'v mut V,
    kind: &'static Kind,
    name: &'static str,
    character: usize,
    place: usize,
    animal: usize,
    colour: usize,
    treasure: usize,
    refrain: usize,
    /// Where the treasure was dropped, while it is lost.
    lost: Option<Spot>,
}

/// Tells one story, to its full stop.
pub(super) fn tell<V: Voice>(voice: &mut V) -> Result<(), V::Stop> {
    let mut tale = Tale::begin(voice)?;
    while tale.event()? {}
    tale.end()
}

impl<'v, V: Voice> Tale<'v, V> {
    fn begin(voice: &'v mut V) -> Result<Self, V::Stop> {
        voice.choose(&LEADS, ANY)?;
        let character = voice.choose(&TRAITS, ANY)?;
        let kind = &KINDS[voice.choose(&[(1, KINDS[0].noun), (1, KINDS[1].noun)], ANY)?];
        voice.say(" named")?;
        let name = kind.names[voice.choose(&kind.names, ANY)?].1;
        voice.choose(&LIVED, ANY)?;
        voice.choose(&SCENES, ANY)?;
        let place = voice.choose(&PLACES, ANY)?;
        voice.say(" with a")?;
        voice.choose(&SIZES, ANY)?;
        let animal = voice.choose(&ANIMALS, ANY)?;
        voice.say(".")?;
        voice.say(kind.start)?;
        voice.choose(&OWNED, ANY)?;
        voice.choose(&ADJECTIVES, ANY)?;
        let colour = voice.choose(&COLOURS, ANY)?;
        let treasure = voice.choose(&TREASURES, ANY)?;
        voice.say(" from a")?;
        voice.choose(&MOODS, ANY)?;
        voice.choose(&STRANGERS, ANY)?;
        voice.say(".")?;
        voice.say(name)?;
        voice.say(" always said,")?;
        let refrain = voice.choose(&REFRAINS, ANY)?;
        Ok(Self { voice, kind, name, character, place, animal, colour, treasure, refrain, lost: None })
    }

    /// One event, or the words that begin the end (false).
    fn event(&mut self) -> Result<bool, V::Stop> {
        if self.voice.choose(&LINKS, ANY)? == AT_LAST {
            return Ok(false);
        }
        match self.voice.choose(&[(5, self.name), (6, self.kind.she), (5, " the")], ANY)? {
            2 => {
                self.say(ANIMALS[self.animal].1)?;
                self.animal_does()?;
            }
            _ => self.hero_does()?,
        }
        Ok(true)
    }

    fn hero_does(&mut self) -> Result<(), V::Stop> {
        const WENT: u32 = 0;
        const PLAYED: u32 = 6;
        const DROPPED: u32 = 7;
        const LOOKED: u32 = 8;
        const FOUND: u32 = 9;
        let away = if self.lost.is_some() { 1 << PLAYED | 1 << DROPPED } else { 1 << LOOKED | 1 << FOUND };
        let done = self.voice.choose(
            &[
                (5, " went to the"),
                (4, " felt"),
                (7, " saw a"),
                (3, " said,"),
                (4, " gave the"),
                (4, " met a"),
                (5, " played with the"),
                (5, " dropped the"),
                (5, " looked for the"),
                (6, " found the"),
                (3, " was"),
            ],
            ANY & !away,
        )?;
        match done as u32 {
            WENT => {
                self.went()?;
                self.say(" with the")?;
                self.say(ANIMALS[self.animal].1)?;
                self.close()
            }
            1 => {
                let feeling = self.voice.choose(&FEELINGS, ANY)?;
                self.so(REACTIONS[feeling])
            }
            2 => {
                self.thing()?;
                match self.voice.choose(&[(4, "."), (3, " by the"), (3, " and said,")], ANY)? {
                    0 => Ok(()),
                    1 => {
                        self.say(PLACES[self.place].1)?;
                        self.close()
                    }
                    _ => self.say(REFRAINS[self.refrain].1),
                }
            }
            3 => self.say(REFRAINS[self.refrain].1),
            4 => {
                self.say(ANIMALS[self.animal].1)?;
                self.say(" a")?;
                self.food()?;
                self.say(", and it")?;
                self.say(SOUNDS[self.animal])?;
                self.close()
            }
            5 => self.met(),
            PLAYED => {
                self.belonging()?;
                self.close()
            }
            DROPPED => {
                self.belonging()?;
                self.lost = Some(self.spot()?);
                self.close()
            }
            LOOKED => {
                self.belonging()?;
                self.spot()?;
                self.close()
            }
            FOUND => self.found(),
            _ => {
                self.say(TRAITS[self.character].1)?;
                self.so(DEEDS[self.character])
            }
        }
    }

    fn animal_does(&mut self) -> Result<(), V::Stop> {
        const LOOKED: u32 = 3;
        const FOUND: u32 = 4;
        let away = if self.lost.is_some() { 1 << LOOKED } else { 1 << FOUND };
        let done = self.voice.choose(
            &[
                (5, MOVES[self.animal]),
                (6, SOUNDS[self.animal]),
                (5, " slept"),
                (4, " looked at the"),
                (5, " found the"),
                (4, " shared a"),
            ],
            ANY & !away,
        )?;
        match done as u32 {
            0 => {
                self.say(" to the")?;
                self.went()?;
                self.say(" with")?;
                self.say(self.name)?;
                self.close()
            }
            1 => {
                self.say(" at a")?;
                self.thing()?;
                self.close()
            }
            2 => {
                self.spot()?;
                self.close()
            }
            LOOKED => {
                self.belonging()?;
                self.close()
            }
            FOUND => self.found(),
            _ => {
                self.food()?;
                self.say(" with")?;
                self.say(self.name)?;
                self.close()
            }
        }
    }

    fn went(&mut self) -> Result<(), V::Stop> {
        self.voice.choose(&SCENES, ANY)?;
        self.place = self.voice.choose(&PLACES, ANY & !(1 << self.place))?;
        Ok(())
    }

    fn met(&mut self) -> Result<(), V::Stop> {
        self.voice.choose(&MOODS, ANY)?;
        self.voice.choose(&STRANGERS, ANY)?;
        match self.voice.choose(&[(3, "."), (4, " who gave"), (4, " by the")], ANY)? {
            0 => Ok(()),
            1 => {
                self.say(self.kind.her)?;
                self.say(" a")?;
                self.food()?;
                self.close()
            }
            _ => {
                self.say(PLACES[self.place].1)?;
                self.close()
            }
        }
    }

    /// The treasure is where it was dropped.
    fn found(&mut self) -> Result<(), V::Stop> {
        self.belonging()?;
        if let Some(spot) = self.lost.take() {
            self.say(WHERE[spot.side].1)?;
            self.say(" the")?;
            self.say(ADJECTIVES[spot.thing.adjective].1)?;
            self.say(THINGS[spot.thing.noun].1)?;
        }
        self.close()
    }

    fn spot(&mut self) -> Result<Spot, V::Stop> {
        let side = self.voice.choose(&WHERE, ANY)?;
        self.say(" a")?;
        let thing = self.thing()?;
        Ok(Spot { side, thing })
    }

    fn thing(&mut self) -> Result<Thing, V::Stop> {
        self.voice.choose(&SHAPES, ANY)?;
        let adjective = self.voice.choose(&ADJECTIVES, ANY)?;
        self.voice.choose(&STUFFS, ANY)?;
        let noun = self.voice.choose(&THINGS, ANY)?;
        Ok(Thing { adjective, noun })
    }

    /// Something sweet, say, to eat.
    fn food(&mut self) -> Result<(), V::Stop> {
        self.voice.choose(&TASTES, ANY)?;
        self.voice.choose(&FOODS, ANY)?;
        Ok(())
    }

    fn belonging(&mut self) -> Result<(), V::Stop> {
        self.say(COLOURS[self.colour].1)?;
        self.say(TREASURES[self.treasure].1)
    }

    /// Then what the hero does about it.
    fn so(&mut self, deed: &str) -> Result<(), V::Stop> {
        self.say(", so")?;
        self.say(self.kind.she)?;
        self.say(deed)?;
        self.close()
    }

    fn end(mut self) -> Result<(), V::Stop> {
        self.say(" the")?;
        self.say(TRAITS[self.character].1)?;
        self.say(self.kind.noun)?;
        self.say(" and the")?;
        self.say(ANIMALS[self.animal].1)?;
        self.say(" went home")?;
        self.close()
    }

    /// Ends the sentence, perhaps telling how it was done.
    fn close(&mut self) -> Result<(), V::Stop> {
        self.voice.choose(&CLOSES, ANY)?;
        Ok(())
    }

    fn say(&mut self, words: &str) -> Result<(), V::Stop> {
        self.voice.say(words)
    }
}
