//! Results of builds as inputs of others: what `contexts = { name = "target:other" }` of a bake file becomes.
//!
//! The client gets a definition with its result, one source that names it, and sends that back as an input of the other
//! build. The result itself is made an image when it is first asked for, by the same build once more, whose steps are all
//! in the cache. It can be asked for as long as the build's own call lives, which clients keep open for that.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use hull_oci::Digest;
use prost::Message as _;
use tokio::sync::OnceCell;

use super::grpc::{Failure, code};
use super::pb;
use crate::api::Api;
use crate::build::process::{Command, Said};
use crate::build::work::Work;

/// What the source of a definition is called by.
const SCHEME: &str = "hull-result://";

/// A definition that has more is none of ours.
const MOST_OPERATIONS: usize = 16;

/// The definition that stands for a result.
pub(super) fn definition(reference: &str) -> pb::Definition {
    let source = pb::OpSource { identifier: format!("{SCHEME}{reference}") };
    let source = pb::Op { source: Some(source), ..pb::Op::default() }.encode_to_vec();
    let digest = Digest::of(&source).to_string();
    let last = pb::Op { inputs: vec![pb::OpInput { digest: digest.clone(), index: 0 }], source: None }.encode_to_vec();
    let metadata = [digest, Digest::of(&last).to_string()].map(|digest| (digest, pb::Empty {})).into();
    pb::Definition { def: vec![source, last], metadata }
}

/// The result that a definition stands for.
pub(super) fn reference(definition: &pb::Definition) -> Option<String> {
    let operations = definition.def.iter().take(MOST_OPERATIONS).filter_map(|bytes| pb::Op::decode(&bytes[..]).ok());
    let mut sources = operations.filter_map(|operation| operation.source);
    let source = sources.next().filter(|_| sources.next().is_none())?;
    source.identifier.strip_prefix(SCHEME).map(str::to_owned)
}

/// What a result is made from again.
#[derive(Debug)]
pub(crate) struct Kept {
    words: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    work: Arc<Work>,
    image: OnceCell<String>,
}

impl Kept {
    /// Keeps the words of a build, without those that say where its result goes.
    pub(super) fn new(command: &Command, work: &Arc<Work>) -> Self {
        let is_output = |word: &OsString| {
            let text = word.to_string_lossy();
            ["--output=", "--iidfile=", "--metadata-file=", "--cache-to="].iter().any(|flag| text.starts_with(flag))
        };
        Self {
            words: command.words.iter().filter(|word| !is_output(word)).cloned().collect(),
            variables: command.variables.clone(),
            work: Arc::clone(work),
            image: OnceCell::new(),
        }
    }

    /// The result as an image without a name: its ID.
    pub(super) async fn image(self: &Arc<Self>, api: &Arc<Api>) -> Result<String, Failure> {
        let make = || async {
            let (kept, api) = (Arc::clone(self), Arc::clone(api));
            let made = tokio::task::spawn_blocking(move || kept.make(&api)).await;
            made.map_err(|_| Failure::unknown("the build broke off"))?
        };
        self.image.get_or_try_init(make).await.cloned()
    }

    fn make(&self, api: &Api) -> Result<String, Failure> {
        let file: PathBuf = self.work.file("result");
        let mut command = Command { variables: self.variables.clone(), ..Command::default() };
        command.word("--output=type=image");
        command.flag("iidfile", &file);
        command.words.extend(self.words.iter().cloned());
        let ended = command.start(&api.engine)?.follow(&mut |_: Said| {});
        if !ended.success {
            return Err(Failure::unknown(ended.reason));
        }
        let id = std::fs::read_to_string(&file).unwrap_or_default();
        match id.trim().parse::<Digest>() {
            Ok(id) => Ok(id.to_string()),
            Err(_) => Err(Failure::unknown("the build made no image that another one could begin with")),
        }
    }
}

/// The image that an input of a build is.
pub(super) async fn input(api: &Arc<Api>, name: &str, definition: Option<&pb::Definition>) -> Result<String, Failure> {
    let told = hull_oci::spec::one_line(name);
    let none = || Failure::new(code::INVALID_ARGUMENT, format!("context {told}: no such input of the build"));
    let foreign = || {
        let text = format!("context {told}: LLB that is no other build's result is not supported");
        Failure::new(code::UNIMPLEMENTED, text)
    };
    let gone = || Failure::new(code::NOT_FOUND, format!("context {told}: the build whose result it is has ended"));
    let reference = reference(definition.ok_or_else(none)?).ok_or_else(foreign)?;
    api.buildkit.kept(&reference).ok_or_else(gone)?.image(api).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_comes_back_as_its_result() {
        let definition = definition("abc");
        assert_eq!(reference(&definition).as_deref(), Some("abc"));
        let last = pb::Op::decode(&definition.def[1][..]).expect("an operation");
        assert_eq!(last.inputs[0].digest, Digest::of(&definition.def[0]).to_string());
        assert_eq!(reference(&pb::Definition::default()), None);
        let image = pb::OpSource { identifier: "docker-image://x".to_owned() };
        let image = pb::Op { source: Some(image), ..pb::Op::default() }.encode_to_vec();
        assert_eq!(reference(&pb::Definition { def: vec![image], ..pb::Definition::default() }), None);
        let garbage = pb::Definition { def: vec![vec![0xff; 20]], ..pb::Definition::default() };
        assert_eq!(reference(&garbage), None);
    }
}
