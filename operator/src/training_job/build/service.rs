use contract::config::JobIdentity;
use contract::paths;
use crds::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::metadata::{active_selector, child, job_labels};

/// The headless Service that gives worker 0 its DNS name, and every worker of a program of one's own. Names
/// resolve before workers are ready, because finding each other is part of becoming ready.
pub fn service(id: &JobIdentity) -> Service {
    let port = |name: &str, port: u16| ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        target_port: Some(IntOrString::Int(port.into())),
        ..ServicePort::default()
    };
    Service {
        metadata: child(id, names::service(&id.name), job_labels(id)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(active_selector(id)),
            ports: Some(vec![
                port(names::RENDEZVOUS_PORT, paths::MASTER_PORT),
                port(names::METRICS_PORT, paths::AGENT_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
