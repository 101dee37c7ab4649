//! Everything that can happen to a job, in any order: every plan keeps the invariants, a second plan changes
//! nothing, and when peace returns, the job ends.

use crds::v1alpha1::State;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};

use super::script::Player;
use crate::training_job::pods::PodView;
use crate::training_job::prefetch::FetchView;

/// Something that happens. A number chooses among the pods that there are.
#[derive(Clone, Debug)]
enum Event {
    /// A command of the script.
    Command(&'static str),
    /// A command for a pod, with what follows its name.
    ToPod(&'static str, usize, &'static str),
    /// A command for the pod that fetches the data set, with what follows its name.
    ToFetch(&'static str, &'static str),
    /// Time passes.
    Advance(u16),
    /// Worker 0 has come to this step.
    Progress(u16),
    /// The agents restart their ranks.
    InPlace,
    /// The agents lose touch with a worker.
    Lost(usize),
    /// The operator's process dies after so many status writes, and is replaced.
    Die(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let commands = [
        "reconcile",
        "reconcile",
        "reconcile",
        "remember",
        "stale-reconcile",
        "stale-job-reconcile",
        "suspend",
        "resume",
        "restart-operator",
        "restore-status",
        "foreign-service",
        "remove-service",
    ];
    let to_pods = [
        ("run", ""),
        ("run", ""),
        ("run", ""),
        ("exit", "0"),
        ("exit", "70 Internal a bug"),
        ("exit", "76 PeerLost rank 1 is gone"),
        ("exit", "143 Stopped asked to stop"),
        ("exit", "137"),
        ("oom", ""),
        ("evict", "The node was low on resource: memory."),
        ("wait", "node 0/2 nodes are available"),
        ("delete-pod", ""),
        ("gone", ""),
    ];
    let of = |command: &'static str| Just(Event::Command(command));
    let to = |(command, rest)| (0..8_usize).prop_map(move |pod| Event::ToPod(command, pod, rest));
    let to_fetch = [
        ("run", ""),
        ("exit", "0"),
        ("exit", "75 the network is away"),
        ("exit", "143"),
        ("evict", "The node was low on resource: memory."),
        ("delete-pod", ""),
        ("gone", ""),
    ];
    let fetch = |(command, rest)| Just(Event::ToFetch(command, rest));
    prop_oneof![
        2 => proptest::strategy::Union::new(to_fetch.map(fetch)),
        5 => proptest::strategy::Union::new(commands.map(of)),
        5 => proptest::strategy::Union::new(to_pods.map(to)),
        1 => (0..400_u16).prop_map(Event::Advance),
        1 => (1..30_u16).prop_map(Event::Progress),
        1 => Just(Event::InPlace),
        1 => (0..8_usize).prop_map(Event::Lost),
        1 => (0..3_u8).prop_map(Event::Die),
    ]
}

impl Player {
    fn pods(&self) -> Vec<PodView> {
        let pods = self.cluster.look().pods;
        pods.values().filter_map(PodView::of).collect()
    }

    fn fetches(&self) -> Vec<FetchView> {
        let pods = self.cluster.look().pods;
        let mut pods: Vec<_> = pods.values().filter_map(FetchView::of).collect();
        pods.sort_by_key(|pod| pod.number);
        pods
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Command(command) => self.command(command),
            Event::ToPod(command, pod, rest) => {
                let pods = self.pods();
                // What has ended stays so.
                let can = |pod: &&PodView| !pod.ended() || ["delete-pod", "gone"].contains(command);
                if let Some(pod) = pods.get(pod % pods.len().max(1)).filter(can) {
                    self.command(&format!("{command} {} {rest}", pod.name));
                }
            }
            Event::ToFetch(command, rest) => {
                let fetch = self.fetches();
                let can =
                    |pod: &&FetchView| !pod.ended() || ["delete-pod", "gone"].contains(command);
                if let Some(pod) = fetch.last().filter(can) {
                    self.command(&format!("{command} {} {rest}", pod.name));
                }
            }
            Event::Advance(seconds) => self.command(&format!("advance {seconds}")),
            Event::Progress(step) => self.command(&format!("progress {step} 1 1.5")),
            Event::InPlace if self.progress.is_some() => {
                self.command("in-place 0 Killed rank 0 was ended by SIGKILL");
            }
            Event::InPlace => {}
            Event::Lost(pod) => {
                let pods = self.pods();
                let pod = pods.get(pod % pods.len().max(1));
                if let (Some(pod), Some(_)) = (pod, &self.progress) {
                    self.command(&format!("lost {} it said nothing", pod.name));
                }
            }
            Event::Die(writes) => {
                for command in [
                    &format!("die-after {writes}"),
                    "reconcile",
                    "restart-operator",
                ] {
                    self.command(command);
                }
            }
        }
    }

    /// Nothing goes wrong any more: pods that leave are gone, the others run and succeed.
    fn peace(&mut self) -> State {
        for command in ["restart-operator", "remove-service", "resume"] {
            self.command(command);
        }
        for _ in 0..20 {
            for command in ["reconcile", "advance 400", "reconcile"] {
                self.command(command);
            }
            let job = self.cluster.look().job.expect("nobody deletes it");
            let state = job.status.and_then(|status| status.state);
            if let Some(state @ (State::Complete | State::Failed)) = state {
                return state;
            }
            for pod in self.fetches() {
                if pod.deleting {
                    self.command(&format!("gone {}", pod.name));
                } else if !pod.ended() {
                    self.command(&format!("exit {} 0", pod.name));
                }
            }
            for pod in self.pods() {
                let command = match (pod.deleting, pod.ended()) {
                    (true, _) => format!("gone {}", pod.name),
                    (false, true) => continue,
                    (false, false) => format!("exit {} 0", pod.name),
                };
                self.command(&command);
            }
        }
        panic!("the job does not end: {:#?}", self.cluster.look());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_the_job_ends(
        workers in 1..4_u32,
        restarts in 0..4_u32,
        fetches: bool,
        events in vec(event(), 0..60),
    ) {
        let mut player = Player::new();
        player.command(&format!("job {workers} {restarts}"));
        if fetches {
            player.command(
                r#"spec /dataset {"objectStorage": {"url": "s3://data"}, "fetchTo": {"persistentVolumeClaim": {"claimName": "c"}}}"#,
            );
        }
        for event in &events {
            player.happen(event);
        }
        let state = player.peace();
        // Nobody's workers go on without a job.
        player.command("reconcile");
        let left: Vec<String> = player
            .cluster
            .look()
            .pods
            .values()
            .filter(|pod| {
                PodView::of(pod).is_some_and(|view| !view.ended() && !view.deleting)
                    || FetchView::of(pod).is_some_and(|view| !view.ended() && !view.deleting)
            })
            .map(kube::ResourceExt::name_any)
            .collect();
        assert!(left.is_empty(), "{state:?}, but {left:?} still run");
    }
}
