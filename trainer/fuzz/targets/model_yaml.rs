//! Model files.
#![no_main]

use contract::spec::Model;
use fuzz as _; // its allocator
use libfuzzer_sys::fuzz_target;
use trainer_model::architecture::{Architecture, Form};

fuzz_target!(|text: &str| {
    let model = Model {
        architecture: Some(text.to_owned()),
        ..Model::default()
    };
    if let Ok(architecture) = Architecture::of(&model, Some(3)) {
        for form in [Form::Trainable, Form::Fused] {
            assert!(!architecture.slots(form).is_empty(), "no tensors");
        }
        assert!(!architecture.levels().is_empty(), "no levels");
    }
});
