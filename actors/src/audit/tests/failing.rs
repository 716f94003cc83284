//! A store that fails: who is refused, who is answered, and what the chain says of it afterwards.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use peregrine_runtime::ManualClock;

use super::*;

/// What it was given, and whether it fails.
#[derive(Clone, Default)]
struct Fake {
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    is_full: Arc<AtomicBool>,
    /// Groups that still fit, while it is full.
    fits: Arc<Mutex<usize>>,
    synced: Arc<Mutex<usize>>,
    /// Of each group: bytes of its frame, and of its last entry.
    sizes: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Store for Fake {
    fn append(&mut self, groups: &mut [&mut Group], _now: SystemTime) -> (usize, Result<(), StoreError>) {
        let count = if self.is_full.load(SeqCst) {
            std::mem::take(&mut *self.fits.lock()).min(groups.len())
        } else {
            groups.len()
        };
        self.bodies
            .lock()
            .extend(groups[..count].iter().flat_map(|group| group.bodies().map(<[u8]>::to_vec)));
        let size = |group: &&mut Group| (group.frame_bytes(), group.bodies().last().map_or(0, <[u8]>::len));
        self.sizes.lock().extend(groups[..count].iter().map(size));
        let full = || Err(StoreError("no space left".to_owned()));
        (count, if count == groups.len() { Ok(()) } else { full() })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        *self.synced.lock() = self.bodies.lock().len();
        if self.is_full.load(SeqCst) { Err(StoreError("no space left".to_owned())) } else { Ok(()) }
    }

    fn head(&self) -> Head {
        Head::default()
    }
}

struct Rig {
    audit: Arc<Audit>,
    store: Fake,
    forecast: Forecast,
    writer: Option<JoinHandle<()>>,
}

impl Rig {
    fn start(settings: AuditSettings) -> Self {
        let (audit, store) = (Audit::new(settings), Fake::default());
        let writer = {
            let (audit, mut store) = (Arc::clone(&audit), store.clone());
            std::thread::spawn(move || audit.run(&mut store, &ManualClock::new()))
        };
        Self { audit, store, forecast: forecast(&spec(), 0), writer: Some(writer) }
    }

    /// One request, from acceptance to answer.
    async fn ask(&self) -> Result<(), ForecastError> {
        let draft = self.audit.begin(&windows(), self.forecast.spec.answer_len(), &Subject::Unnamed)?;
        end(&self.audit, draft, &self.forecast).await
    }

    fn fail(&self) {
        self.store.is_full.store(true, SeqCst);
    }

    /// Records and notes so far, by kind.
    fn kinds(&self) -> Vec<u8> {
        self.store.bodies.lock().iter().map(|body| body[0]).collect()
    }

    async fn until(&self, what: &str, holds: impl Fn(&AuditStatus) -> bool) {
        for _ in 0..1500 {
            if holds(&self.audit.status()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never came true: {what}: {:?}", self.audit.status());
    }

    fn close(&mut self) {
        self.audit.close();
        self.writer.take().unwrap().join().unwrap();
    }
}

const RECORD: u8 = 7;
const CLOSED: u8 = 3;
const GAP: u8 = 4;

#[tokio::test]
async fn what_is_answered_is_written_in_order_and_the_end_is_noted() {
    let mut rig = Rig::start(settings(OnFailure::Refuse, Survives::Nothing));
    for _ in 0..5 {
        rig.ask().await.unwrap();
    }
    assert!(rig.audit.settled(Duration::from_secs(10)).await);
    assert_eq!(rig.kinds(), [RECORD; 5]);
    let status = rig.audit.status();
    assert_eq!((status.records, status.lost, status.queue_bytes), (5, 0, 0));
    let audit = Arc::clone(&rig.audit);
    let late = audit.begin(&windows(), 0, &Subject::Unnamed).unwrap();
    rig.close();
    assert_eq!(rig.kinds(), [RECORD, RECORD, RECORD, RECORD, RECORD, CLOSED]);
    // Who comes too late is not written, and not forgotten either.
    end(&audit, late, &rig.forecast).await.unwrap();
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })));
    let status = rig.audit.status();
    assert_eq!((status.lost, status.queue_bytes, rig.kinds().len()), (1, 0, 6));
}

#[tokio::test]
async fn a_group_ends_with_the_record_that_fills_it() {
    let settings = settings(OnFailure::Refuse, Survives::Nothing);
    let wanted = settings.group_bytes;
    let (audit, mut store, forecast) = (Audit::new(settings), Fake::default(), forecast(&spec(), 0));
    for _ in 0..200 {
        let draft = audit.begin(&windows(), forecast.spec.answer_len(), &Subject::Unnamed).unwrap();
        end(&audit, draft, &forecast).await.unwrap();
    }
    audit.close();
    audit.run(&mut store, &ManualClock::new());
    assert_eq!(audit.status().records, 200);
    let mut sizes = store.sizes.lock().clone();
    // That the node ended, and what was left.
    sizes.truncate(sizes.len() - 2);
    assert!(!sizes.is_empty());
    for (frame, last) in sizes {
        assert!(frame >= wanted && frame - last - 4 < wanted, "{frame} bytes, {last} of the last record");
    }
}

#[tokio::test]
async fn what_must_survive_is_safe_before_the_answer() {
    let mut rig = Rig::start(settings(OnFailure::Refuse, Survives::Process));
    rig.ask().await.unwrap();
    assert_eq!(rig.kinds(), [RECORD]);
    rig.close();
    let mut rig = Rig::start(settings(OnFailure::Refuse, Survives::Disk));
    rig.ask().await.unwrap();
    assert_eq!(*rig.store.synced.lock(), 1);
    rig.close();
}

#[tokio::test]
async fn a_store_that_fails_refuses_and_keeps_what_it_has_accepted() {
    // Each record is a group, so that one is written and another is not.
    let settings = AuditSettings { group_bytes: 1, ..settings(OnFailure::Refuse, Survives::Nothing) };
    let mut rig = Rig::start(settings);
    rig.fail();
    *rig.store.fits.lock() = 1;
    rig.ask().await.unwrap();
    rig.ask().await.unwrap();
    rig.until("it fails", |status| status.failure.is_some()).await;
    let refused = rig.ask().await.unwrap_err();
    let ForecastError::Unavailable { reason } = refused else { panic!("{refused:?}") };
    assert!(reason.contains("no space left"), "{reason}");
    rig.store.is_full.store(false, SeqCst);
    rig.until("it goes on", |status| status.failure.is_none() && status.records == 2).await;
    rig.ask().await.unwrap();
    rig.close();
    assert_eq!(rig.kinds(), [RECORD, RECORD, RECORD, CLOSED]);
    assert_eq!(rig.audit.status().lost, 0);
}

#[tokio::test]
async fn a_store_that_can_be_written_again_is_found_out_though_nobody_asks() {
    for on_failure in [OnFailure::Refuse, OnFailure::Serve] {
        let mut rig = Rig::start(settings(on_failure, Survives::Nothing));
        rig.fail();
        rig.ask().await.unwrap();
        rig.until("it fails", |status| status.failure.is_some()).await;
        rig.store.is_full.store(false, SeqCst);
        rig.until("it goes on", |status| status.failure.is_none() && status.queue_bytes == 0).await;
        assert_eq!(rig.kinds(), [RECORD]);
        rig.close();
    }
}

#[tokio::test]
async fn a_store_that_fails_may_serve_and_the_chain_says_how_many_it_lacks() {
    let room = record::room_for(&windows(), spec().answer_len(), "", &[]);
    let settings =
        AuditSettings { queue_bytes_max: 2 * room, ..settings(OnFailure::Serve, Survives::Nothing) };
    let mut rig = Rig::start(settings);
    rig.fail();
    rig.ask().await.unwrap();
    rig.until("it fails", |status| status.failure.is_some()).await;
    for _ in 0..4 {
        rig.ask().await.unwrap();
    }
    let lost = rig.audit.status().lost;
    assert_eq!(lost, 3, "one is held, one more has room");
    rig.store.is_full.store(false, SeqCst);
    rig.until("it goes on", |status| status.failure.is_none() && status.queue_bytes == 0).await;
    rig.close();
    assert_eq!(rig.kinds(), [RECORD, RECORD, GAP, CLOSED]);
    let gap = Note::decode(&rig.store.bodies.lock()[2]).unwrap();
    let Note::Gap { count, reason, .. } = gap else { panic!("{gap:?}") };
    assert_eq!((count, &*reason), (lost, "no space left"));
}

#[tokio::test]
async fn a_full_queue_is_an_answer() {
    // Nobody writes.
    let room = record::room_for(&windows(), spec().answer_len(), "", &[]);
    let audit = Audit::new(AuditSettings {
        queue_bytes_max: 2 * room,
        record_bytes_max: 2 * room,
        ..settings(OnFailure::Refuse, Survives::Nothing)
    });
    let begin = |windows: &Windows| audit.begin(windows, spec().answer_len(), &Subject::Unnamed);
    let first = begin(&windows()).unwrap();
    let second = begin(&windows()).unwrap();
    assert!(matches!(begin(&windows()), Err(ForecastError::Overloaded { .. })));
    // Whoever leaves without an answer leaves no trace.
    drop(first);
    let third = begin(&windows()).unwrap();
    drop((second, third));
    assert_eq!(audit.status().queue_bytes, 0);
    let large = Windows { y: vec![0.0; room], ..windows() };
    assert!(matches!(begin(&large), Err(ForecastError::Unavailable { .. })));
}

#[tokio::test]
async fn a_node_that_stops_while_its_store_fails_counts_what_it_loses() {
    let mut rig = Rig::start(settings(OnFailure::Refuse, Survives::Nothing));
    rig.fail();
    rig.ask().await.unwrap();
    rig.until("it fails", |status| status.failure.is_some()).await;
    rig.close();
    assert_eq!((rig.audit.status().lost, rig.kinds().len()), (1, 0));
}

#[tokio::test]
async fn whoever_was_promised_a_safe_record_is_refused_without() {
    let mut rig = Rig::start(settings(OnFailure::Refuse, Survives::Process));
    rig.fail();
    let draft = rig.audit.begin(&windows(), 0, &Subject::Unnamed).unwrap();
    let answer = Answer {
        forecast: &rig.forecast,
        ids: PredictionIds::default(),
        names: None,
        caller: "",
        digest: "",
        at: UNIX_EPOCH,
        took: Duration::ZERO,
        until: Instant::now() + Duration::from_millis(100),
    };
    assert!(matches!(rig.audit.end(draft, &answer).await, Err(ForecastError::Unavailable { .. })));
    rig.close();
}
