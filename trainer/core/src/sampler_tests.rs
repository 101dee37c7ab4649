use super::*;
use proptest::prelude::*;

/// Walks one epoch with `world` ranks and joins the shares in rank order.
fn walk(order: &EpochOrder, world: usize) -> Vec<u32> {
    let mut all = Vec::new();
    let mut position = Some(0);
    while let Some(at) = position {
        for rank in 0..world {
            let share = order.share(at, rank, world);
            assert_eq!(share.first, all.len());
            all.extend_from_slice(share.images);
        }
        position = order.next(at);
    }
    all
}

#[test]
fn the_order_never_changes() {
    let sampler = Sampler::new(42, 10, 4).unwrap();
    assert_eq!(sampler.epoch(0).indices(), [7, 3, 8, 1, 0, 9, 5, 4, 6, 2]);
    assert_ne!(sampler.epoch(0), sampler.epoch(1));
}

#[test]
fn a_short_batch_may_leave_ranks_without_images() {
    let order = Sampler::new(0, 10, 8).unwrap().given((0..10).collect());
    let last: Vec<_> = (0..4).map(|rank| order.share(8, rank, 4).images).collect();
    assert_eq!(last, [&[8_u32][..], &[9], &[], &[]]);
    assert_eq!(order.next(0), Some(8));
    assert_eq!(order.next(8), None);
    assert_eq!(order.share(10, 0, 4).images, &[] as &[u32]);
}

#[test]
fn impossible_samplers_are_refused() {
    let refused = |images, batch| Sampler::new(0, images, batch).unwrap_err();
    assert_eq!(refused(0, 4), SamplerError::NoImages);
    assert_eq!(refused(4, 0), SamplerError::NoBatch);
    let many = 1 << 32;
    assert_eq!(
        refused(many, 1),
        SamplerError::TooManyImages { images: many }
    );
}

proptest! {
    #[test]
    fn any_world_sees_each_image_once_in_the_same_order(
        seed: u64, epoch in 0_u64..1000, images in 1_usize..300, batch in 1_usize..40,
        world in 1_usize..9,
    ) {
        let sampler = Sampler::new(seed, images, batch).unwrap();
        let order = sampler.epoch(epoch);
        let joined = walk(&order, world);
        prop_assert_eq!(&joined, &walk(&order, 1));
        prop_assert_eq!(&joined[..], order.indices());
        let mut sorted = joined;
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..images as u32).collect::<Vec<_>>());
        prop_assert_eq!(order.steps_from(0), sampler.steps_per_epoch());
    }

    #[test]
    fn resuming_with_another_batch_and_world_misses_nothing(
        seed: u64, images in 1_usize..200, batches in (1_usize..20, 1_usize..20),
        steps in 0_usize..10, world in 1_usize..6,
    ) {
        let before = Sampler::new(seed, images, batches.0).unwrap().epoch(3);
        let after = Sampler::new(seed, images, batches.1).unwrap().epoch(3);
        let mut seen = Vec::new();
        let mut position = 0;
        for _ in 0..steps {
            seen.extend_from_slice(before.batch(position));
            position = seen.len();
        }
        for _ in 0..after.steps_from(position) {
            for rank in 0..world {
                seen.extend_from_slice(after.share(position, rank, world).images);
            }
            position = seen.len();
        }
        prop_assert_eq!(&seen[..], after.indices());
    }

    #[test]
    fn groups_stay_together(images in 1_usize..60, batch in 1_usize..6, world in 1_usize..5) {
        let order = Sampler::new(7, images, 4 * batch).unwrap().in_groups(4).epoch(0);
        for position in (0..images).step_by(4 * batch) {
            let alone: Vec<_> = order.batch(position).chunks(4).collect();
            let shares = (0..world).map(|rank| order.share(position, rank, world).images);
            let joined: Vec<_> = shares.flat_map(|images| images.chunks(4)).collect();
            prop_assert_eq!(alone, joined);
        }
    }

    #[test]
    fn split_is_a_balanced_partition(count in 0_usize..1000, world in 1_usize..50) {
        let parts: Vec<_> = (0..world).map(|rank| split(count, rank, world)).collect();
        prop_assert_eq!(parts[0].0, 0);
        prop_assert_eq!(parts[world - 1].1, count);
        prop_assert!(parts.windows(2).all(|w| w[0].1 == w[1].0));
        let sizes: Vec<_> = parts.iter().map(|(a, b)| b - a).collect();
        prop_assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] - sizes[world - 1] <= 1);
    }
}
