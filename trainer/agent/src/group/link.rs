//! How an agent reaches the coordinator in the agent of worker 0, whichever pod that is in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::progress::LostWorker;
use contract::protocol::encode;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::coordinator::SILENCE;
use super::message::{Command, Hello, Order, OrderKind, Standing};
use crate::lines::{Line, Lines};
use crate::settings::{Group, Token};
use crate::shared::Shared;

/// How often an agent says how it stands although nothing changed.
pub const BEAT: Duration = Duration::from_secs(1);
/// How long one address may take to answer. That of a pod that is gone never does, and a name server knows it for some
/// seconds longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Between two tries to connect, at first: workers start together, and worker 0 may be the last.
const RETRY: Duration = Duration::from_millis(200);
/// How often the name of worker 0 is looked at while the connection lasts.
const LOOK: Duration = Duration::from_secs(30);
/// After so many looks at which it led to another pod it is given up: one that was asked to end would be gone by then.
const LOOKS: u32 = 3;
/// The same after a while: many workers that wait for one must not keep the name server busy.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Worker 0 is not reached.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Since when: the last sign of life, or the first try.
    pub since: Instant,
    /// Why.
    pub text: String,
}

/// The coordinator is not reached.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the name {name} has no address yet")]
    Resolve {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("worker 0 does not answer at {address}")]
    Connect {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the connection to worker 0 ended")]
    Ended,
}

/// Connects, again and again, until the last order has come. Returns where orders appear, and where it says
/// why there are none.
pub fn connect(
    group: &Group,
    shared: &Arc<Shared>,
    standings: watch::Receiver<Standing>,
) -> (watch::Receiver<Order>, watch::Receiver<Option<Trouble>>) {
    let first = Order {
        attempt: group.attempt,
        kind: OrderKind::Stop,
        because: None,
    };
    let (orders, receiver) = watch::channel(first);
    let heard_at = Instant::now();
    let (out_of_touch, trouble) = watch::channel(Some(Trouble {
        since: heard_at,
        text: "not tried yet".to_owned(),
    }));
    let link = Link {
        group: group.clone(),
        shared: Arc::clone(shared),
        standings,
        orders,
        out_of_touch,
        known: None,
        number: None,
        told_lost: false,
        heard_at,
        retry: RETRY,
    };
    tokio::spawn(link.run());
    (receiver, trouble)
}

struct Link {
    group: Group,
    shared: Arc<Shared>,
    standings: watch::Receiver<Standing>,
    orders: watch::Sender<Order>,
    out_of_touch: watch::Sender<Option<Trouble>>,
    /// Where worker 0 was last: a name server that is away does not part those who know each other.
    known: Option<SocketAddr>,
    /// Which pod of worker 0 gave orders last.
    number: Option<u32>,
    /// Whether the operator was let know that it is gone.
    told_lost: bool,
    /// When it last gave an order.
    heard_at: Instant,
    /// How long to wait before the next try.
    retry: Duration,
}

impl Link {
    async fn run(mut self) {
        loop {
            let error = match self.dial().await {
                Ok((stream, address)) => {
                    self.converse(stream, address).await;
                    LinkError::Ended
                }
                Err(error) => error,
            };
            if self.orders.borrow().kind == OrderKind::Finish {
                return;
            }
            let text = crate::error_chain(&error);
            let trouble = Trouble {
                since: self.heard_at,
                text: text.clone(),
            };
            let before = self.out_of_touch.send_replace(Some(trouble));
            if before.is_none_or(|before| before.text != text) {
                warn!("{text}; trying again");
            }
            self.tell_lost(&text);
            sleep(self.retry).await;
            self.retry = (self.retry * 5 / 4).min(LONGEST_RETRY);
        }
    }

    /// Lets the operator know that worker 0 is gone, once it was silent for too long.
    fn tell_lost(&mut self, text: &str) {
        let Some(number) = self.number else { return };
        if self.told_lost || self.heard_at.elapsed() < SILENCE {
            return;
        }
        let gone = LostWorker {
            worker: 0,
            number,
            message: format!("the others lost touch with it: {text}"),
        };
        self.shared.board().awaits(vec![gone]);
        self.told_lost = true;
        warn!("waiting for another pod of worker 0");
    }

    async fn dial(&mut self) -> Result<(TcpStream, SocketAddr), LinkError> {
        if let Some(address) = self.known.take()
            && let Ok(stream) = open(address).await
        {
            return Ok((stream, address));
        }
        let name = &self.group.address;
        let resolve = |source| LinkError::Resolve {
            name: name.clone(),
            source,
        };
        let addresses = lookup_host((name.as_str(), self.group.port))
            .await
            .map_err(resolve)?;
        let mut error = resolve(io::ErrorKind::NotFound.into());
        for address in addresses {
            match open(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(source) => error = LinkError::Connect { address, source },
            }
        }
        Err(error)
    }

    /// Exchanges standings for orders until the connection ends.
    async fn converse(&mut self, stream: TcpStream, address: SocketAddr) {
        // Lines are short and rare; waiting for more of them helps nobody.
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let writer = tokio::spawn(write_standings(
            write,
            self.hello(),
            self.standings.clone(),
            Arc::clone(&self.shared),
        ));
        let mut lines = Lines::new(BufReader::new(read));
        let mut looked_at = Instant::now();
        let mut elsewhere = 0;
        // A node that is cut off closes no connection.
        while let Ok(Some(line)) = timeout(SILENCE, lines.next()).await {
            let Line::Whole(line) = line else { continue };
            match serde_json::from_slice::<Command>(&line) {
                Ok(Command { number, order }) => {
                    // Only who is let in hears an order: this is worker 0 of this incarnation.
                    self.known = Some(address);
                    self.number = Some(number);
                    self.heard_at = Instant::now();
                    self.retry = RETRY;
                    let back = self
                        .out_of_touch
                        .send_if_modified(|trouble| trouble.take().is_some());
                    if back {
                        info!(pod = number, "in touch with worker 0");
                        self.shared.board().awaits(Vec::new());
                        self.told_lost = false;
                    }
                    let last = order.kind == OrderKind::Finish;
                    self.orders.send_if_modified(|known| {
                        let news = *known != order;
                        *known = order;
                        news
                    });
                    if last {
                        break;
                    }
                }
                Err(error) => warn!("a line of worker 0 is dropped: {error}"),
            }
            if looked_at.elapsed() < LOOK {
                continue;
            }
            looked_at = Instant::now();
            if self.leads_elsewhere(address).await {
                elsewhere += 1;
            } else {
                elsewhere = 0;
            }
            if elsewhere >= LOOKS {
                warn!(%address, "this pod of worker 0 has lost its name to another: looking for that");
                self.known = None;
                break;
            }
        }
        writer.abort();
    }

    /// Whether the name of worker 0 is that of another address. Without an answer it is not.
    async fn leads_elsewhere(&self, address: SocketAddr) -> bool {
        let name = (self.group.address.as_str(), self.group.port);
        let Ok(Ok(addresses)) = timeout(CONNECT_LIMIT, lookup_host(name)).await else {
            return false;
        };
        let addresses: Vec<SocketAddr> = addresses.collect();
        !addresses.is_empty() && !addresses.contains(&address)
    }

    fn hello(&self) -> Hello {
        Hello {
            token: self
                .group
                .token
                .as_ref()
                .map_or("", Token::reveal)
                .to_owned(),
            worker: self.group.worker,
            incarnation: self.group.attempt.incarnation,
            number: self.group.number,
            restarts_left: self.group.rules.restarts_left,
            listened_to: self.number,
            node: self.group.node.clone(),
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
    timeout(CONNECT_LIMIT, TcpStream::connect(address))
        .await
        .map_err(silent)?
}

/// Says who this is, then how it stands: at once when that changes, else every [`BEAT`].
async fn write_standings(
    mut write: OwnedWriteHalf,
    hello: Hello,
    mut standings: watch::Receiver<Standing>,
    shared: Arc<Shared>,
) {
    let Ok(mut lines) = encode(&hello) else {
        return;
    };
    loop {
        let standing = shared.standing(&standings.borrow_and_update());
        let Ok(line) = encode(&standing) else { return };
        lines.push_str(&line);
        if write.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
        lines.clear();
        // Either is a reason to speak; an agent at its end is none.
        if let Ok(Err(_)) = timeout(BEAT, standings.changed()).await {
            return;
        }
    }
}
