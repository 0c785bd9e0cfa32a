//! Tests of the talk with a shim, against its other end of the connection.

use crisp_shim_api::AttachRequest;

use super::*;

fn id() -> ContainerId {
    ContainerId::from_entropy([3; 32])
}

#[tokio::test]
async fn answers_find_their_questions_and_events_are_told() {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, mut told) = mpsc::unbounded_channel();
    let connection = Connection::new(ours).unwrap();
    let client = ShimClient::start(connection, id(), None, events);
    let shim = Connection::new(theirs).unwrap();
    let answering = crisp_tasks::Worker::start(async move {
        let mut seqs = Vec::new();
        for _ in 0..2 {
            let (bytes, _) = shim.receive().await.unwrap().unwrap();
            seqs.push(ToShim::decode(&bytes).unwrap().seq);
        }
        // The other way round.
        for seq in seqs.into_iter().rev() {
            let reply = Reply::Exec {
                pid: i32::try_from(seq).unwrap(),
            };
            let frame = FromShim::Reply { seq, reply };
            shim.send(&frame.encode().unwrap(), &[]).await.unwrap();
        }
    });
    let within = Duration::from_secs(5);
    let (one, two) = tokio::join!(
        client.call(Request::State, within),
        client.call(Request::State, within)
    );
    assert_eq!(one.unwrap(), Reply::Exec { pid: 1 });
    assert_eq!(two.unwrap(), Reply::Exec { pid: 2 });
    answering.outcome().await.unwrap();
    let told = told.recv().await;
    assert!(matches!(told, Some((_, ShimEvent::Gone(None)))), "{told:?}");
    let error = client.call(Request::State, within).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn what_comes_after_the_containers_end_finds_no_running_container() {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, mut told) = mpsc::unbounded_channel();
    let client = ShimClient::start(Connection::new(ours).unwrap(), id(), None, events);
    let shim = Connection::new(theirs).unwrap();
    let within = Duration::from_secs(60);
    let (ask, unread) = (
        client.call(Request::State, within),
        client.call(Request::State, within),
    );
    // The shim is about to leave when it is asked: it tells the end, and answers nobody. Nor does it
    // read all, which loses nothing of what it tells.
    let leave = async {
        shim.receive().await.unwrap().unwrap();
        let ended = FromShim::Event(Event::Exited(ExitRecord {
            status: ExitStatus::Code(0),
            finished_at: crisp_model::Timestamp(1),
            oom: false,
        }));
        let frame = ended.encode().unwrap();
        shim.send(&frame, &[]).await.unwrap();
        drop(shim);
    };
    let (unanswered, unheard, ()) = tokio::join!(ask, unread, leave);
    for error in [unanswered.unwrap_err(), unheard.unwrap_err()] {
        assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
    }
    assert!(matches!(told.recv().await, Some((_, ShimEvent::Exited(_)))));
    assert!(matches!(
        told.recv().await,
        Some((_, ShimEvent::Gone(None)))
    ));
    let error = client.call(Request::State, within).await.unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition(_)), "{error}");
}

#[tokio::test]
async fn descriptors_of_an_answer_reach_its_asker() {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, _told) = mpsc::unbounded_channel();
    let client = ShimClient::start(Connection::new(ours).unwrap(), id(), None, events);
    let shim = Connection::new(theirs).unwrap();
    let answering = crisp_tasks::Worker::start(async move {
        let (bytes, _) = shim.receive().await.unwrap().unwrap();
        let seq = ToShim::decode(&bytes).unwrap().seq;
        let reply = Reply::Exec { pid: 7 };
        let frame = FromShim::Reply { seq, reply }.encode().unwrap();
        let (master, _) = crisp_sys::pipe::pipe().unwrap();
        shim.send(&frame, &[master]).await.unwrap();
    });
    let within = Duration::from_secs(5);
    let asked = client.call_with(Request::State, Vec::new(), None, within);
    let Answer { reply, fds } = asked.await.unwrap();
    assert_eq!((reply, fds.len()), (Reply::Exec { pid: 7 }, 1));
    answering.outcome().await.unwrap();
}

#[tokio::test]
async fn a_silent_shim_is_told_of() {
    let (ours, _theirs) = Conn::pair().unwrap();
    let connection = Connection::new(ours).unwrap();
    let (events, _) = mpsc::unbounded_channel();
    let client = ShimClient::start(connection, id(), None, events);
    let within = Duration::from_millis(20);
    let error = client.call(Request::KillAll, within).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_shim_is_told_to_leave_once() {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, _told) = mpsc::unbounded_channel();
    let client = ShimClient::start(Connection::new(ours).unwrap(), id(), None, events);
    let shim = Connection::new(theirs).unwrap();
    let leaving = crisp_tasks::Worker::start(async move {
        let (bytes, _) = shim.receive().await.unwrap().unwrap();
        let ToShim { seq, request } = ToShim::decode(&bytes).unwrap();
        assert_eq!(request, Request::Shutdown);
        // The other who wants it gone has come by now, and would have asked.
        let more = tokio::time::timeout(Duration::from_millis(100), shim.receive()).await;
        let reply = Reply::Done;
        let frame = FromShim::Reply { seq, reply }.encode().unwrap();
        shim.send(&frame, &[]).await.unwrap();
        more.is_ok()
    });
    let handle = client.clone();
    tokio::join!(client.dismiss(), handle.dismiss());
    assert!(client.calls.is_closed());
    assert!(!leaving.outcome().await.unwrap());
}

#[tokio::test]
async fn clients_are_waited_for_that_take_the_rest() {
    let (ours, theirs) = Conn::pair().unwrap();
    let (events, _told) = mpsc::unbounded_channel();
    let client = ShimClient::start(Connection::new(ours).unwrap(), id(), None, events);
    client.all_have_the_rest().await;
    let shim = Connection::new(theirs).unwrap();
    let ask = |name: &str| {
        let (end, ended) = oneshot::channel();
        let request = Request::Attach(Box::new(AttachRequest {
            attach_id: name.to_owned(),
            ..Default::default()
        }));
        let within = Duration::from_secs(5);
        let asked = client.clone();
        let end = Some(End::Attach(end));
        (ended, async move {
            asked.call_with(request, Vec::new(), end, within).await
        })
    };
    let ((one, asking_one), (two, asking_two)) = (ask("one"), ask("two"));
    let answering = async {
        for _ in 0..2 {
            let (bytes, _) = shim.receive().await.unwrap().unwrap();
            let ToShim { seq, .. } = ToShim::decode(&bytes).unwrap();
            let reply = Reply::Done;
            let frame = FromShim::Reply { seq, reply }.encode().unwrap();
            shim.send(&frame, &[]).await.unwrap();
        }
    };
    let (first, second, ()) = tokio::join!(asking_one, asking_two, answering);
    first.unwrap();
    second.unwrap();
    let mut rest = std::pin::pin!(client.all_have_the_rest());
    let soon = Duration::from_millis(50);
    tokio::time::timeout(soon, &mut rest).await.unwrap_err();
    // A client that has left is not waited for, once the shim says something.
    drop(two);
    let event = Event::Detached {
        attach_id: "one".to_owned(),
        exit: None,
        cut: None,
    };
    let frame = FromShim::Event(event).encode().unwrap();
    shim.send(&frame, &[]).await.unwrap();
    rest.await;
    one.await.unwrap().unwrap_err();
    // Nor is anybody once the shim has gone.
    let (_three, asking) = ask("three");
    drop(shim);
    asking.await.unwrap_err();
    client.all_have_the_rest().await;
}
