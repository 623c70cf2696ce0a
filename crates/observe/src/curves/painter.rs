//! Marks as pixels.

use super::drawing::{Drawing, Mark, Place};
use super::font;
use super::palette::{BAND_OPACITY, CURVE_WIDTH, LIGHT};
use thiserror::Error;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform,
};

/// Pixels to a unit of a drawing.
const PIXELS_PER_UNIT: f32 = 2.0;
/// A unit is what style sheets call a pixel, of which an inch has 96.
const PIXELS_PER_METRE: u32 = (96.0 * PIXELS_PER_UNIT / 0.0254) as u32;

/// Why a drawing can't be a picture of pixels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// There is no memory for so many pixels, or no number.
    #[error("a picture of {width} × {height} is too large")]
    Size {
        /// Units from left to right.
        width: f64,
        /// Units from top to bottom.
        height: f64,
    },
    /// Pixels can't be packed.
    #[error("can't pack the picture: {0}")]
    Pack(#[from] png::EncodingError),
}

/// The drawing as a PNG file: two pixels to a unit, on light paper. The same drawing gives the same bytes.
pub(super) fn png(drawing: &Drawing) -> Result<Vec<u8>, PictureError> {
    let Drawing { width, height, .. } = *drawing;
    let pixels = |units: f64| (units * f64::from(PIXELS_PER_UNIT)).ceil() as u32;
    let mut pixmap =
        Pixmap::new(pixels(width), pixels(height)).ok_or(PictureError::Size { width, height })?;
    pixmap.fill(colour(LIGHT.paper, 1.0));
    for mark in &drawing.marks {
        paint(mark, &mut pixmap);
    }
    // Paper is nowhere transparent.
    let rgb: Vec<u8> = pixmap.data().chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, pixmap.width(), pixmap.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_pixel_dims(Some(png::PixelDimensions {
        xppu: PIXELS_PER_METRE,
        yppu: PIXELS_PER_METRE,
        unit: png::Unit::Meter,
    }));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(file)
}

fn paint(mark: &Mark, pixmap: &mut Pixmap) {
    match mark {
        Mark::Rule { from, to } => {
            if let Some(path) = line(&[*from, *to]) {
                stroke(pixmap, &path, LIGHT.rule, &Stroke::default());
            }
        }
        Mark::Band { look, outline } => {
            if let Some(path) = line(outline) {
                let paint = paint_of(LIGHT.curves[look.colour()], BAND_OPACITY as f32);
                pixmap.fill_path(&path, &paint, FillRule::Winding, scale(), None);
            }
        }
        Mark::Curve { look, points, .. } => {
            if let Some(path) = line(points) {
                let dash = StrokeDash::new(look.dashes().to_vec(), 0.0);
                let pen = Stroke { dash, ..round(CURVE_WIDTH) };
                stroke(pixmap, &path, LIGHT.curves[look.colour()], &pen);
            }
        }
        Mark::Text { role, anchor, at, text } => {
            let left = at.0 - anchor.share() * font::width(text, role.size());
            let mut path = PathBuilder::new();
            font::write(text, (left, at.1), role.size(), &mut path);
            if let Some(path) = path.finish() {
                stroke(pixmap, &path, role.colour(&LIGHT), &round(role.stroke_width()));
            }
        }
    }
}

fn scale() -> Transform {
    Transform::from_scale(PIXELS_PER_UNIT, PIXELS_PER_UNIT)
}

fn stroke(pixmap: &mut Pixmap, path: &Path, rgb: u32, pen: &Stroke) {
    pixmap.stroke_path(path, &paint_of(rgb, 1.0), pen, scale(), None);
}

/// A pen with a round tip.
fn round(width: f64) -> Stroke {
    let (line_cap, line_join) = (LineCap::Round, LineJoin::Round);
    Stroke { width: width as f32, line_cap, line_join, ..Stroke::default() }
}

fn colour(rgb: u32, opacity: f32) -> Color {
    let [_, red, green, blue] = rgb.to_be_bytes();
    let mut colour = Color::from_rgba8(red, green, blue, u8::MAX);
    colour.set_alpha(opacity);
    colour
}

fn paint_of(rgb: u32, opacity: f32) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color(colour(rgb, opacity));
    paint
}

fn line(points: &[Place]) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let (x, y) = (*x as f32, *y as f32);
        if index == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    path.finish()
}
