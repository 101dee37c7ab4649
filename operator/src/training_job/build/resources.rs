//! What containers of a job's pods ask for.

use std::collections::BTreeMap;

use crds::v1alpha1::{Quantity as SpecQuantity, Workers};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::some;

/// What a worker asks for: its resources and its GPUs.
pub fn of_worker(workers: &Workers) -> ResourceRequirements {
    let plain = |resources: &BTreeMap<String, SpecQuantity>| -> BTreeMap<String, Quantity> {
        resources
            .iter()
            .map(|(name, quantity)| (name.clone(), Quantity(quantity.0.clone())))
            .collect()
    };
    let mut limits = plain(&workers.resources.limits);
    let mut requests = plain(&workers.resources.requests);
    if workers.gpus_per_worker > 0 && !workers.gpu_resource.is_empty() {
        let gpus = Quantity(workers.gpus_per_worker.to_string());
        limits.insert(workers.gpu_resource.clone(), gpus.clone());
        requests.insert(workers.gpu_resource.clone(), gpus);
    }
    ResourceRequirements {
        limits: (!limits.is_empty()).then_some(limits),
        requests: (!requests.is_empty()).then_some(requests),
        claims: some(&workers.resources.claims),
    }
}

/// What a container is given that ends before the worker's begins: the same, but for devices. The pod needs no more for
/// that, and where a quota counts something, each container has to say how much of it.
pub fn before_worker(workers: &Workers) -> ResourceRequirements {
    const COUNTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let ResourceRequirements {
        limits, requests, ..
    } = of_worker(workers);
    let counted = |amounts: Option<BTreeMap<String, Quantity>>| {
        let mut amounts = amounts?;
        amounts.retain(|name, _| COUNTED.contains(&name.as_str()));
        (!amounts.is_empty()).then_some(amounts)
    };
    ResourceRequirements {
        limits: counted(limits),
        requests: counted(requests),
        claims: None,
    }
}

/// Limits of CPU and memory for a pod that runs before the workers: those of a worker. Where a quota counts limits, each
/// container has to have one; what a namespace allows at most, it allows the workers.
pub fn limits(workers: &Workers) -> Option<BTreeMap<String, Quantity>> {
    let mut limits = before_worker(workers).limits?;
    limits.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
    some(&limits)
}

/// Limits of CPU and memory for a container beside a worker that has enough with these: none where the worker has none.
pub fn limits_of(
    workers: &Workers,
    amounts: [(&str, &str); 2],
) -> Option<BTreeMap<String, Quantity>> {
    let limited = |(name, _): &(&str, &str)| workers.resources.limits.contains_key(*name);
    let amounts = amounts.into_iter().filter(limited);
    let limits = amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    some(&limits.collect())
}
