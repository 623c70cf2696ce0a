//! The words of the stories and how likely each is. A word carries the space before it.

use super::voice::Alternative;

/// Every alternative allowed.
pub(super) const ANY: u32 = u32::MAX;

/// Words whose weights fall evenly from `first` to `last`.
const fn falling<const N: usize>(
    words: [&'static str; N],
    first: u32,
    last: u32,
) -> [Alternative<'static>; N] {
    let mut list = [(first, ""); N];
    let mut i = 0;
    while i < N {
        let steps = N as u32 - 1;
        list[i] = ((first * (steps - i as u32) + last * i as u32 + steps / 2) / steps, words[i]);
        i += 1;
    }
    list
}

/// What a girl or a boy is called, and the words that agree with it.
pub(super) struct Kind {
    pub(super) noun: &'static str,
    pub(super) she: &'static str,
    pub(super) start: &'static str,
    pub(super) her: &'static str,
    pub(super) names: [Alternative<'static>; 8],
}

pub(super) const KINDS: [Kind; 2] = [
    Kind {
        noun: " girl",
        she: " she",
        start: " She",
        her: " her",
        names: falling([" Lily", " Mia", " Anna", " Rosa", " Ella", " Nora", " Zoe", " Ivy"], 5, 2),
    },
    Kind {
        noun: " boy",
        she: " he",
        start: " He",
        her: " him",
        names: falling([" Tom", " Ben", " Max", " Sam", " Leo", " Jack", " Finn", " Otto"], 5, 2),
    },
];

/// How a story begins.
pub(super) const LEADS: [Alternative<'static>; 5] =
    [(4, "Once a"), (3, "Yesterday a"), (3, "Today a"), (2, "Far away a"), (2, "Long ago a")];

/// What the hero is like.
pub(super) const TRAITS: [Alternative<'static>; 10] = falling(
    [" kind", " brave", " shy", " clever", " curious", " lazy", " funny", " proud", " quiet", " lucky"],
    5,
    2,
);

/// What one of that trait does.
pub(super) const DEEDS: [&str; 10] =
    [" helped", " climbed", " hid", " thought", " peeped", " slept", " joked", " bowed", " listened", " won"];

/// Where things happen.
pub(super) const PLACES: [Alternative<'static>; 12] = falling(
    [
        " forest", " river", " hill", " garden", " village", " lake", " farm", " beach", " castle", " cave",
        " meadow", " market",
    ],
    5,
    2,
);

/// What ties one to a place.
pub(super) const LIVED: [Alternative<'static>; 5] =
    falling([" lived near the", " lived by the", " lived behind the", " came from the", " loved the"], 5, 2);

/// What an animal is like.
pub(super) const SIZES: [Alternative<'static>; 10] = falling(
    [" small", " big", " fat", " young", " fluffy", " noisy", " hungry", " merry", " sly", " spotted"],
    5,
    2,
);

/// The hero's companion.
pub(super) const ANIMALS: [Alternative<'static>; 10] =
    falling([" dog", " cat", " fox", " owl", " frog", " duck", " mouse", " bear", " pony", " goose"], 5, 2);

/// How that animal goes somewhere.
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

/// What that animal says.
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

/// What ties one to a treasure.
pub(super) const OWNED: [Alternative<'static>; 5] =
    falling([" had a", " loved a", " owned a", " got a", " kept a"], 5, 2);

/// The colour of a treasure.
pub(super) const COLOURS: [Alternative<'static>; 10] = falling(
    [" red", " blue", " green", " yellow", " white", " black", " golden", " pink", " purple", " brown"],
    5,
    2,
);

/// What is dropped and found.
pub(super) const TREASURES: [Alternative<'static>; 12] = falling(
    [" ball", " kite", " book", " drum", " boat", " hat", " bell", " lamp", " doll", " key", " ring", " cup"],
    5,
    2,
);

/// What the hero always says.
pub(super) const REFRAINS: [Alternative<'static>; 8] = falling(
    [
        " \"Oh dear!\"",
        " \"What fun!\"",
        " \"One, two!\"",
        " \"Let us see!\"",
        " \"Never fear!\"",
        " \"Hurry up!\"",
        " \"Well, well!\"",
        " \"Good morning!\"",
    ],
    5,
    2,
);

/// How an event begins; the last one begins the end.
pub(super) const LINKS: [Alternative<'static>; 21] = [
    (6, " Then"),
    (6, " Soon"),
    (6, " Later"),
    (6, " Suddenly"),
    (6, " Next"),
    (5, " Luckily"),
    (5, " Quietly"),
    (5, " Sadly"),
    (5, " Now"),
    (5, " Happily"),
    (4, " Slowly"),
    (4, " Tonight"),
    (4, " Again"),
    (4, " Meanwhile"),
    (4, " Proudly"),
    (3, " Bravely"),
    (3, " Once more"),
    (3, " By chance"),
    (3, " In spring"),
    (3, " In winter"),
    (13, " At last"),
];

/// The index of the link that begins the end.
pub(super) const AT_LAST: usize = LINKS.len() - 1;

/// How one feels.
pub(super) const FEELINGS: [Alternative<'static>; 10] = falling(
    [" happy", " sad", " angry", " scared", " tired", " hungry", " excited", " lonely", " bored", " sleepy"],
    5,
    2,
);

/// What one who feels so does.
pub(super) const REACTIONS: [&str; 10] =
    [" danced", " cried", " shouted", " hid", " sat down", " ate", " jumped", " sang", " yawned", " slept"];

/// What a thing is like; remembered.
pub(super) const ADJECTIVES: [Alternative<'static>; 20] = falling(
    [
        " tiny", " rusty", " strange", " round", " pretty", " broken", " heavy", " shiny", " dusty", " soft",
        " wet", " hollow", " crooked", " huge", " warm", " cold", " narrow", " lovely", " dirty", " secret",
    ],
    5,
    3,
);

/// What stands about.
pub(super) const THINGS: [Alternative<'static>; 20] = falling(
    [
        " tree", " box", " chair", " bridge", " flower", " basket", " wall", " window", " barrel", " ladder",
        " wagon", " table", " statue", " pot", " bed", " door", " bench", " cart", " gate", " fence",
    ],
    5,
    3,
);

/// Where something lies by a thing.
pub(super) const WHERE: [Alternative<'static>; 7] =
    falling([" under", " behind", " near", " inside", " beside", " on top of", " below"], 5, 2);

/// How a sentence ends.
pub(super) const CLOSES: [Alternative<'static>; 16] = [
    (8, "."),
    (4, " all day."),
    (4, " in the sun."),
    (4, " loudly."),
    (4, " slowly."),
    (4, " again."),
    (3, " quickly."),
    (3, " in silence."),
    (3, " gently."),
    (3, " outside."),
    (3, " alone."),
    (2, " early."),
    (2, " for hours."),
    (2, " with joy."),
    (2, " twice."),
    (2, " until dark."),
];

/// What is eaten.
pub(super) const FOODS: [Alternative<'static>; 10] = falling(
    [" cake", " carrot", " fish", " pie", " berry", " nut", " plum", " biscuit", " turnip", " bun"],
    5,
    2,
);

/// Who is met.
pub(super) const STRANGERS: [Alternative<'static>; 12] = falling(
    [
        " farmer", " king", " baker", " wizard", " sailor", " giant", " queen", " robber", " painter",
        " miller", " witch", " knight",
    ],
    5,
    2,
);

/// What strangers are like.
pub(super) const MOODS: [Alternative<'static>; 12] = falling(
    [
        " friendly",
        " grumpy",
        " tall",
        " rich",
        " poor",
        " busy",
        " wise",
        " silly",
        " polite",
        " blind",
        " cheerful",
        " nervous",
    ],
    5,
    2,
);

/// What a place is like.
pub(super) const SCENES: [Alternative<'static>; 12] = falling(
    [
        " quiet", " dark", " bright", " muddy", " empty", " foggy", " green", " sunny", " misty", " crowded",
        " snowy", " windy",
    ],
    5,
    2,
);

/// What a thing is made of.
pub(super) const STUFFS: [Alternative<'static>; 8] =
    falling([" wooden", " stone", " silver", " glass", " paper", " iron", " straw", " copper"], 5, 3);

/// What food is like.
pub(super) const TASTES: [Alternative<'static>; 8] =
    falling([" sweet", " fresh", " salty", " sour", " ripe", " sticky", " dry", " tasty"], 5, 2);

/// The shape of a thing.
pub(super) const SHAPES: [Alternative<'static>; 12] = falling(
    [
        " long", " short", " wide", " flat", " bent", " thin", " thick", " tall", " low", " curved", " neat",
        " plain",
    ],
    5,
    3,
);
