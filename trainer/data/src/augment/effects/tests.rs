use super::*;
use crate::testing::noise;
use trainer_core::rng::{Purpose, stream};

const ALL: EffectChances = EffectChances {
    blur: 0.5,
    median_blur: 0.5,
    gray: 0.5,
    clahe: 0.5,
    brightness_contrast: 0.5,
    gamma: 0.5,
    jpeg: 0.5,
};

fn drawn(chances: EffectChances, k: u64) -> Effects {
    chances.draw(&mut stream(1, Purpose::Test, k, 0))
}

#[test]
fn each_effect_is_drawn_by_itself_and_within_its_range() {
    let mut counts = [0; 7];
    for k in 0..400 {
        let all = drawn(ALL, k);
        // Without blur and grey, the others are the same.
        let fewer = drawn(
            EffectChances {
                blur: 0.0,
                gray: 0.0,
                ..ALL
            },
            k,
        );
        assert_eq!(
            fewer,
            Effects {
                blur: None,
                gray: false,
                ..all.clone()
            }
        );
        assert_eq!(drawn(EffectChances::default(), k), Effects::default());
        let seen = [
            all.blur.is_some(),
            all.median_blur.is_some(),
            all.gray,
            all.clahe.is_some(),
            all.brightness_contrast.is_some(),
            all.gamma.is_some(),
            all.jpeg.is_some(),
        ];
        for (count, seen) in counts.iter_mut().zip(seen) {
            *count += u32::from(seen);
        }
        assert!(all.clahe.is_none_or(|limit| (1.0..4.0).contains(&limit)));
        assert!(
            all.brightness_contrast
                .is_none_or(|[b, c]| { (-0.2..0.2).contains(&b) && (0.8..1.2).contains(&c) })
        );
        assert!(all.gamma.is_none_or(|gamma| (0.8..1.2).contains(&gamma)));
        assert!(all.jpeg.is_none_or(|quality| (75..=100).contains(&quality)));
    }
    assert!(
        counts.iter().all(|count| (150..250).contains(count)),
        "{counts:?}"
    );
    let qualities: Vec<u8> = (0..2000).filter_map(|k| drawn(ALL, k).jpeg).collect();
    assert!(qualities.contains(&75) && qualities.contains(&100));
}

#[test]
fn rows_and_pictures_are_changed_alike() {
    let image = noise(1, (32, 8));
    let effects = Effects {
        gray: true,
        brightness_contrast: Some([0.1, 1.1]),
        gamma: Some(0.9),
        ..Effects::default()
    };
    assert!(!effects.need_picture());
    let mut picture = image.clone();
    effects.apply(&mut picture);
    assert_ne!(picture, image);
    let mut row = PlanarRow::new(32);
    let mut bytes = Vec::new();
    for source in image.as_raw().chunks_exact(96) {
        row.read(source);
        effects.for_rows().apply(&mut row);
        row.append_to(&mut bytes);
    }
    assert_eq!(bytes, picture.into_raw());
}

#[test]
fn brightness_comes_before_gamma() {
    let effects = Effects {
        brightness_contrast: Some([0.2, 1.0]),
        gamma: Some(2.0),
        ..Effects::default()
    };
    let table = effects.tones().unwrap();
    // (51 + 51)^2 / 255 = 40.8.
    assert_eq!(table[51], 41);
}

#[test]
fn each_whole_picture_effect_does_something() {
    let image = noise(1, (64, 64));
    let none = Effects::default();
    for effects in [
        Effects {
            blur: Some(Kernel::ALL[0]),
            ..none.clone()
        },
        Effects {
            median_blur: Some(Kernel::ALL[0]),
            ..none.clone()
        },
        Effects {
            clahe: Some(2.0),
            ..none.clone()
        },
        Effects {
            jpeg: Some(80),
            ..none.clone()
        },
    ] {
        assert!(effects.need_picture());
        let mut changed = image.clone();
        effects.apply(&mut changed);
        assert_ne!(changed, image, "{effects:?}");
    }
    let mut same = image.clone();
    none.apply(&mut same);
    assert_eq!(same, image);
}
