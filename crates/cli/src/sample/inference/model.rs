//! The stand-in for the network: pixels are averaged over 32 × 32 blocks and projected on 1,000 classes by weights of a
//! fixed seed. Equal images give equal logits on every machine, every pixel counts, and no weights have to be shipped.

/// The one model.
pub(super) const MODEL: &str = "resnet50";
/// Its input tensor.
pub(super) const INPUT: &str = "data";
/// Its output tensor.
pub(super) const OUTPUT: &str = "resnetv17_dense0_fwd";
/// Width and height of an image, in pixels.
pub(super) const SIDE: usize = 224;
/// Classes, and so logits per image.
pub(super) const CLASSES: usize = 1000;
/// Most images in one request.
pub(super) const BATCH_MAX: usize = 8;
/// Values of one image: three colours.
pub(super) const IMAGE_VALUES: usize = 3 * SIDE * SIDE;

const BLOCK: usize = 32;
const BLOCKS: usize = SIDE / BLOCK;
const FEATURES: usize = 3 * BLOCKS * BLOCKS;
/// Any number serves; a change would change every answer.
const SEED: u64 = 50;

/// The weights, one row of features per class.
#[derive(Debug)]
pub(super) struct Model {
    weights: Vec<f64>,
}

impl Model {
    /// Makes the weights.
    pub(super) fn load() -> Self {
        let mut state = SEED;
        let weights = std::iter::repeat_with(|| weight(&mut state))
            .take(CLASSES * FEATURES)
            .collect();
        Self { weights }
    }

    /// Logits of every image, one image after the other. `pixels` holds whole images.
    pub(super) fn infer(&self, pixels: &[f32]) -> Vec<f32> {
        let mut logits = Vec::with_capacity(pixels.len() / IMAGE_VALUES * CLASSES);
        for image in pixels.chunks_exact(IMAGE_VALUES) {
            let features = pool(image);
            for row in self.weights.chunks_exact(FEATURES) {
                let sum: f64 = row.iter().zip(&features).map(|(w, f)| w * f).sum();
                logits.push(to_f32(sum));
            }
        }
        logits
    }
}

/// The average of each block of each colour.
fn pool(image: &[f32]) -> Vec<f64> {
    const PIXELS_PER_BLOCK: f64 = 1024.0;
    let mut sums = vec![0.0; FEATURES];
    for (row, line) in image.chunks_exact(SIDE).enumerate() {
        // Rows of all colours follow each other, and SIDE is a multiple of BLOCK.
        let first = row / BLOCK * BLOCKS;
        for (column, block) in line.chunks_exact(BLOCK).enumerate() {
            let sum: f64 = block.iter().copied().map(f64::from).sum();
            if let Some(feature) = sums.get_mut(first + column) {
                *feature += sum / PIXELS_PER_BLOCK;
            }
        }
    }
    sums
}

/// The next of SplitMix64 (Steele, Lea, Flood 2014), as a weight from -0.5 to 0.5.
fn weight(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let high = u32::try_from(z >> 32).unwrap_or(u32::MAX);
    f64::from(high) / f64::from(u32::MAX) - 0.5
}

/// Rounds to the precision of the tensor; what does not fit becomes the largest number that does.
pub(super) fn to_f32(value: f64) -> f32 {
    let value = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX));
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "rounding to FP32 is what is wanted, and the range was checked"
    )]
    let rounded = value as f32;
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_counts_and_equal_images_give_equal_logits() {
        let model = Model::load();
        let black = model.infer(&vec![0.0; IMAGE_VALUES]);
        assert_eq!(black, vec![0.0; CLASSES]);
        for pixel in [0, 31, 32, SIDE, IMAGE_VALUES / 2, IMAGE_VALUES - 1] {
            let mut image = vec![0.0; IMAGE_VALUES];
            image[pixel] = 255.0;
            let logits = model.infer(&image);
            assert_ne!(logits, black, "pixel {pixel}");
            assert_eq!(logits, model.infer(&image));
        }
    }

    #[test]
    fn images_of_a_batch_do_not_touch_each_other() {
        let model = Model::load();
        let mut batch = vec![1.0; IMAGE_VALUES];
        batch.extend(vec![2.0; IMAGE_VALUES]);
        let both = model.infer(&batch);
        assert_eq!(both.len(), 2 * CLASSES);
        assert_eq!(both[..CLASSES], model.infer(&vec![1.0; IMAGE_VALUES]));
        assert_eq!(both[CLASSES..], model.infer(&vec![2.0; IMAGE_VALUES]));
    }

    #[test]
    fn answers_are_finite_for_the_largest_pixels() {
        let logits = Model::load().infer(&vec![f32::MAX; IMAGE_VALUES]);
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
}
