"""The same work in four kinds: a YoloTrainingJob, a JobSet, a TrainJob of Kubeflow Trainer, an Indexed Job."""

NAMESPACE = "bench"
FAKE = "kwok.x-k8s.io/node"
ON_FAKE_NODES = {
    "nodeSelector": {FAKE: "fake"},
    "tolerations": [{"key": FAKE, "operator": "Equal", "value": "fake", "effect": "NoSchedule"}],
}
# Of a worker's pod as our operator makes it, what the peers' pods carry too: the same containers and volumes. What
# only ours have (one worker on each node where that is possible) stays ours.
SHARED = ("containers", "initContainers", "volumes", "securityContext", "terminationGracePeriodSeconds",
          "automountServiceAccountToken", "enableServiceLinks")


def template(pod, container="worker"):
    spec = {name: pod["spec"][name] for name in SHARED if name in pod["spec"]}
    spec["containers"] = [{**spec["containers"][0], "name": container}]
    return {"spec": {**spec, **ON_FAKE_NODES, "restartPolicy": "Never"}}


class Kind:
    """`controllers` are the Deployments that have to run, as (namespace, name)."""

    title = plural = version = kind = None
    container = "worker"
    controllers = ()

    def path(self, name=""):
        group = f"apis/{self.version}" if "/" in self.version else f"api/{self.version}"
        return f"/{group}/namespaces/{NAMESPACE}/{self.plural}" + (f"/{name}" if name else "")

    def manifest(self, name, pods, restarts=False):
        return {"apiVersion": self.version, "kind": self.kind, "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": self.spec(pods, restarts)}

    def prepare(self, api, pod):
        """Takes over what the pods of all kinds have in common."""

    def __str__(self):
        return self.title


class Ours(Kind):
    title, plural, version, kind = "ours", "yolotrainingjobs", "yolo-operator.dev/v1alpha1", "YoloTrainingJob"
    controllers = (("yolo-system", "yolo-operator"),)

    def spec(self, pods, restarts):
        rules = {"failurePolicy": {"rules": [{"action": "RestartGang"}]}} if restarts else {}
        return {
            "model": {"size": "yolov5n"},
            "dataset": {"persistentVolumeClaim": {"claimName": "data"}},
            "training": {"epochs": 100, "batchSize": max(pods, 16), "imageSize": 160, "device": "cpu"},
            "workers": {"replicas": pods, "template": ON_FAKE_NODES},
            "output": {"persistentVolumeClaim": {"claimName": "runs"}},
            **rules,
        }


class IndexedJob(Kind):
    title, plural, version, kind = "Indexed Job", "jobs", "batch/v1", "Job"

    def prepare(self, api, pod):
        self.template = template(pod)

    def spec(self, pods, restarts):
        return {"parallelism": pods, "completions": pods, "completionMode": "Indexed", "backoffLimit": 0,
                "template": self.template}


class JobSet(IndexedJob):
    title, plural, version, kind = "JobSet", "jobsets", "jobset.x-k8s.io/v1alpha2", "JobSet"
    controllers = (("jobset-system", "jobset-controller"),)

    def spec(self, pods, restarts):
        job = {"name": "workers", "replicas": 1, "template": {"spec": super().spec(pods, restarts)}}
        return {"replicatedJobs": [job], "failurePolicy": {"maxRestarts": 3}}


class Trainer(Kind):
    title, plural, version, kind = "Trainer", "trainjobs", "trainer.kubeflow.org/v1alpha1", "TrainJob"
    # The only name that it takes.
    container = "node"
    controllers = (*JobSet.controllers, ("kubeflow-system", "kubeflow-trainer-controller-manager"))

    def prepare(self, api, pod):
        path = f"/apis/{self.version}/namespaces/{NAMESPACE}/trainingruntimes"
        if api.there(f"{path}/bench"):
            return
        step = {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}}
        job = {"metadata": step, "spec": {"backoffLimit": 0, "template": template(pod, "node")}}
        api.post(path, {
            "apiVersion": self.version, "kind": "TrainingRuntime", "metadata": {"name": "bench", "namespace": NAMESPACE},
            "spec": {"mlPolicy": {"numNodes": 1},
                     "template": {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}}},
        })

    def spec(self, pods, restarts):
        return {"runtimeRef": {"name": "bench", "kind": "TrainingRuntime"}, "trainer": {"numNodes": pods}}
