//! What a worker's pod mounts, and where.

use contract::config::JobConfig;
use contract::paths;
use contract::spec::{Cache, DataFile, VolumeClaim};
use crds::names;
use crds::v1alpha1::Workers;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, EmptyDirVolumeSource, ImageVolumeSource, KeyToPath,
    PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, SecretProjection, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{is_group, keeper};

pub(super) const CONFIG: &str = "config";
pub(super) const AGENT: &str = "agent";
pub(super) const SHARED_MEMORY: &str = "shared-memory";
pub(super) const KEEP: &str = "keep";
const SCRATCH: &str = "scratch";
const CACHE: &str = "image-cache";
const DATASET: &str = "dataset";
const DATA_FILE: &str = "data-file";
pub(super) const OUTPUT: &str = "output";

/// Whether data set and output are on the same claim. A pod then has one volume for both: two volumes of
/// one claim in a pod do not mount with every driver.
fn one_claim(config: &JobConfig) -> bool {
    let output = output(config);
    dataset_claim(config)
        .is_some_and(|dataset| output.is_some_and(|output| dataset.name == output.name))
}

/// A claim that a pod mounts.
pub(super) struct Claim {
    pub name: String,
    pub sub_path: Option<String>,
}

impl From<&VolumeClaim> for Claim {
    fn from(claim: &VolumeClaim) -> Self {
        Self {
            name: claim.claim_name.clone(),
            sub_path: claim.sub_path.clone(),
        }
    }
}

/// The claim of the results: the user's, or else the one that was made for the job; none where they are kept in an
/// object store.
fn output(config: &JobConfig) -> Option<Claim> {
    let output = &config.spec.output;
    let own = output.persistent_volume_claim.as_ref().map(Claim::from);
    let made = output.volume_claim_template.as_ref().map(|_| Claim {
        name: names::output_claim(&config.job.name),
        sub_path: None,
    });
    own.or(made)
}

/// The claim of the data set, when it is on one.
fn dataset_claim(config: &JobConfig) -> Option<Claim> {
    let own = config.spec.dataset.persistent_volume_claim.as_ref();
    own.map(Claim::from).or_else(|| fetch_claim(config))
}

/// The claim that the data set is fetched to: the user's, or else the one that was made for the job.
pub(super) fn fetch_claim(config: &JobConfig) -> Option<Claim> {
    let to = config.spec.dataset.fetch_to.as_ref()?;
    let own = to.persistent_volume_claim.as_ref();
    Some(own.map_or_else(
        || Claim {
            name: names::dataset_claim(&config.job.name),
            sub_path: None,
        },
        Claim::from,
    ))
}

/// Where the container `worker` sees them.
pub fn mounts(config: &JobConfig, worker: u32) -> Vec<VolumeMount> {
    let (folder, _) = folder_of(paths::CONFIG_FILE);
    let dataset = dataset_claim(config);
    let dataset_volume = if one_claim(config) { OUTPUT } else { DATASET };
    let mut mounts = vec![
        VolumeMount {
            read_only: Some(true),
            ..mount(CONFIG, folder)
        },
        mount(AGENT, paths::AGENT_DIR),
        mount(SCRATCH, "/tmp"),
        mount(SHARED_MEMORY, "/dev/shm"),
        VolumeMount {
            read_only: Some(true),
            sub_path: dataset.and_then(|claim| claim.sub_path),
            ..mount(dataset_volume, paths::DATASET_DIR)
        },
        VolumeMount {
            sub_path: output(config).and_then(|claim| claim.sub_path),
            ..mount(OUTPUT, paths::OUTPUT_DIR)
        },
    ];
    if config.spec.training.cache == Cache::Disk {
        mounts.push(mount(CACHE, paths::CACHE_DIR));
    }
    if keeper::is_beside(config, worker) {
        mounts.push(mount(KEEP, paths::KEEP_DIR));
    }
    if config.spec.dataset.config_map.is_some() {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount(DATA_FILE, folder_of(paths::DATA_FILE).0)
        });
    }
    mounts
}

/// The volumes of a worker's pod.
pub fn volumes(config: &JobConfig, workers: &Workers, worker: u32) -> Vec<Volume> {
    let named = |name: &str| Volume {
        name: name.to_owned(),
        ..Volume::default()
    };
    let empty = |name: &str| Volume {
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..named(name)
    };
    let mut volumes = vec![
        Volume {
            projected: Some(ProjectedVolumeSource {
                sources: Some(configuration(config)),
                ..ProjectedVolumeSource::default()
            }),
            ..named(CONFIG)
        },
        empty(AGENT),
        empty(SCRATCH),
        Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity(workers.shared_memory.clone())),
                ..EmptyDirVolumeSource::default()
            }),
            ..named(SHARED_MEMORY)
        },
        match output(config) {
            Some(own) => Volume {
                persistent_volume_claim: Some(claim(own)),
                ..named(OUTPUT)
            },
            None => empty(OUTPUT),
        },
    ];
    if keeper::is_beside(config, worker) {
        volumes.push(empty(KEEP));
    }
    if !one_claim(config) {
        volumes.push(dataset(config, named(DATASET)));
    }
    volumes.extend(config.spec.dataset.config_map.as_ref().map(data_file));
    let training = &config.spec.training;
    if training.cache == Cache::Disk {
        volumes.push(Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: training.cache_limit.clone().map(Quantity),
                ..EmptyDirVolumeSource::default()
            }),
            ..named(CACHE)
        });
    }
    volumes
}

fn data_file(source: &DataFile) -> Volume {
    let item = KeyToPath {
        key: source.key.clone(),
        path: folder_of(paths::DATA_FILE).1.to_owned(),
        ..KeyToPath::default()
    };
    Volume {
        name: DATA_FILE.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: source.name.clone(),
            items: Some(vec![item]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The folder of a file that is mounted, and its name there.
fn folder_of(file: &str) -> (&str, &str) {
    file.rsplit_once('/').unwrap_or(("/", file))
}

/// The frozen configuration, and beside it what the agents know each other by.
fn configuration(config: &JobConfig) -> Vec<VolumeProjection> {
    let config_map = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names::config_map(&config.job.name),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let token = KeyToPath {
        key: names::GROUP_TOKEN_KEY.to_owned(),
        path: names::GROUP_TOKEN_KEY.to_owned(),
        ..KeyToPath::default()
    };
    let secret = is_group(config).then(|| VolumeProjection {
        secret: Some(SecretProjection {
            name: names::group_secret(&config.job.name, &config.job.uid),
            items: Some(vec![token]),
            ..SecretProjection::default()
        }),
        ..VolumeProjection::default()
    });
    [config_map].into_iter().chain(secret).collect()
}

fn dataset(config: &JobConfig, volume: Volume) -> Volume {
    let source = &config.spec.dataset;
    Volume {
        // Read-only as a whole, so that the kubelet does not change the owner of the user's files.
        persistent_volume_claim: dataset_claim(config).map(|own| {
            PersistentVolumeClaimVolumeSource {
                read_only: Some(true),
                ..claim(own)
            }
        }),
        image: source.image.as_ref().map(|image| ImageVolumeSource {
            reference: Some(image.reference.clone()),
            pull_policy: Some(image.pull_policy.as_str().to_owned()),
        }),
        ..volume
    }
}

pub(super) fn claim(claim: Claim) -> PersistentVolumeClaimVolumeSource {
    PersistentVolumeClaimVolumeSource {
        claim_name: claim.name,
        read_only: None,
    }
}

/// A volume at a path, writable.
pub fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests {
    use contract::spec::ImageSource;
    use serde_json::{Value, json};

    use super::super::pod::tests::{built, named};
    use super::*;

    #[test]
    fn a_data_file_from_a_config_map_lies_where_the_trainer_reads_it() {
        let pod = built(|config, _| {
            config.spec.dataset.config_map = Some(DataFile {
                name: "two-classes".to_owned(),
                key: "birds.yaml".to_owned(),
            });
        })["spec"]
            .clone();
        let source = &named(&pod["volumes"], DATA_FILE)["configMap"];
        assert_eq!(
            json!({"name": "two-classes", "items": [{"key": "birds.yaml", "path": "data.yaml"}]}),
            *source
        );
        let mounts = &pod["containers"][0]["volumeMounts"];
        assert_eq!(
            json!({"name": DATA_FILE, "mountPath": "/data-file", "readOnly": true}),
            *named(mounts, DATA_FILE)
        );
    }

    #[test]
    fn the_data_set_is_read_only_from_any_source() {
        let data = |spec: &Value| {
            let mounts = spec["containers"][0]["volumeMounts"].as_array().cloned();
            mounts
                .into_iter()
                .flatten()
                .find(|mount| mount["mountPath"] == "/data")
                .expect("a mount")
        };
        let own = built(|_, _| {})["spec"].clone();
        assert_eq!(json!(true), data(&own)["readOnly"]);
        let claim = &named(&own["volumes"], DATASET)["persistentVolumeClaim"];
        assert_eq!(json!({"claimName": "digits", "readOnly": true}), *claim);

        let image = built(|config, _| {
            config.spec.dataset.persistent_volume_claim = None;
            config.spec.dataset.image = Some(ImageSource {
                reference: "data:1".to_owned(),
                pull_policy: contract::spec::PullPolicy::Always,
            });
        })["spec"]
            .clone();
        assert_eq!(
            json!({"reference": "data:1", "pullPolicy": "Always"}),
            named(&image["volumes"], DATASET)["image"]
        );

        let shared = built(|config, _| {
            config.spec.dataset.persistent_volume_claim = Some(VolumeClaim {
                claim_name: "runs".to_owned(),
                sub_path: Some("digits".to_owned()),
            });
        })["spec"]
            .clone();
        assert_eq!(
            json!({"name": OUTPUT, "mountPath": "/data", "readOnly": true, "subPath": "digits"}),
            data(&shared)
        );
        let volumes = shared["volumes"].as_array().expect("a list");
        let claims = volumes
            .iter()
            .filter(|v| v["persistentVolumeClaim"].is_object());
        assert_eq!(1, claims.count());
    }

    #[test]
    fn results_go_to_the_claim_that_was_made_for_the_job() {
        let spec = built(|config, _| {
            let template = json!({"resources": {"requests": {"storage": "1Gi"}}});
            config.spec.output.persistent_volume_claim = None;
            config.spec.output.volume_claim_template =
                Some(serde_json::from_value(template).expect("a template"));
        })["spec"]
            .clone();
        let claim = &named(&spec["volumes"], OUTPUT)["persistentVolumeClaim"];
        assert_eq!(json!({"claimName": "digits-output"}), *claim);
    }

    #[test]
    fn images_cached_on_disk_have_a_volume_of_their_own() {
        let spec = |cache, limit: Option<&str>| {
            built(|config, _| {
                config.spec.training.cache = cache;
                config.spec.training.cache_limit = limit.map(str::to_owned);
            })["spec"]
                .clone()
        };
        let disk = spec(Cache::Disk, Some("20Gi"));
        let volume = named(&disk["volumes"], CACHE);
        assert_eq!(json!({"sizeLimit": "20Gi"}), volume["emptyDir"]);
        let mount = named(&disk["containers"][0]["volumeMounts"], CACHE);
        assert_eq!(json!({"name": CACHE, "mountPath": "/cache"}), *mount);
        let unlimited = spec(Cache::Disk, None);
        assert_eq!(json!({}), named(&unlimited["volumes"], CACHE)["emptyDir"]);
        for cache in [Cache::Ram, Cache::None] {
            assert!(!spec(cache, None).to_string().contains(CACHE), "{cache:?}");
        }
    }
}
