//! Who schedules the workers together. Pure.

use contract::attempt::Attempt;
use contract::config::JobIdentity;
use crds::names;
use crds::v1alpha1::{Gang, Scheduling};
use k8s_openapi::api::core::v1::{Pod, PodSchedulingGroup};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::metadata::{child, job_labels};

/// The API group of Kubernetes' own `PodGroup`.
pub const KUBERNETES: &str = "scheduling.k8s.io";
/// That of Volcano's.
pub const VOLCANO: &str = "scheduling.volcano.sh";
/// That of the coscheduling plugin's.
pub const COSCHEDULING: &str = "scheduling.x-k8s.io";
/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// Volcano's scheduler.
pub const VOLCANO_SCHEDULER: &str = "volcano";

/// Annotation by which Volcano finds a pod's group.
const VOLCANO_ANNOTATION: &str = "scheduling.k8s.io/group-name";
/// Label by which the coscheduling plugin does.
const COSCHEDULING_LABEL: &str = "scheduling.x-k8s.io/pod-group";

/// The versions of each kind of `PodGroup` that the API server serves and that this code can write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Kubernetes' own.
    pub kubernetes: Option<String>,
    /// Volcano's.
    pub volcano: Option<String>,
    /// The coscheduling plugin's.
    pub coscheduling: Option<String>,
}

impl Served {
    /// The versions of a group's `PodGroup` that can be written, the best first.
    pub fn wanted(group: &str) -> &'static [&'static str] {
        match group {
            KUBERNETES => &["v1", "v1beta1"],
            VOLCANO => &["v1beta1"],
            COSCHEDULING => &["v1alpha1"],
            _ => &[],
        }
    }
}

/// Who schedules the workers of one job together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// One of the three.
    pub kind: Gang,
    /// The version of its `PodGroup`.
    pub version: String,
}

/// Who is to schedule so many workers together, as far as the spec says: one of the three, or nobody.
pub fn wanted(gang: Gang, scheduler: Option<&str>, workers: u32) -> Option<Gang> {
    let kind = match gang {
        Gang::None => return None,
        Gang::Auto if scheduler == Some(VOLCANO_SCHEDULER) => Gang::Volcano,
        Gang::Auto if scheduler.is_some_and(|name| name != DEFAULT_SCHEDULER) => return None,
        Gang::Auto => Gang::Kubernetes,
        other => other,
    };
    // One worker has a node at once or none anyway. But Volcano has queues as well.
    (workers > 1 || kind == Gang::Volcano).then_some(kind)
}

/// Who schedules the workers together, if somebody does; or why the job cannot be obeyed here.
pub fn choose(valid: &ValidJob, served: &Served) -> Result<Option<Scheduler>, WaitingOn> {
    let gang = valid.scheduling.gang;
    let named = valid.workers.template.scheduler_name.as_deref();
    let Some(kind) = wanted(gang, named, valid.layout.replicas) else {
        return Ok(None);
    };
    let (group, version) = match kind {
        Gang::Volcano => (VOLCANO, &served.volcano),
        Gang::Coscheduling => (COSCHEDULING, &served.coscheduling),
        _ => (KUBERNETES, &served.kubernetes),
    };
    // A beta is for who asks for it: that of Kubernetes 1.37 hides why pods of a group wait for a claim.
    let unasked = gang == Gang::Auto && kind == Gang::Kubernetes;
    let version = version
        .as_ref()
        .filter(|version| !unasked || *version == "v1");
    match version {
        Some(version) => Ok(Some(Scheduler {
            kind,
            version: version.clone(),
        })),
        None if gang == Gang::Auto => Ok(None),
        None => Err(WaitingOn::GangUnavailable {
            gang,
            group,
            versions: Served::wanted(group),
        }),
    }
}

/// The name of the group of one incarnation. Each has its own: pods that are still leaving would else count as
/// members that have a node.
pub fn name(id: &JobIdentity, incarnation: u32) -> String {
    names::pod_group(&id.name, &id.uid, incarnation)
}

/// The kind of object that a group is.
pub fn resource(scheduler: &Scheduler) -> ApiResource {
    let group = match scheduler.kind {
        Gang::Volcano => VOLCANO,
        Gang::Coscheduling => COSCHEDULING,
        _ => KUBERNETES,
    };
    let kind = GroupVersionKind::gvk(group, &scheduler.version, "PodGroup");
    ApiResource::from_gvk_with_plural(&kind, "podgroups")
}

/// The group of an attempt's workers.
pub fn pod_group(
    id: &JobIdentity,
    valid: &ValidJob,
    scheduler: &Scheduler,
    attempt: Attempt,
) -> DynamicObject {
    let members = valid.layout.replicas;
    let class = valid.workers.template.priority_class_name.as_deref();
    let Scheduling { volcano_queue, .. } = &valid.scheduling;
    let mut spec = match scheduler.kind {
        Gang::Volcano => json!({"minMember": members}),
        Gang::Coscheduling => json!({"minMember": members, "scheduleTimeoutSeconds": 60}),
        _ => json!({"schedulingPolicy": {"gang": {"minCount": members}}}),
    };
    if let (Some(class), true) = (class, scheduler.kind != Gang::Coscheduling) {
        spec["priorityClassName"] = class.into();
    }
    if let (Some(queue), Gang::Volcano) = (volcano_queue, scheduler.kind) {
        spec["queue"] = queue.as_str().into();
    }
    let name = name(id, attempt.incarnation);
    let mut group = DynamicObject::new(&name, &resource(scheduler));
    group.metadata = child(id, name, job_labels(id));
    group.data = json!({ "spec": spec });
    group
}

/// Makes a pod a member of its group.
pub fn join(pod: &mut Pod, scheduler: &Scheduler, group: &str) {
    let metadata = &mut pod.metadata;
    let spec = pod.spec.get_or_insert_default();
    match scheduler.kind {
        Gang::Volcano => {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.insert(VOLCANO_ANNOTATION.to_owned(), group.to_owned());
            spec.scheduler_name
                .get_or_insert_with(|| VOLCANO_SCHEDULER.to_owned());
        }
        Gang::Coscheduling => {
            let labels = metadata.labels.get_or_insert_default();
            labels.insert(COSCHEDULING_LABEL.to_owned(), group.to_owned());
        }
        _ => {
            spec.scheduling_group = Some(PodSchedulingGroup {
                pod_group_name: Some(group.to_owned()),
            });
        }
    }
}

/// The versions of `PodGroup` in a discovery answer: group names with the versions that have the resource.
pub fn served(versions: &[(String, String)]) -> Served {
    let best = |group: &str| {
        let wanted = Served::wanted(group).iter();
        let there = |version: &&&str| versions.iter().any(|(g, v)| g == group && v == **version);
        wanted
            .clone()
            .find(there)
            .map(|version| (*version).to_owned())
    };
    Served {
        kubernetes: best(KUBERNETES),
        volcano: best(VOLCANO),
        coscheduling: best(COSCHEDULING),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::fixture;
    use crate::training_job::validate::validate;

    fn job(change: impl FnOnce(&mut crds::v1alpha1::YoloTrainingJob)) -> ValidJob {
        let mut job = fixture::job("digits", 2);
        change(&mut job);
        validate(&job).expect("valid")
    }

    fn all() -> Served {
        let of = |group: &str, version: &str| (group.to_owned(), version.to_owned());
        served(&[
            of(KUBERNETES, "v1beta1"),
            of(KUBERNETES, "v1alpha3"),
            of(VOLCANO, "v1beta1"),
            of(COSCHEDULING, "v1alpha1"),
        ])
    }

    #[test]
    fn kubernetes_does_it_where_it_can_and_nobody_is_asked_twice() {
        let kind = |valid: &ValidJob, served: &Served| {
            choose(valid, served)
                .map(|scheduler| scheduler.map(|scheduler| scheduler.kind))
                .map_err(|waiting_on| waiting_on.message())
        };
        let plain = job(|_| {});
        assert_eq!(Ok(None), kind(&plain, &all()), "a beta");
        let stable = served(&[(KUBERNETES.to_owned(), "v1".to_owned())]);
        assert_eq!(Ok(Some(Gang::Kubernetes)), kind(&plain, &stable));
        let asked = job(|job| job.spec.scheduling.gang = Gang::Kubernetes);
        assert_eq!(Ok(Some(Gang::Kubernetes)), kind(&asked, &all()));
        assert_eq!(Ok(None), kind(&plain, &Served::default()));
        let volcano =
            job(|job| job.spec.workers.template.scheduler_name = Some("volcano".to_owned()));
        assert_eq!(Ok(Some(Gang::Volcano)), kind(&volcano, &all()));
        let other = job(|job| job.spec.workers.template.scheduler_name = Some("mine".to_owned()));
        assert_eq!(Ok(None), kind(&other, &all()));
        let alone = |gang| {
            job(|job| {
                job.spec.workers.replicas = 1;
                job.spec.scheduling.gang = gang;
            })
        };
        assert_eq!(Ok(None), kind(&alone(Gang::Kubernetes), &all()));
        // Whose queues are for one worker, too.
        assert_eq!(Ok(Some(Gang::Volcano)), kind(&alone(Gang::Volcano), &all()));
        let wanted = job(|job| {
            job.spec.scheduling.gang = Gang::Coscheduling;
            job.spec.workers.template.scheduler_name = Some("mine".to_owned());
        });
        assert_eq!(Ok(Some(Gang::Coscheduling)), kind(&wanted, &all()));
        let refused = kind(&wanted, &Served::default()).expect_err("not there");
        assert!(
            refused.contains("scheduling.gang is Coscheduling")
                && refused.contains("scheduling.x-k8s.io/v1alpha1"),
            "{refused}"
        );
    }

    #[test]
    fn each_scheduler_finds_the_group_in_its_own_way() {
        let valid = job(|job| {
            job.spec.scheduling.gang = Gang::Volcano;
            job.spec.scheduling.volcano_queue = Some("vision".to_owned());
            job.spec.workers.template.priority_class_name = Some("high".to_owned());
        });
        let id = fixture::config("digits", 2).0.job;
        let attempt = Attempt {
            incarnation: 3,
            restart: 0,
        };
        let made = |kind| {
            let version = "v1".to_owned();
            let scheduler = Scheduler { kind, version };
            let group = pod_group(&id, &valid, &scheduler, attempt);
            let mut pod = Pod::default();
            join(&mut pod, &scheduler, "g");
            (group, serde_json::to_value(pod).expect("plain data"))
        };
        let (group, pod) = made(Gang::Kubernetes);
        assert_eq!(Some("digits-uid-digi-3"), group.metadata.name.as_deref());
        assert_eq!(
            &json!({"schedulingPolicy": {"gang": {"minCount": 2}}, "priorityClassName": "high"}),
            &group.data["spec"]
        );
        assert_eq!("g", pod["spec"]["schedulingGroup"]["podGroupName"]);
        let (group, pod) = made(Gang::Volcano);
        assert_eq!(
            &json!({"minMember": 2, "priorityClassName": "high", "queue": "vision"}),
            &group.data["spec"]
        );
        assert_eq!("g", pod["metadata"]["annotations"][VOLCANO_ANNOTATION]);
        assert_eq!("volcano", pod["spec"]["schedulerName"]);
        let (group, pod) = made(Gang::Coscheduling);
        assert_eq!(2, group.data["spec"]["minMember"]);
        assert_eq!("g", pod["metadata"]["labels"][COSCHEDULING_LABEL]);
    }
}
