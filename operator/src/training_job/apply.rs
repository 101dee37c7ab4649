//! Writes what was built. The only step, besides the status patch, that writes.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::Error;
use super::build::Objects;
use crate::context::Context;
use crds::names;

/// How many requests for pods are in flight at once.
const PARALLEL: usize = 64;

/// Writes configuration, Service and pods, in that order, after giving up pods that are not wanted.
///
/// Every write is idempotent: an object that is there already is as good as one just made.
pub async fn apply(context: &Context, namespace: &str, objects: Objects) -> Result<(), Error> {
    // Destructured without `..`: a new kind of object cannot be forgotten here.
    let Objects {
        config_map,
        service,
        pods,
        retire,
    } = objects;
    let client = &context.client;
    if let Some(config_map) = config_map {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        // Created, not applied: it is immutable, and the first writer's content holds.
        created(api.create(&PostParams::default(), &config_map).await)
            .map_err(|source| Error::CreateConfig { source })?;
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let api = &api;
    futures::stream::iter(retire)
        .map(|name| async move { give_up(api, &name).await })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    if let Some(service) = service {
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
        api.patch(&service.name_any(), &parameters, &Patch::Apply(&service))
            .await
            .map_err(|source| Error::ApplyService { source })?;
    }
    futures::stream::iter(pods)
        .map(|pod| async move {
            created(api.create(&PostParams::default(), &pod).await).map_err(|source| {
                Error::CreatePod {
                    pod: pod.name_any(),
                    source,
                }
            })
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await
}

/// Takes a pod out of the Service, so that its replacement has the name at once, and deletes it with
/// its grace.
async fn give_up(api: &Api<Pod>, name: &str) -> Result<(), Error> {
    let patch = json!({"metadata": {"labels": {names::ACTIVE: null}}});
    gone(
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    )
    .map_err(|source| Error::ReleasePod {
        pod: name.to_owned(),
        source,
    })?;
    gone(api.delete(name, &DeleteParams::default()).await).map_err(|source| Error::DeletePod {
        pod: name.to_owned(),
        source,
    })
}

fn created<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
