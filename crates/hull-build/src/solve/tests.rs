//! The solver with files that are made up: what is done, how often, and what it comes to.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use hull_image::LayerSource;
use hull_layer::tar::{Entry, EntryKind, Writer};

use super::*;
use crate::cache::{Cache, PruneFilter};
use crate::graph::{ImageSource, LocalSource, Node};
use crate::observer::Silent;

/// Sources whose files are strings by name.
#[derive(Default)]
struct Fake {
    files: Mutex<BTreeMap<String, String>>,
    /// Destinations of the copies that were made, in order.
    made: Mutex<Vec<String>>,
    running: AtomicUsize,
    most: AtomicUsize,
    /// How long a copy takes.
    slow: bool,
}

impl Fake {
    fn put(&self, name: &str, content: &str) {
        self.files.lock().unwrap().insert(name.to_owned(), content.to_owned());
    }

    fn made(&self) -> Vec<String> {
        std::mem::take(&mut *self.made.lock().unwrap())
    }

    fn content(&self, action: &CopyAction) -> Result<String, Error> {
        if let Some(content) = &action.content {
            return Ok(String::from_utf8_lossy(content).into_owned());
        }
        let files = self.files.lock().unwrap();
        files.get(&action.source).cloned().ok_or_else(|| Error::Request(format!("{:?}: not found", action.source)))
    }
}

impl Files for Fake {
    fn source(&self, _: &Op, _: Work<'_>) -> Result<Arc<dyn Any + Send + Sync>, Error> {
        Ok(Arc::new(()))
    }

    fn selection(&self, action: &CopyAction, _: &Tree, _: Work<'_>) -> Result<Digest, Error> {
        Ok(Digest::of(self.content(action)?.as_bytes()))
    }

    fn copy(
        &self,
        op: &CopyOp,
        _: &[Digest],
        _: &[Option<Tree>],
        transfer: &Transfer,
        work: Work<'_>,
    ) -> Result<Option<Layer>, Error> {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let mut tar = Writer::new(Vec::new());
        let mut made = || -> Result<(), Error> {
            for action in &op.actions {
                let content = self.content(action)?;
                if content == "wait" {
                    // Until another step has failed.
                    while !work.is_canceled() {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    return Err(Error::Canceled);
                }
                self.made.lock().unwrap().push(action.destination.clone());
                if self.slow {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                let size = content.len() as u64;
                let kind = EntryKind::File { size, extents: Vec::new() };
                let path = action.destination.trim_start_matches('/').as_bytes().to_vec();
                tar.append(&Entry::new(path, kind, 0o644), content.as_bytes()).unwrap();
            }
            Ok(())
        };
        let result = made();
        self.running.fetch_sub(1, Ordering::SeqCst);
        result?;
        let bytes = tar.finish().unwrap();
        Ok(Some(transfer.layer(bytes.as_slice(), LayerSource::default())?))
    }

    fn mkdir(&self, _: &MkdirOp, _: &[Digest], _: &Transfer, _: Work<'_>) -> Result<Option<Layer>, Error> {
        self.made.lock().unwrap().push("mkdir".to_owned());
        Ok(None)
    }
}

fn node(op: Op) -> Node {
    Node {
        op,
        name: "[1/1] COPY".to_owned(),
        stage: None,
        lines: None,
        ignore_cache: false,
        platform: "linux/amd64".to_owned(),
        epoch: None,
    }
}

fn local() -> Node {
    node(Op::Local(LocalSource { name: "context".into(), directory: "/".into(), ignore: Vec::new() }))
}

fn action(from: Option<NodeId>, source: &str, destination: &str) -> CopyAction {
    CopyAction {
        content: from.is_none().then(|| source.as_bytes().to_vec()),
        ..CopyAction::plain(from, source, destination)
    }
}

fn copy(base: NodeId, from: Option<NodeId>, source: &str, destination: &str) -> Node {
    let actions = vec![action(from, source, destination)];
    node(Op::Copy(Box::new(CopyOp { base: Some(base), onto: None, actions })))
}

/// A data directory and what solving needs.
struct Ground {
    root: tempfile::TempDir,
    files: Fake,
    cancel: AtomicBool,
}

impl Ground {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), files: Fake::default(), cancel: AtomicBool::new(false) }
    }

    fn engine(&self) -> Engine {
        Engine::new(self.root.path().join("root"), self.root.path().join("state"))
    }

    fn try_solve(&self, graph: &Graph, targets: &[NodeId]) -> Result<Vec<Snapshot>, Error> {
        let engine = self.engine();
        let transfer = engine.images.begin()?;
        let solver = Solver {
            engine: &engine,
            files: &self.files,
            secrets: &BTreeMap::new(),
            certificates: None,
            ssh: &BTreeMap::new(),
            defaults: &RunConfig::default(),
            transfer: &transfer,
            cancel: &self.cancel,
            explain: true,
            imports: &crate::remote::Imports::default(),
            watch: None,
        };
        solve(&solver, graph, targets, &Silent)
    }

    fn solve(&self, graph: &Graph, target: NodeId) -> Snapshot {
        self.try_solve(graph, &[target]).unwrap().pop().unwrap()
    }
}

/// `FROM scratch`, `COPY a /a`, `COPY b /b`.
fn two() -> (Graph, NodeId) {
    let mut graph = Graph::default();
    let context = graph.add(local());
    let scratch = graph.add(node(Op::Scratch));
    let first = graph.add(copy(scratch, Some(context), "a", "/a"));
    let second = graph.add(copy(first, Some(context), "b", "/b"));
    (graph, second)
}

#[test]
fn what_did_not_change_is_not_done_again() {
    let ground = Ground::new();
    ground.files.put("a", "1");
    ground.files.put("b", "1");
    let (graph, target) = two();
    let first = ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/a", "/b"]);
    assert_eq!((first.layers.len(), first.added, first.cached), (2, true, false));
    let again = ground.solve(&graph, target);
    assert!(ground.files.made().is_empty());
    assert_eq!((&again.layers, again.cached), (&first.layers, true));
    // A file of the second step: the first one stays.
    ground.files.put("b", "2");
    let changed = ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/b"]);
    assert_eq!(changed.layers[0], first.layers[0]);
    assert_ne!(changed.layers[1], first.layers[1]);
    // What it was before is still known.
    ground.files.put("b", "1");
    assert_eq!(ground.solve(&graph, target).layers, first.layers);
    assert!(ground.files.made().is_empty());
    ground.files.put("a", "2");
    ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/a", "/b"]);
}

#[test]
fn a_stage_that_comes_out_the_same_changes_nothing_above_it() {
    let ground = Ground::new();
    ground.files.put("x", "taken of the stage");
    let build = |text: &str| {
        let mut graph = Graph::default();
        let scratch = graph.add(node(Op::Scratch));
        let stage = graph.add(copy(scratch, None, text, "/stage"));
        let target = graph.add(copy(scratch, Some(stage), "x", "/target"));
        (graph, target)
    };
    let (graph, target) = build("one");
    let before = ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/stage", "/target"]);
    // The stage is another one, but what is taken of it is the same.
    let (graph, target) = build("two");
    let after = ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/stage"]);
    assert_eq!((after.layers, after.cached), (before.layers, true));
}

#[test]
fn what_is_not_needed_is_not_done() {
    let ground = Ground::new();
    let mut graph = Graph::default();
    let scratch = graph.add(node(Op::Scratch));
    graph.add(copy(scratch, None, "x", "/unneeded"));
    let target = graph.add(copy(scratch, None, "x", "/needed"));
    ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/needed"]);
}

#[test]
fn ignoring_the_cache_does_a_step_and_only_what_changes_by_it() {
    let ground = Ground::new();
    ground.files.put("a", "1");
    ground.files.put("b", "1");
    let (mut graph, target) = two();
    let first = ground.solve(&graph, target);
    ground.files.made();
    graph.nodes[2].ignore_cache = true;
    let again = ground.solve(&graph, target);
    // The first step comes out the same, so that the second need not be done.
    assert_eq!(ground.files.made(), ["/a"]);
    assert_eq!(again.layers, first.layers);
}

#[test]
fn the_first_error_ends_what_runs_and_names_its_step() {
    let ground = Ground::new();
    let mut graph = Graph::default();
    let scratch = graph.add(node(Op::Scratch));
    let done = graph.add(copy(scratch, None, "fine", "/done"));
    let waiting = graph.add(copy(done, None, "wait", "/waiting"));
    let mut wrong = copy(done, None, "unused", "/wrong");
    wrong.name = "[2/2] COPY wrong".to_owned();
    if let Op::Copy(op) = &mut wrong.op {
        // Found missing only when it is done.
        op.actions[0].content = None;
    }
    let wrong = graph.add(wrong);
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        eprintln!("skipped: one processor");
        return;
    }
    let error = ground.try_solve(&graph, &[waiting, wrong]).unwrap_err();
    assert!(matches!(&error, Error::Step { name, .. } if name == "[2/2] COPY wrong"), "{error:?}");
    assert_eq!(ground.files.made(), ["/done"]);
    // What was finished stays.
    ground.solve(&graph, done);
    assert!(ground.files.made().is_empty());
}

#[test]
fn a_build_that_is_given_up_says_so() {
    let ground = Ground::new();
    let mut graph = Graph::default();
    let scratch = graph.add(node(Op::Scratch));
    let waiting = graph.add(copy(scratch, None, "wait", "/waiting"));
    std::thread::scope(|scope| {
        let solving = scope.spawn(|| ground.try_solve(&graph, &[waiting]));
        while ground.files.running.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        ground.cancel.store(true, Ordering::SeqCst);
        assert!(matches!(solving.join().unwrap(), Err(Error::Canceled)));
    });
}

#[test]
fn two_builds_share_a_step() {
    let mut ground = Ground::new();
    ground.files.slow = true;
    ground.files.put("a", "1");
    ground.files.put("b", "1");
    let (graph, target) = two();
    let results: Vec<Snapshot> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| ground.solve(&graph, target))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ground.files.made(), ["/a", "/b"]);
    let all: BTreeSet<String> = results.iter().map(|one| format!("{:?}", one.layers)).collect();
    assert_eq!(all.len(), 1);
    let locks = ground.root.path().join("root/build/locks");
    assert_eq!(std::fs::read_dir(locks).unwrap().count(), 0);
}

#[test]
fn a_linked_layer_goes_onto_whatever_there_is() {
    let ground = Ground::new();
    let build = |base: &str| {
        let mut graph = Graph::default();
        let scratch = graph.add(node(Op::Scratch));
        let onto = graph.add(copy(scratch, None, base, "/base"));
        let actions = vec![action(None, "linked", "/linked")];
        let op = CopyOp { base: None, onto: Some(onto), actions };
        let linked = graph.add(node(Op::Copy(Box::new(op))));
        let above = graph.add(copy(linked, None, "above", "/above"));
        (graph, linked, above)
    };
    let (graph, linked, above) = build("one");
    let one = ground.try_solve(&graph, &[linked, above]).unwrap();
    assert_eq!(one[0].layers.len(), 2);
    assert_eq!(one[1].layers[..2], one[0].layers);
    ground.files.made();
    let (graph, linked, above) = build("two");
    let two = ground.try_solve(&graph, &[linked, above]).unwrap();
    assert_eq!(ground.files.made(), ["/base", "/above"]);
    assert_eq!(two[0].layers[1], one[0].layers[1]);
    assert_ne!(two[0].layers[0], one[0].layers[0]);
    assert!(two[0].cached);
}

#[test]
fn results_are_pruned_with_their_layers() {
    let ground = Ground::new();
    ground.files.put("a", "1");
    ground.files.put("b", &"x".repeat(100_000));
    let (graph, target) = two();
    let snapshot = ground.solve(&graph, target);
    let engine = ground.engine();
    let cache = Cache::new(&engine.images);
    let usage = cache.usage().unwrap();
    assert_eq!(usage.len(), 2);
    assert!(usage.iter().any(|one| one.size >= 100_000 && !one.shared), "{usage:?}");
    assert!(snapshot.layers.iter().all(|layer| engine.images.layer_path(layer).exists()));
    // Too new, or small enough.
    let none = PruneFilter { unused_for: Some(3600), ..PruneFilter::default() };
    assert!(cache.prune(&none).unwrap().removed.is_empty());
    let none = PruneFilter { keep: Some(10 << 20), ..PruneFilter::default() };
    assert!(cache.prune(&none).unwrap().removed.is_empty());
    let transfer = engine.images.begin().unwrap();
    assert!(transfer.lease_layers(&snapshot.layers, |_| Ok(())).unwrap());
    assert_eq!(cache.prune(&PruneFilter::default()).unwrap().removed.len(), 2);
    // A build still has them.
    assert!(engine.images.layer_path(&snapshot.layers[1]).exists());
    drop(transfer);
    engine.images.gc(hull_image::Budget::Bytes(0)).unwrap();
    engine.images.release_layers(|_| Ok(())).unwrap();
    assert!(!engine.images.layer_path(&snapshot.layers[1]).exists());
    ground.files.made();
    ground.solve(&graph, target);
    assert_eq!(ground.files.made(), ["/a", "/b"]);
}

#[test]
fn an_image_that_is_gone_is_told() {
    let ground = Ground::new();
    let mut graph = Graph::default();
    let id = Digest::of(b"image");
    let source = ImageSource { reference: "gone".into(), id: id.clone(), digest: None, layers: vec![id] };
    let base = graph.add(node(Op::Image(source)));
    let target = graph.add(copy(base, None, "x", "/x"));
    let error = ground.try_solve(&graph, &[target]).unwrap_err();
    assert!(error.to_string().contains("image gone is not in the store"), "{error}");
}

#[test]
fn a_graph_that_is_none_is_refused() {
    let ground = Ground::new();
    let mut graph = Graph::default();
    let own = graph.add(copy(NodeId(0), None, "x", "/x"));
    assert!(ground.try_solve(&graph, &[own]).is_err());
    assert!(ground.try_solve(&graph, &[NodeId(7)]).is_err());
}
