//! What is asked of Kueue and of the schedulers of gangs, and told to them.

use contract::config::JobIdentity;
use jiff::Timestamp;
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;

use super::super::build::PreparedStep;
use super::super::cluster::ApplyError;
use super::super::gang::{self, Served};
use super::super::queue::{self, QueueStep};
use super::{delete_one, is_conflict, is_not_found, parameters, refusal};
use crate::kueue::{PriorityClassRef, QUEUE_LABEL, Workload};

/// The kinds of `PodGroup` that the API server serves.
pub(super) async fn discover(client: &Client) -> Result<Served, kube::Error> {
    let mut found = Vec::new();
    for group in client.list_api_groups().await?.groups {
        for version in &group.versions {
            if !Served::wanted(&group.name).contains(&version.version.as_str()) {
                continue;
            }
            // A version may be served for other kinds alone.
            let kinds = client.list_api_group_resources(&version.group_version);
            match kinds.await {
                Ok(kinds) if kinds.resources.iter().any(|r| r.kind == "PodGroup") => {
                    found.push((group.name.clone(), version.version.clone()));
                }
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(gang::served(&found))
}

/// Tells Kueue of the job; returns why nothing could be put into its queue, when that is so.
pub(super) async fn in_queue(
    client: &Client,
    id: &JobIdentity,
    step: PreparedStep,
) -> Result<Option<String>, ApplyError> {
    let api = Api::<Workload>::namespaced(client.clone(), &id.namespace);
    match step {
        PreparedStep::Create(workload) => enter(client, &api, *workload).await,
        PreparedStep::Change(name, QueueStep::Leave) => {
            delete_one(&api, "Workload", name).await?;
            Ok(None)
        }
        PreparedStep::Change(name, step) => {
            let told = tell(client, id, &name, &step).await;
            told.map_err(|source| ApplyError::Tell {
                name,
                source: Box::new(source),
            })?;
            Ok(None)
        }
    }
}

async fn enter(
    client: &Client,
    api: &Api<Workload>,
    mut workload: Workload,
) -> Result<Option<String>, ApplyError> {
    let name = workload.name_any();
    if let Some(class) = &workload.spec.priority_class_ref {
        match priority(client, class).await {
            Ok(value) => workload.spec.priority = Some(value),
            Err(error) if is_not_found(&error) => {
                return Ok(Some(format!("there is no {} {}", class.kind, class.name)));
            }
            // With watchNamespace the right to read them is the installer's choice.
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                return Ok(Some(status.message.clone()));
            }
            Err(error) => {
                return Err(ApplyError::Create {
                    kind: "Workload",
                    name,
                    source: Box::new(error),
                });
            }
        }
    }
    match api.create(&parameters(), &workload).await {
        Err(error) if is_not_found(&error) => Ok(Some(format!(
            "Kueue is not installed (the API server knows no {}): install it, or remove the label {QUEUE_LABEL}",
            Workload::api_version(&())
        ))),
        Err(ref error) if let Some(why) = refusal(error) => Ok(Some(why.to_owned())),
        Err(error) if !is_conflict(&error) => Err(ApplyError::Create {
            kind: "Workload",
            name,
            source: Box::new(error),
        }),
        _ => Ok(None),
    }
}

async fn priority(client: &Client, class: &PriorityClassRef) -> Result<i32, kube::Error> {
    let workload = Workload::version(&());
    let (version, plural) = if class.kind == "PriorityClass" {
        ("v1", "priorityclasses")
    } else {
        (workload.as_ref(), "workloadpriorityclasses")
    };
    let kind = GroupVersionKind::gvk(&class.group, version, &class.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let classes = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let found = classes.get(&class.name).await?;
    let value = found.data["value"].as_i64().unwrap_or_default();
    Ok(i32::try_from(value).unwrap_or_default())
}

/// Changes the status of a `Workload`. What is not ours in it is written back as it was read, and an object that
/// changed meanwhile is a conflict.
async fn tell(
    client: &Client,
    id: &JobIdentity,
    name: &str,
    step: &QueueStep,
) -> Result<(), kube::Error> {
    let resource = ApiResource::erase::<Workload>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &id.namespace, &resource);
    let Some(mut workload) = api.get_opt(name).await? else {
        return Ok(());
    };
    let generation = workload.metadata.generation;
    let status = &mut workload.data["status"];
    if status.is_null() {
        *status = json!({});
    }
    queue::tell(status, step, generation, Timestamp::now());
    workload.metadata.managed_fields = None;
    api.replace_status(name, &parameters(), &workload).await?;
    Ok(())
}
