use contract::failure_policy::FailurePolicy;

use super::super::coordinator::Rules;
use super::*;

fn host() -> Host {
    host_where(vec![Some(0), Some(3), None])
}

/// A host of which these pods take part.
fn host_where(seats: Vec<Option<u32>>) -> Host {
    let group = Group {
        workers: 3,
        worker: 0,
        attempt: contract::attempt::Attempt {
            incarnation: 2,
            restart: 0,
        },
        number: 0,
        token: Some(Token::from("secret")),
        address: "digits-worker-0.digits".to_owned(),
        port: 0,
        node: None,
        rules: Rules {
            policy: FailurePolicy::default(),
            restarts_left: 0,
        },
    };
    let order = Order {
        attempt: group.attempt,
        kind: OrderKind::Stop,
        because: None,
    };
    let announcement = Announcement {
        order: order.clone(),
        seats,
    };
    Host {
        group,
        orders: watch::channel(order).1,
        announced: watch::channel(announcement).1,
        news: unbounded_channel().0,
        links: Mutex::default(),
        linked: watch::Sender::new(0),
        in_touch: watch::Sender::new(None),
    }
}

#[test]
fn only_the_other_workers_of_this_incarnation_are_let_in() {
    let check = |token: &str, worker, incarnation| {
        let hello = Hello {
            token: token.to_owned(),
            worker,
            incarnation,
            number: 7,
            restarts_left: 5,
            listened_to: Some(0),
            node: None,
        };
        let line = serde_json::to_vec(&hello).expect("plain data");
        let checked = host().check(&Line::Whole(line));
        checked.map(|found| assert_eq!(hello, found))
    };
    assert_eq!(Ok(()), check("secret", 2, 2));
    for token in ["", "secre", "Secret", "secret "] {
        assert_eq!(Err(Refusal::Token), check(token, 2, 2), "{token:?}");
    }
    assert_eq!(
        Err(Refusal::Incarnation { found: 1, own: 2 }),
        check("secret", 2, 1)
    );
    for worker in [0, 3] {
        assert_eq!(Err(Refusal::Worker { worker }), check("secret", worker, 2));
    }
    for line in [Line::TooLong, Line::Whole(b"GET / HTTP/1.1".to_vec())] {
        assert_eq!(Err(Refusal::NotHello), host().check(&line));
    }
}

#[test]
fn who_has_found_the_successor_of_this_pod_is_not_let_in() {
    let hello = Hello {
        token: "secret".to_owned(),
        worker: 1,
        incarnation: 2,
        number: 0,
        restarts_left: 5,
        listened_to: Some(1),
        node: None,
    };
    let line = serde_json::to_vec(&hello).expect("plain data");
    assert_eq!(
        Err(Refusal::Superseded { worker: 1, by: 1 }),
        host().check(&Line::Whole(line))
    );
}

#[test]
fn the_end_of_a_replaced_connection_is_not_that_of_its_successor() {
    let host = host();
    let first = host.join((1, 0));
    let second = host.join((1, 0));
    host.leave((1, 0), first);
    assert_eq!(1, *host.linked.borrow());
    host.leave((1, 0), second);
    assert_eq!(0, *host.linked.borrow());
}

#[test]
fn a_pod_that_was_replaced_hears_no_orders_and_is_not_let_in_again_once_it_takes_no_part() {
    let hello = |number| {
        let hello = Hello {
            token: "secret".to_owned(),
            worker: 1,
            incarnation: 2,
            number,
            restarts_left: 0,
            listened_to: None,
            node: None,
        };
        Line::Whole(serde_json::to_vec(&hello).expect("plain data"))
    };
    // Its ranks still write the checkpoint that all begin with.
    let host = host_where(vec![Some(0), Some(3), None]);
    host.join((1, 3));
    host.join((1, 4));
    assert_eq!(None, host.replaced_by((1, 3)));
    assert!(host.check(&hello(3)).is_ok());

    let host = host_where(vec![Some(0), None, None]);
    let old = host.join((1, 3));
    assert_eq!(None, host.replaced_by((1, 3)));
    host.join((1, 4));
    // What it still says is heard: it may be on its way out.
    assert!(host.is_open((1, 3), old));
    assert_eq!(Some(4), host.replaced_by((1, 3)));
    assert!(host.check(&hello(4)).is_ok());
    assert_eq!(
        Err(Refusal::Replaced {
            worker: 1,
            number: 3,
            by: 4
        }),
        host.check(&hello(3))
    );
}

#[test]
fn a_pod_that_takes_no_part_yet_is_told_to_start_no_rank() {
    let mut announced = host().announced.borrow().clone();
    for (kind, seated, parked) in [
        (OrderKind::Run, OrderKind::Run, OrderKind::Stop),
        (OrderKind::Stop, OrderKind::Stop, OrderKind::Stop),
        (OrderKind::Finish, OrderKind::Finish, OrderKind::Finish),
    ] {
        announced.order.kind = kind;
        assert_eq!(seated, announced.order_for((1, 3)).kind);
        assert_eq!(parked, announced.order_for((1, 4)).kind);
        assert_eq!(parked, announced.order_for((2, 0)).kind);
    }
}

#[test]
fn who_was_interrupted_has_not_heard_the_last_order() {
    let host = host();
    let link = host.join((1, 0));
    host.leave((1, 0), link);
    assert!(!host.have_all_heard());
    host.links().finished.insert((1, 0));
    assert!(host.have_all_heard());
    // Another pod of it is to hear it, too.
    host.join((1, 1));
    assert!(!host.have_all_heard());
}
