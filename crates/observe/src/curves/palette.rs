//! Colours, lines and letters of charts: for browsers as a style sheet, for the painter as numbers.

/// How many colours of curves there are; then they begin again, with another dash.
const COLOURS: usize = 10;

/// Colours, as 0xRRGGBB.
pub(super) struct Theme {
    /// Behind everything.
    pub(super) paper: u32,
    /// Of titles and names.
    pub(super) ink: u32,
    /// Of numbers and notes.
    pub(super) quiet: u32,
    /// Of the grid.
    pub(super) rule: u32,
    /// Of curves.
    pub(super) curves: [u32; COLOURS],
}

/// By day; painted pictures are of these.
pub(super) const LIGHT: Theme = Theme {
    paper: 0xff_ff_ff,
    ink: 0x1c_20_24,
    quiet: 0x66_70_78,
    rule: 0xe3_e5_e2,
    curves: [
        0x1c_20_24, 0x0b_7a_75, 0xe0_65_0a, 0x5b_5b_d6, 0xb3_15_2b, 0x8a_74_00, 0x4f_9a_2f, 0xc4_3f_a8,
        0x2b_8f_d0, 0x87_92_a2,
    ],
};

const DARK: Theme = Theme {
    paper: 0x14_17_1a,
    ink: 0xe6_e9_eb,
    quiet: 0x98_a2_aa,
    rule: 0x2c_32_37,
    curves: [
        0xe6_e9_eb, 0x2f_b8_ac, 0xff_94_40, 0x8f_8f_ff, 0xff_5a_5f, 0xd9_c5_3a, 0x86_e0_5a, 0xff_8a_d8,
        0x4f_b4_ff, 0x8b_97_a8,
    ],
};

/// How wide curves are.
pub(super) const CURVE_WIDTH: f64 = 2.0;
/// How much of what is below it a band covers.
pub(super) const BAND_OPACITY: f64 = 0.13;

/// What a curve looks like: its place among the colours and dashes follows from its place among the curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look(pub(super) usize);

impl Look {
    /// Dashes and gaps in turn, with their classes. Lines have round ends, by which dashes are longer, and gaps shorter.
    const DASHES: [(&str, &[f32]); 3] = [("solid", &[]), ("dashed", &[7.0, 6.0]), ("dotted", &[0.1, 5.0])];

    /// Its place among the colours.
    pub(super) fn colour(self) -> usize {
        self.0 % COLOURS
    }

    /// Lengths of a dash and of the gap after it; none for an unbroken line.
    pub(super) fn dashes(self) -> &'static [f32] {
        Self::DASHES[self.dash()].1
    }

    /// The class of its dash.
    pub(super) fn dash_class(self) -> &'static str {
        Self::DASHES[self.dash()].0
    }

    fn dash(self) -> usize {
        self.0 / COLOURS % Self::DASHES.len()
    }
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Of the chart.
    Title,
    /// Of a curve.
    Name,
    /// A number, an axis, a note.
    Label,
}

impl Role {
    const ALL: [Self; 3] = [Self::Title, Self::Name, Self::Label];

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Name => "name",
            Self::Label => "label",
        }
    }

    /// The height of a line of it, from which letters' sizes follow.
    pub(super) fn size(self) -> f64 {
        match self {
            Self::Title => 17.0,
            Self::Name | Self::Label => 12.0,
        }
    }

    /// How bold, as style sheets count, and how wide a painted stroke is, as a share of the size.
    fn weight(self) -> (u32, f64) {
        match self {
            Self::Title => (600, 0.105),
            Self::Name | Self::Label => (400, 0.085),
        }
    }

    /// How wide the strokes of its letters are.
    pub(super) fn stroke_width(self) -> f64 {
        self.size() * self.weight().1
    }

    /// The variable of its colour.
    fn variable(self) -> &'static str {
        match self {
            Self::Title | Self::Name => "ink",
            Self::Label => "quiet",
        }
    }

    /// Its colour.
    pub(super) fn colour(self, theme: &Theme) -> u32 {
        match self {
            Self::Title | Self::Name => theme.ink,
            Self::Label => theme.quiet,
        }
    }
}

/// The style of charts on a page that has colours for paper, ink and the like.
pub(super) fn style() -> String {
    let curves = |theme: &Theme| -> String {
        theme.curves.iter().zip(0..).map(|(colour, n)| format!(" --c{n}: #{colour:06x};")).collect()
    };
    let mut style = by_theme(curves);
    for n in 0..COLOURS {
        style.push_str(&format!(".c{n} {{ stroke: var(--c{n}) }} .b{n} {{ fill: var(--c{n}) }}\n"));
    }
    for (class, dashes) in &Look::DASHES[1..] {
        let dashes: Vec<String> = dashes.iter().map(f32::to_string).collect();
        style.push_str(&format!(".{class} {{ stroke-dasharray: {} }}\n", dashes.join(" ")));
    }
    style
        .push_str(&format!(".curve {{ stroke-width: {CURVE_WIDTH} }} .band {{ opacity: {BAND_OPACITY} }}\n"));
    for role in Role::ALL {
        let (class, variable, size, weight) = (role.class(), role.variable(), role.size(), role.weight().0);
        style.push_str(&format!(
            "svg .{class} {{ font: {weight} {size}px system-ui, sans-serif; fill: var(--{variable}) }}\n"
        ));
    }
    style.push_str(include_str!("style.css"));
    style
}

/// The style of a chart that is a file of its own.
pub(super) fn style_of_file() -> String {
    let shared = |theme: &Theme| {
        let Theme { paper, ink, quiet, rule, .. } = theme;
        format!(" --paper: #{paper:06x}; --ink: #{ink:06x}; --quiet: #{quiet:06x}; --rule: #{rule:06x};")
    };
    by_theme(shared) + &style()
}

fn by_theme(variables: impl Fn(&Theme) -> String) -> String {
    format!(
        ":root {{{} }}\n@media (prefers-color-scheme: dark) {{ :root {{{} }} }}\n",
        variables(&LIGHT),
        variables(&DARK)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A colour in CIE L*a*b*, white D65.
    fn lab(colour: u32) -> [f64; 3] {
        let linear = |shift: u32| {
            let part = f64::from(colour >> shift & 0xff) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        let (red, green, blue) = (linear(16), linear(8), linear(0));
        let cube = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let x = cube((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047);
        let y = cube(0.2126 * red + 0.7152 * green + 0.0722 * blue);
        let z = cube((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn colours_of_curves_are_told_apart() {
        let distance = |one: u32, other: u32| {
            let squares = lab(one).into_iter().zip(lab(other)).map(|(a, b)| (a - b) * (a - b));
            squares.sum::<f64>().sqrt()
        };
        for Theme { paper, curves, .. } in [LIGHT, DARK] {
            for (place, one) in curves.iter().enumerate() {
                assert!(distance(*one, paper) > 40.0, "{one:06x} on {paper:06x}");
                for other in &curves[..place] {
                    assert!(distance(*one, *other) > 30.0, "{one:06x} and {other:06x}");
                }
            }
        }
    }
}
