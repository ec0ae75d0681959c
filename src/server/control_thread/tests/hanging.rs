//! Changes of topics and groups on a disk that hangs.

use super::*;

impl Rig {
    /// Asks, and gives the code and the remark of the answer, which must not need the disk.
    fn ask_meanwhile(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8]) -> (i32, String) {
        self.opaque += 1;
        let request = Command::request(code).with_body(body.to_vec());
        let command = fields.iter().fold(request, |command, (key, value)| command.with_ext(key, *value));
        self.control.request(ControlRequest::Command {
            connection: CONNECTION,
            frame: Command { opaque: self.opaque, ..command }.encode(),
            answers: Charge::default(),
            at_ns: 0,
        });
        let (opaque, code, remark) = self.next_answer();
        assert_eq!(opaque, self.opaque);
        (code, remark)
    }

    /// The next answer: its number, code and remark.
    fn next_answer(&self) -> (i32, i32, String) {
        loop {
            let answer = self.answers.recv_timeout(Duration::from_secs(30)).expect("an answer");
            if answer.is_response() {
                return (answer.opaque, answer.code, answer.remark.unwrap_or_default());
            }
        }
    }

    /// Requests that wait, and their bytes, as metrics show them.
    fn shown_parked(&self) -> (u64, u64) {
        let figures = &self.control.shared.control;
        (figures.parked_requests.get(), figures.parked_bytes.get())
    }

    /// As if all that waits had waited long enough.
    fn let_time_pass(&mut self) {
        let later_ms = self.control.until_ms();
        self.control.expire_changes(later_ms);
    }

    fn request(&mut self, code: i32, fields: &[(&str, &str)], body: &[u8], opaque: i32) {
        let request = Command::request(code).with_body(body.to_vec());
        let command = fields.iter().fold(request, |command, (key, value)| command.with_ext(key, *value));
        let frame = Command { opaque, ..command }.encode();
        let answers = Charge::default();
        self.control.request(ControlRequest::Command { connection: CONNECTION, frame, answers, at_ns: 0 });
    }
}

/// Goal: while the disk hangs everybody is served from what is on it, and who changes something is told that the disk does not answer.
/// What was being written comes into force when it is, what had not begun does not. Method: changes of each kind on a disk that hangs,
/// requests of others, time, and a disk that goes on.
#[test]
fn others_are_served_and_changes_are_told() {
    let mut rig = Rig::new(false);
    rig.create("T");
    rig.create("doomed");
    rig.make_group();
    // However long this test takes, to a tick no time has passed.
    let now = rig.control.now();
    rig.disk.hang("topics.json");
    rig.control.request(creation("begun", 71));
    rig.control.request(creation("waits", 72));
    rig.request(215, &[("topic", "doomed")], b"", 73);
    rig.request(200, &[], br#"{"groupName":"waits"}"#, 74);
    let consumer = r#"{"groupName":"new","subscriptionDataSet":[{"topic":"T","subString":"*"}]}"#;
    rig.request(34, &[], format!(r#"{{"clientID":"c","consumerDataSet":[{consumer}]}}"#).as_bytes(), 75);

    let producer = br#"{"clientID":"c","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[]}"#;
    assert_eq!(rig.ask_meanwhile(34, &[], producer).0, 0);
    let offset = [("consumerGroup", "g"), ("topic", "T"), ("queueId", "0"), ("commitOffset", "7")];
    assert_eq!(rig.ask_meanwhile(15, &offset, b"").0, 0);
    rig.control.tick(now);
    for topic in ["begun", "waits"] {
        assert_eq!(rig.ask_meanwhile(351, &[("topic", topic)], b"").0, response::TOPIC_NOT_EXIST);
        assert!(!rig.is_served(topic));
    }
    assert!(rig.is_served("doomed"), "nothing is done that waits");
    assert_eq!(
        rig.ask_meanwhile(17, &[("topic", "T")], b"").0,
        response::SYSTEM_ERROR,
        "what is wrong is refused at once"
    );

    rig.let_time_pass();
    let told: BTreeMap<i32, (i32, String)> =
        (71..=75).map(|_| rig.next_answer()).map(|(opaque, code, remark)| (opaque, (code, remark))).collect();
    assert_eq!(told.len(), 5);
    for (opaque, (code, remark)) in &told {
        assert!(*code == response::SYSTEM_ERROR && remark.contains("the disk does not answer"), "{opaque} {remark}");
        assert_eq!(remark.contains("may still come into force"), *opaque == 71, "{opaque} {remark}");
    }
    rig.disk.go_on();
    rig.control.settle();
    assert!(rig.is_served("begun") && rig.has_topic_on_disk("begun"));
    assert!(!rig.is_served("waits") && !rig.has_group("waits") && !rig.has_group("new") && rig.is_served("doomed"));
    rig.create("waits");
    assert_eq!(rig.heartbeat("new"), (0, String::new()));
    assert!(rig.has_group("new"));
}

/// Goal: what waits is carried out in its order, with one write for all that can be undone, and nothing is served or confirmed before its
/// table is on disk. Method: many changes on a disk that hangs, one of which needs one before it, and a deletion behind them; then a disk
/// that goes on, looked at whenever the control thread has news.
#[test]
fn what_waits_is_written_together() {
    let mut rig = Rig::new(false);
    rig.create("doomed");
    rig.disk.hang("topics.json");
    rig.control.request(creation("first", 100));
    for number in 1..=20 {
        rig.control.request(creation(&format!("t{number}"), 100 + number));
    }
    rig.control.request(creation("t1", 121));
    rig.request(215, &[("topic", "doomed")], b"", 122);
    rig.control.request(creation("last", 123));
    let renamed = |disk: &SimDisk| {
        let of_table = |operation: &&Operation| {
            operation.kind == OperationKind::Rename && operation.path.to_string_lossy().contains("topics.json")
        };
        disk.operations().iter().filter(of_table).count()
    };
    let before = renamed(&rig.disk);
    rig.disk.go_on();
    let mut confirmed = Vec::new();
    while confirmed.len() < 24 {
        rig.control.take_written();
        for answer in rig.answers.try_iter().filter(Command::is_response) {
            assert_eq!((answer.code, answer.remark), (0, None), "{}", answer.opaque);
            confirmed.push(answer.opaque);
            let topic = match answer.opaque {
                100 => "first".to_owned(),
                122 => continue,
                121 => "t1".to_owned(),
                123 => "last".to_owned(),
                opaque => format!("t{}", opaque - 100),
            };
            assert!(rig.has_topic_on_disk(&topic), "{topic}");
        }
        thread::yield_now();
    }
    assert_eq!(confirmed, (100..=123).collect::<Vec<_>>());
    assert!(!rig.has_topic_on_disk("doomed") && !rig.is_served("doomed") && rig.is_served("last"));
    // The first, the twenty-one together, the deletion, the last: each takes two renames.
    assert_eq!(renamed(&rig.disk) - before, 8);
}

/// Goal: requests that wait for the disk are bounded, by number and by bytes, and those beyond are refused at once. Method: sends to new
/// topics with long messages, then short requests, until each is refused.
#[test]
fn requests_that_wait_are_bounded() {
    let mut rig = Rig::new(false);
    rig.disk.hang("topics.json");
    rig.control.request(creation("first", 71));
    let fields =
        [("a", "p"), ("b", "sent"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")];
    let request = fields.iter().fold(Command::request(310), |command, (key, value)| command.with_ext(key, *value));
    let frame = Command { opaque: 77, ..request.with_body(vec![0; 1 << 20]) }.encode();
    let most = limits::PARKED_BYTES / frame.len();
    for _ in 0..=most {
        let frame = frame.clone();
        rig.control.request(ControlRequest::CreateTopic { connection: CONNECTION, frame, answers: 0 });
    }
    let (opaque, code, remark) = rig.next_answer();
    assert!((opaque, code) == (77, response::SYSTEM_BUSY) && remark.contains("wait for the disk"), "{code} {remark}");
    assert_eq!(rig.shown_parked(), (most as u64, (most * frame.len()) as u64));
    rig.disk.go_on();
    rig.control.settle();
    assert_eq!(rig.shown_parked(), (0, 0));

    let mut rig = Rig::new(false);
    rig.disk.hang("topics.json");
    rig.control.request(creation("first", 71));
    for number in 0..limits::PARKED_REQUESTS {
        rig.control.request(creation("small", 1_000 + number as i32));
    }
    assert!(rig.answers.try_recv().is_err(), "there was room for one of these each");
    rig.control.request(creation("small", 78));
    assert_eq!(rig.next_answer().1, response::SYSTEM_BUSY);
    assert_eq!(rig.shown_parked().0, limits::PARKED_REQUESTS as u64);
    rig.let_time_pass();
    assert_eq!(rig.shown_parked(), (0, 0));
    rig.disk.go_on();
}

/// Goal: a member that leaves while its heartbeat waits for the disk leaves at once, is told so, and does not come back. Method: a heartbeat
/// that makes a group, and an unregistration, on a disk that hangs; then it goes on, or time passes.
#[test]
fn who_leaves_while_its_heartbeat_waits_stays_away() {
    for goes_on in [true, false] {
        let mut rig = Rig::new(false);
        rig.disk.hang("topics.json");
        rig.control.request(creation("first", 71));
        let consumer = r#"{"groupName":"new","subscriptionDataSet":[{"topic":"first","subString":"*"}]}"#;
        rig.request(34, &[], format!(r#"{{"clientID":"c","consumerDataSet":[{consumer}]}}"#).as_bytes(), 72);
        assert_eq!(rig.ask_meanwhile(35, &[("clientID", "c"), ("consumerGroup", "new")], b"").0, response::SUCCESS);
        if goes_on {
            rig.disk.go_on();
            rig.control.settle();
        } else {
            rig.let_time_pass();
        }
        let answered: Vec<_> = (71..=72).map(|_| rig.next_answer()).map(|(opaque, code, _)| (opaque, code)).collect();
        let code = if goes_on { response::SUCCESS } else { response::SYSTEM_ERROR };
        assert_eq!(answered, [(71, code), (72, code)]);
        assert_eq!(rig.has_group("new"), goes_on, "the heartbeat was carried out");
        assert_eq!(rig.shown_parked(), (0, 0));
        let (code, remark) = rig.ask_meanwhile(38, &[("consumerGroup", "new")], b"");
        assert!(code == response::SYSTEM_ERROR && remark.contains("no consumer"), "{code} {remark}");
        rig.disk.go_on();
    }
}

/// Goal: as many requests as may wait are carried out one after the other, and not one inside the other, which a stack would not hold.
/// Method: removals of unused topics, which have nothing to write, behind a change that hangs, on a thread with a small stack.
#[test]
fn what_waits_needs_no_stack() {
    let run = || {
        let mut rig = Rig::new(false);
        rig.disk.hang("topics.json");
        rig.control.request(creation("first", 71));
        for number in 0..2_000 {
            rig.request(316, &[], b"", 1_000 + number);
        }
        rig.disk.go_on();
        rig.control.settle();
        let answers: Vec<_> = (0..=2_000).map(|_| rig.next_answer()).collect();
        assert!(answers.iter().all(|(_, code, _)| *code == response::SUCCESS), "{:?}", answers.last());
    };
    thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread").join().expect("done");
}
