//! The words of the stories and how likely each is. A word carries the space before it.

use super::voice::Alternative;

/// Every alternative allowed.
pub(super) const ANY: u32 = u32::MAX;

/// What a girl or a boy is called, and the words that agree with it.
pub(super) struct Kind {
    pub(super) noun: &'static str,
    pub(super) she: &'static str,
    pub(super) start: &'static str,
    pub(super) possessive: &'static str,
    pub(super) her: &'static str,
    pub(super) names: [Alternative<'static>; 8],
}

pub(super) const KINDS: [Kind; 2] = [
    Kind {
        noun: " girl",
        she: " she",
        start: " She",
        possessive: " Her",
        her: " her",
        names: [
            (5, " Lily"),
            (5, " Mia"),
            (4, " Anna"),
            (4, " Rosa"),
            (3, " Ella"),
            (3, " Nora"),
            (2, " Zoe"),
            (2, " Ivy"),
        ],
    },
    Kind {
        noun: " boy",
        she: " he",
        start: " He",
        possessive: " His",
        her: " him",
        names: [
            (5, " Tom"),
            (5, " Ben"),
            (4, " Max"),
            (4, " Sam"),
            (3, " Leo"),
            (3, " Jack"),
            (2, " Finn"),
            (2, " Otto"),
        ],
    },
];

pub(super) const LEADS: [Alternative<'static>; 4] =
    [(4, "Once there was a"), (3, "Long ago lived a"), (3, "In a village lived a"), (2, "Far away lived a")];

/// A trait and the deed that goes with it.
pub(super) const TRAITS: [Alternative<'static>; 10] = [
    (5, " kind"),
    (5, " brave"),
    (4, " shy"),
    (4, " clever"),
    (4, " curious"),
    (3, " lazy"),
    (3, " funny"),
    (3, " proud"),
    (2, " quiet"),
    (2, " lucky"),
];

pub(super) const DEEDS: [&str; 10] =
    [" helped", " climbed", " hid", " thought", " peeped", " slept", " joked", " bowed", " listened", " won"];

pub(super) const PLACES: [Alternative<'static>; 12] = [
    (5, " forest"),
    (5, " river"),
    (4, " hill"),
    (4, " garden"),
    (4, " village"),
    (4, " lake"),
    (3, " farm"),
    (3, " beach"),
    (3, " castle"),
    (3, " cave"),
    (2, " meadow"),
    (2, " market"),
];

pub(super) const LIVED: [Alternative<'static>; 5] = [
    (5, " lived near the"),
    (4, " lived by the"),
    (4, " lived behind the"),
    (3, " came from the"),
    (2, " loved the"),
];

pub(super) const WITH: [Alternative<'static>; 3] = [(4, " with a"), (3, " and had a"), (3, " and fed a")];

pub(super) const SIZES: [Alternative<'static>; 10] = [
    (5, " small"),
    (5, " big"),
    (4, " fat"),
    (4, " young"),
    (4, " fluffy"),
    (3, " noisy"),
    (3, " hungry"),
    (3, " merry"),
    (2, " sly"),
    (2, " spotted"),
];

/// An animal, how it moves and what it says.
pub(super) const ANIMALS: [Alternative<'static>; 10] = [
    (5, " dog"),
    (5, " cat"),
    (4, " fox"),
    (4, " owl"),
    (4, " frog"),
    (3, " duck"),
    (3, " mouse"),
    (3, " bear"),
    (2, " pony"),
    (2, " goose"),
];

pub(super) const MOVES: [&str; 10] = [
    " ran",
    " crept",
    " trotted",
    " flew",
    " hopped",
    " waddled",
    " scurried",
    " stomped",
    " galloped",
    " marched",
];

pub(super) const SOUNDS: [&str; 10] = [
    " barked",
    " purred",
    " yelped",
    " hooted",
    " croaked",
    " quacked",
    " squeaked",
    " growled",
    " neighed",
    " honked",
];

pub(super) const OWNED: [Alternative<'static>; 3] =
    [(5, " toy was a"), (4, " treasure was a"), (2, " best gift was a")];

pub(super) const COLOURS: [Alternative<'static>; 10] = [
    (5, " red"),
    (5, " blue"),
    (4, " green"),
    (4, " yellow"),
    (4, " white"),
    (3, " black"),
    (3, " golden"),
    (3, " pink"),
    (2, " purple"),
    (2, " brown"),
];

pub(super) const TREASURES: [Alternative<'static>; 12] = [
    (5, " ball"),
    (5, " kite"),
    (4, " book"),
    (4, " drum"),
    (4, " boat"),
    (4, " hat"),
    (3, " bell"),
    (3, " lamp"),
    (3, " doll"),
    (3, " key"),
    (2, " ring"),
    (2, " cup"),
];

pub(super) const REFRAINS: [Alternative<'static>; 8] = [
    (5, " \"Oh dear!\""),
    (5, " \"What fun!\""),
    (4, " \"One, two!\""),
    (4, " \"Let us see!\""),
    (3, " \"Never fear!\""),
    (3, " \"Hurry up!\""),
    (2, " \"Well, well!\""),
    (2, " \"Good morning!\""),
];

/// How an event begins; the last one begins the end.
pub(super) const LINKS: [Alternative<'static>; 21] = [
    (6, " Then"),
    (6, " Soon"),
    (6, " One morning"),
    (6, " Later"),
    (5, " Suddenly"),
    (5, " Today"),
    (5, " At noon"),
    (5, " After lunch"),
    (5, " That night"),
    (5, " In the rain"),
    (4, " Before bed"),
    (4, " Next"),
    (4, " Once more"),
    (4, " By chance"),
    (4, " On Monday"),
    (4, " On Friday"),
    (3, " In spring"),
    (3, " In summer"),
    (3, " In winter"),
    (3, " Without a word"),
    (13, " At last"),
];

/// The index of the link that begins the end.
pub(super) const AT_LAST: usize = LINKS.len() - 1;

/// A feeling and what one does about it.
pub(super) const FEELINGS: [Alternative<'static>; 10] = [
    (5, " happy"),
    (5, " sad"),
    (4, " angry"),
    (4, " scared"),
    (4, " tired"),
    (3, " hungry"),
    (3, " excited"),
    (3, " lonely"),
    (2, " bored"),
    (2, " sleepy"),
];

pub(super) const REACTIONS: [&str; 10] =
    [" danced", " cried", " shouted", " hid", " sat down", " ate", " jumped", " sang", " yawned", " slept"];

pub(super) const ADJECTIVES: [Alternative<'static>; 20] = [
    (5, " tiny"),
    (5, " rusty"),
    (5, " strange"),
    (5, " round"),
    (5, " pretty"),
    (4, " broken"),
    (4, " heavy"),
    (4, " shiny"),
    (4, " dusty"),
    (4, " soft"),
    (4, " wet"),
    (4, " hollow"),
    (4, " crooked"),
    (4, " huge"),
    (4, " warm"),
    (3, " cold"),
    (3, " narrow"),
    (3, " lovely"),
    (3, " dirty"),
    (3, " secret"),
];

pub(super) const THINGS: [Alternative<'static>; 20] = [
    (5, " tree"),
    (5, " box"),
    (5, " chair"),
    (5, " bridge"),
    (5, " flower"),
    (4, " basket"),
    (4, " wall"),
    (4, " window"),
    (4, " barrel"),
    (4, " ladder"),
    (4, " wagon"),
    (4, " table"),
    (4, " statue"),
    (4, " pot"),
    (4, " bed"),
    (3, " door"),
    (3, " bench"),
    (3, " cart"),
    (3, " gate"),
    (3, " fence"),
];

pub(super) const WHERE: [Alternative<'static>; 7] = [
    (5, " under"),
    (4, " behind"),
    (4, " near"),
    (4, " inside"),
    (3, " beside"),
    (2, " on top of"),
    (2, " below"),
];

/// How a sentence ends.
pub(super) const CLOSES: [Alternative<'static>; 15] = [
    (12, "."),
    (4, " all day."),
    (4, " in the sun."),
    (4, " for hours."),
    (4, " with care."),
    (3, " until dark."),
    (3, " loudly."),
    (3, " slowly."),
    (3, " again."),
    (3, " quickly."),
    (3, " in silence."),
    (2, " with joy."),
    (2, " gently."),
    (2, " outside."),
    (2, " like a hero."),
];

pub(super) const FOODS: [Alternative<'static>; 10] = [
    (5, " cake"),
    (5, " carrot"),
    (4, " fish"),
    (4, " pie"),
    (4, " berry"),
    (3, " nut"),
    (3, " plum"),
    (3, " biscuit"),
    (2, " turnip"),
    (2, " bun"),
];

pub(super) const STRANGERS: [Alternative<'static>; 12] = [
    (5, " farmer"),
    (5, " king"),
    (4, " baker"),
    (4, " wizard"),
    (4, " sailor"),
    (4, " giant"),
    (3, " queen"),
    (3, " robber"),
    (3, " painter"),
    (3, " miller"),
    (2, " witch"),
    (2, " knight"),
];

pub(super) const MOODS: [Alternative<'static>; 12] = [
    (5, " friendly"),
    (5, " grumpy"),
    (4, " tall"),
    (4, " rich"),
    (4, " poor"),
    (4, " busy"),
    (3, " wise"),
    (3, " silly"),
    (3, " polite"),
    (3, " blind"),
    (2, " cheerful"),
    (2, " nervous"),
];

pub(super) const SCENES: [Alternative<'static>; 10] = [
    (5, " quiet"),
    (5, " dark"),
    (4, " bright"),
    (4, " muddy"),
    (4, " empty"),
    (3, " cold"),
    (3, " green"),
    (3, " full of birds"),
    (2, " misty"),
    (2, " crowded"),
];

pub(super) const STUFFS: [Alternative<'static>; 8] = [
    (5, " wooden"),
    (5, " stone"),
    (4, " silver"),
    (4, " glass"),
    (4, " paper"),
    (4, " iron"),
    (3, " straw"),
    (3, " copper"),
];

pub(super) const TASTES: [Alternative<'static>; 8] = [
    (5, " sweet"),
    (5, " fresh"),
    (4, " salty"),
    (4, " sour"),
    (3, " ripe"),
    (3, " sticky"),
    (2, " dry"),
    (2, " tasty"),
];

pub(super) const SHAPES: [Alternative<'static>; 12] = [
    (5, " long"),
    (5, " short"),
    (5, " wide"),
    (5, " flat"),
    (4, " bent"),
    (4, " thin"),
    (4, " thick"),
    (4, " tall"),
    (3, " low"),
    (3, " curved"),
    (3, " neat"),
    (3, " plain"),
];
