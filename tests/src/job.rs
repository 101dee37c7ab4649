//! Smallest valid objects plus one change.

use serde_json::{Value, json};

use crate::data::{DATA_CLAIM, RUNS_CLAIM};

/// A `YoloTrainingJob` under construction: the smallest that trains, changed by its methods.
#[derive(Clone, Debug)]
pub struct Job {
    value: Value,
}

impl Job {
    /// A job that trains the smallest network for a few epochs on small scenes with two workers.
    pub fn new(name: &str) -> Self {
        Self {
            value: json!({
                "apiVersion": "yolo-operator.dev/v1alpha1",
                "kind": "YoloTrainingJob",
                "metadata": {"name": name},
                "spec": {
                    "model": {"size": "yolov5n"},
                    "dataset": {"persistentVolumeClaim": {"claimName": DATA_CLAIM, "subPath": "digits"}},
                    "training": {"epochs": 3, "batchSize": 8, "imageSize": 64},
                    "augmentation": {"fliplr": 0},
                    "workers": {"replicas": 2},
                    "output": {"persistentVolumeClaim": {"claimName": RUNS_CLAIM}},
                },
            }),
        }
    }

    /// Sets the value at a JSON pointer below `spec`, for example `/training/epochs`.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with /");
        let mut place = &mut self.value["spec"];
        for part in parent.split('/').skip(1) {
            place = &mut place[part];
        }
        place[key] = value.into();
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][name] = value.into();
        self
    }

    /// Removes the value at a JSON pointer below `spec`.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer starts with /");
        let parent = self.value["spec"]
            .pointer_mut(parent)
            .expect("the parent is there");
        parent.as_object_mut().expect("an object").remove(key);
        self
    }

    /// The manifest.
    pub fn manifest(&self) -> String {
        self.value.to_string()
    }
}
