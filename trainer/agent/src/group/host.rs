//! The coordinator's clock, network and neighbours: runs in the agent of worker 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::protocol::encode;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::clock::ClockWatch;
use super::coordinator::Coordinator;
use super::link::{BEAT, Trouble};
use super::message::{Command, Hello, Order, OrderKind, Standing};
use super::straggler::StragglerWatch;
use crate::http::everywhere;
use crate::lines::{Line, Lines};
use crate::settings::{Group, Token};
use crate::shared::{Shared, clock_ms};

/// How long a connection may take to say who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long the last order is given to reach the others.
const SEE_OFF: Duration = Duration::from_secs(5);

/// The agents of a job have no place to meet.
#[derive(Debug, thiserror::Error)]
#[error("the agent cannot listen for the other workers on port {port}")]
pub struct HostError {
    port: u16,
    #[source]
    source: io::Error,
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refusal {
    #[error("it did not say who it is")]
    NotHello,
    #[error("it does not know the secret of this job's workers")]
    Token,
    #[error("it belongs to incarnation {found}, this worker to {own}")]
    Incarnation { found: u32, own: u32 },
    #[error("there is no worker {worker} to join")]
    Worker { worker: u32 },
    #[error("pod {by} of worker {worker} has taken the place of pod {number}")]
    Replaced { worker: u32, number: u32, by: u32 },
    #[error(
        "worker {worker} belongs to pod {by} of worker 0, which has taken the place of this one"
    )]
    Superseded { worker: u32, by: u32 },
}

/// A pod of a worker: its index, then which pod of it.
type Pod = (u32, u32);

/// What the coordinator hears.
enum News {
    Joined(Hello),
    Standing(Pod, Standing),
    Unlinked(Pod),
}

/// What the coordinator wants, and of whom.
#[derive(Clone, Debug)]
struct Announcement {
    order: Order,
    /// See [`Coordinator::seats`].
    seats: Vec<Option<u32>>,
}

impl Announcement {
    fn of(coordinator: &Coordinator) -> Self {
        Self {
            order: coordinator.order().clone(),
            seats: coordinator.seats(),
        }
    }

    /// Whether this pod takes part.
    fn seats(&self, (worker, number): Pod) -> bool {
        self.seats.get(worker as usize) == Some(&Some(number))
    }

    /// What this pod is to do: no ranks may run in one that does not take part yet.
    fn order_for(&self, pod: Pod) -> Order {
        let mut order = self.order.clone();
        if order.kind == OrderKind::Run && !self.seats(pod) {
            order.kind = OrderKind::Stop;
        }
        order
    }
}

/// The neighbours of the coordinator.
pub struct Host {
    group: Group,
    /// For worker 0 itself.
    orders: watch::Receiver<Order>,
    /// For the others.
    announced: watch::Receiver<Announcement>,
    news: UnboundedSender<News>,
    links: Mutex<Links>,
    linked: watch::Sender<usize>,
    /// Worker 0 is always in touch with itself.
    in_touch: watch::Sender<Option<Trouble>>,
}

#[derive(Default)]
struct Links {
    /// Numbers connections, so that the end of a replaced one is not taken for that of its successor.
    next: u64,
    open: BTreeMap<Pod, u64>,
    /// The latest pod of each worker that joined.
    latest: BTreeMap<u32, u32>,
    /// The pods that the last order was sent to.
    finished: BTreeSet<Pod>,
}

impl Host {
    /// Begins to coordinate, and to take connections when there are other workers.
    pub async fn found(
        group: &Group,
        shared: &Arc<Shared>,
        own: watch::Receiver<Standing>,
    ) -> Result<Arc<Self>, HostError> {
        let workers = if group.token.is_some() {
            group.workers
        } else {
            1
        };
        let coordinator =
            Coordinator::new(workers, group.attempt, group.rules.clone(), shared.now());
        let (sender, orders) = watch::channel(coordinator.order().clone());
        let (announcer, announced) = watch::channel(Announcement::of(&coordinator));
        let (news, heard) = unbounded_channel();
        tokio::spawn(coordinate(
            coordinator,
            Arc::clone(shared),
            heard,
            (group.number, own),
            (sender, announcer),
        ));
        let host = Arc::new(Self {
            group: group.clone(),
            orders,
            announced,
            news,
            links: Mutex::default(),
            linked: watch::Sender::new(0),
            in_touch: watch::Sender::new(None),
        });
        if workers > 1 {
            let port = group.port;
            let listener = everywhere(port)
                .await
                .map_err(|source| HostError { port, source })?;
            tokio::spawn(Arc::clone(&host).serve(listener));
        }
        Ok(host)
    }

    /// What all workers are to do.
    pub fn orders(&self) -> watch::Receiver<Order> {
        self.orders.clone()
    }

    /// Why worker 0 is not reached: never.
    pub fn out_of_touch(&self) -> watch::Receiver<Option<Trouble>> {
        self.in_touch.subscribe()
    }

    /// Waits until the other workers have taken the last order and left, or for a moment. One whose connection is
    /// interrupted comes back for it.
    pub async fn see_off(&self) {
        let mut linked = self.linked.subscribe();
        let all_gone = linked.wait_for(|count| *count == 0 && self.have_all_heard());
        // Who is still there after that finds out from the closed connection.
        let _ = timeout(SEE_OFF, all_gone).await;
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        // Strangers must not use up the descriptors.
        let places = Arc::new(Semaphore::new(2 * self.group.workers as usize + 16));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, address)) => {
                    let host = Arc::clone(&self);
                    tokio::spawn(async move {
                        host.converse(stream, address).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!("another worker's connection could not be accepted: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        // Lines are short and rare; waiting for more of them helps nobody.
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let mut lines = Lines::new(BufReader::new(read));
        let first = timeout(HELLO_LIMIT, lines.next()).await.ok().flatten();
        let pod = match first
            .ok_or(Refusal::NotHello)
            .and_then(|line| self.check(&line))
        {
            Ok(hello) => {
                let pod = (hello.worker, hello.number);
                self.tell(News::Joined(hello));
                pod
            }
            Err(refusal) => {
                warn!(%address, "a connection of another worker is closed: {refusal}");
                return;
            }
        };
        let link = self.join(pod);
        let writer = tokio::spawn(Arc::clone(&self).write_orders(pod, write));
        while let Some(line) = lines.next().await {
            if !self.is_open(pod, link) {
                break;
            }
            let Line::Whole(line) = line else { continue };
            match serde_json::from_slice(&line) {
                Ok(standing) => self.tell(News::Standing(pod, standing)),
                Err(error) => warn!(
                    worker = pod.0,
                    "a line of another worker is dropped: {error}"
                ),
            }
        }
        writer.abort();
        self.leave(pod, link);
    }

    /// Who it is, if it may join.
    fn check(&self, line: &Line) -> Result<Hello, Refusal> {
        let Line::Whole(line) = line else {
            return Err(Refusal::NotHello);
        };
        let hello: Hello = serde_json::from_slice(line).map_err(|_| Refusal::NotHello)?;
        let token = self.group.token.as_ref().map_or("", Token::reveal);
        if !bool::from(hello.token.as_bytes().ct_eq(token.as_bytes())) {
            return Err(Refusal::Token);
        }
        let own = self.group.attempt.incarnation;
        if hello.incarnation != own {
            let found = hello.incarnation;
            return Err(Refusal::Incarnation { found, own });
        }
        // Worker 0 is this one.
        let (worker, number) = (hello.worker, hello.number);
        if worker == 0 || worker >= self.group.workers {
            return Err(Refusal::Worker { worker });
        }
        // What it says must not make this coordinator begin anything: there is another.
        if let Some(by) = hello.listened_to.filter(|by| *by > self.group.number) {
            return Err(Refusal::Superseded { worker, by });
        }
        match self.replaced_by((worker, number)) {
            Some(by) => Err(Refusal::Replaced { worker, number, by }),
            None => Ok(hello),
        }
    }

    /// The later pod that joined in the place of this one. As long as this one takes part it has not: it was asked to
    /// stop, and its ranks may still be needed for the checkpoint that all begin with.
    fn replaced_by(&self, pod: Pod) -> Option<u32> {
        let (worker, number) = pod;
        let latest = self.links().latest.get(&worker).copied();
        latest.filter(|latest| *latest > number && !self.announced.borrow().seats(pod))
    }

    fn join(&self, pod: Pod) -> u64 {
        let mut links = self.links();
        let link = links.next;
        links.next += 1;
        links.open.insert(pod, link);
        let latest = links.latest.entry(pod.0).or_default();
        *latest = pod.1.max(*latest);
        self.linked.send_replace(links.open.len());
        link
    }

    fn is_open(&self, pod: Pod, link: u64) -> bool {
        self.links().open.get(&pod) == Some(&link)
    }

    fn leave(&self, pod: Pod, link: u64) {
        let mut links = self.links();
        if links.open.get(&pod) == Some(&link) {
            links.open.remove(&pod);
            self.linked.send_replace(links.open.len());
            self.tell(News::Unlinked(pod));
        }
    }

    /// Whether every pod that takes part was sent the last order.
    fn have_all_heard(&self) -> bool {
        let links = self.links();
        let mut latest = links.latest.iter();
        latest.all(|(worker, number)| links.finished.contains(&(*worker, *number)))
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the present order, and every later one at once; again each [`BEAT`], as a sign of life. A pod that another
    /// has taken the place of hears nothing any more: there must not be two of a rank.
    async fn write_orders(self: Arc<Self>, pod: Pod, mut write: OwnedWriteHalf) {
        let mut announced = self.announced.clone();
        loop {
            let command = Command {
                number: self.group.number,
                order: announced.borrow_and_update().order_for(pod),
            };
            if self.replaced_by(pod).is_some() {
                return;
            }
            let Ok(line) = encode(&command) else { return };
            if write.write_all(line.as_bytes()).await.is_err() {
                return;
            }
            if command.order.kind == OrderKind::Finish {
                self.links().finished.insert(pod);
            }
            if let Ok(Err(_)) = timeout(BEAT, announced.changed()).await {
                return;
            }
        }
    }

    fn tell(&self, news: News) {
        // Without a receiver the agent is at its end.
        let _ = self.news.send(news);
    }
}

async fn coordinate(
    mut coordinator: Coordinator,
    shared: Arc<Shared>,
    mut news: UnboundedReceiver<News>,
    (own_number, mut own): (u32, watch::Receiver<Standing>),
    (orders, announcer): (watch::Sender<Order>, watch::Sender<Announcement>),
) {
    let mut beat = interval(BEAT);
    let mut stragglers = StragglerWatch::default();
    let mut clocks = ClockWatch::default();
    let mut awaited = Vec::new();
    let mut nodes = BTreeMap::new();
    loop {
        let deadline = coordinator.deadline();
        let due = async {
            match deadline {
                Some(at) => sleep_until(shared.instant(at).into()).await,
                None => std::future::pending().await,
            }
        };
        let mut beats = false;
        let (said, own_news) = select! {
            said = news.recv() => (said, false),
            changed = own.changed() => {
                if changed.is_err() {
                    return;
                }
                (None, true)
            }
            _ = beat.tick() => {
                beats = true;
                (None, true)
            }
            () = due => (None, false),
        };
        let now = shared.now();
        match said {
            Some(News::Standing((worker, number), standing)) => {
                if let Some(differs) = clocks.note(worker, clock_ms() - standing.clock_ms) {
                    note_clock(&shared, worker, nodes.get(&worker), differs);
                }
                coordinator.heard(now, worker, number, standing);
            }
            Some(News::Joined(hello)) => {
                coordinator.allow(hello.restarts_left);
                if let Some(node) = hello.node {
                    nodes.insert(hello.worker, node);
                }
            }
            Some(News::Unlinked((worker, number))) => coordinator.unlinked(now, worker, number),
            None if own_news => {
                let standing = shared.standing(&own.borrow_and_update());
                coordinator.heard(now, 0, own_number, standing);
            }
            None => coordinator.tick(now),
        }
        let changed = orders.send_if_modified(|order| {
            let changed = order != coordinator.order();
            if changed {
                *order = coordinator.order().clone();
            }
            changed
        });
        if changed {
            log(coordinator.order());
        }
        announcer.send_if_modified(|announced| {
            let news =
                announced.order != *coordinator.order() || announced.seats != coordinator.seats();
            if news {
                *announced = Announcement::of(&coordinator);
            }
            news
        });
        let missing = coordinator.missing();
        if missing != awaited {
            for gone in missing.iter().filter(|gone| !awaited.contains(gone)) {
                warn!(
                    worker = gone.worker,
                    "waiting for another pod of this worker: {}", gone.message
                );
            }
            shared.board().awaits(missing.clone());
            awaited = missing;
        }
        if beats {
            let straggler = stragglers.look(&coordinator.paces());
            let mut board = shared.board();
            board.waits_for(straggler);
            board.lacks(coordinator.absent(now));
        }
    }
}

/// Says by how many milliseconds the clock of a worker is behind ours, when that is much.
fn note_clock(shared: &Shared, worker: u32, node: Option<&String>, behind_ms: Option<i64>) {
    let place = node.map_or_else(String::new, |node| format!(" on the node {node}"));
    let warning = behind_ms.map(|behind_ms| {
        let seconds = behind_ms.abs() / 1000;
        let direction = if behind_ms > 0 { "behind" } else { "ahead of" };
        format!(
            "the clock of worker {worker}{place} is {seconds} s {direction} that of worker 0: times in its logs are off, and certificates may count as expired; look at time synchronisation there"
        )
    });
    let text = warning.clone();
    if shared.board().warn(worker, warning) {
        if let Some(text) = text {
            warn!("{text}");
        } else {
            info!(worker, "its clock is as that of worker 0 again");
        }
    }
}

fn log(order: &Order) {
    let attempt = order.attempt;
    let because = order
        .because
        .as_ref()
        .map(|failure| {
            format!(
                ", because of {}: {}",
                failure.reason.as_str(),
                failure.sentence()
            )
        })
        .unwrap_or_default();
    match order.kind {
        OrderKind::Run => info!("attempt {attempt} begins{because}"),
        OrderKind::Stop => info!("attempt {attempt} is stopped{because}"),
        OrderKind::Finish => info!("no further attempt in these pods{because}"),
    }
}

#[cfg(test)]
mod tests;
