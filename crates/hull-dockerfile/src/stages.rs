//! How stages depend on each other: names without regard to case, indexes, what a target needs, cycles.

use std::collections::HashMap;

use crate::ast::{Dockerfile, Instruction, Kind, Lines};
use crate::error::{Error, quote, with_suggestion};
use crate::expand::{Expander, Unset};
use crate::parse::parse_onbuild;

/// Most triggers that stages of one file set off in others.
pub const MAX_TRIGGERS: usize = 10_000;

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// A stage of the file, by index.
    Stage(usize),
    /// An image, or a named context that the file does not know of.
    Image(String),
}

/// Another stage that a stage takes files from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The stage.
    pub stage: usize,
    /// The instruction.
    pub lines: Lines,
}

/// Stages and what they need.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What each stage begins with.
    pub bases: Vec<Origin>,
    /// What each stage takes files from, in the order of its instructions.
    pub needs: Vec<Vec<Need>>,
    /// Images that a stage takes files from, each with its instruction.
    pub images: Vec<Vec<(String, Lines)>>,
}

/// A stage's name as progress shows it: its own in lower case, or `stage-N`.
#[must_use]
pub fn display_name(file: &Dockerfile, index: usize) -> String {
    let name = file.stages.get(index).and_then(|stage| stage.name.as_ref());
    name.map_or_else(|| format!("stage-{index}"), |name| name.to_lowercase())
}

/// The stage that is built: the one of that name, or the last one.
///
/// # Errors
/// There is none of that name.
pub fn target(file: &Dockerfile, name: Option<&str>) -> Result<usize, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return file
            .stages
            .len()
            .checked_sub(1)
            .ok_or_else(|| Error::new("dockerfile contains no stages to build", None));
    };
    let wanted = name.to_lowercase();
    let named = |index: &usize| file.stages[*index].name.as_ref().is_some_and(|name| name.to_lowercase() == wanted);
    (0..file.stages.len()).rev().find(named).ok_or_else(|| {
        let names: Vec<String> = (0..file.stages.len()).map(|index| display_name(file, index)).collect();
        let message = format!("target stage {} could not be found", quote(name));
        Error::new(with_suggestion(message, name, names.iter().map(String::as_str), true), None)
    })
}

/// Stages by name: of several with one name the last.
pub(crate) struct Names(HashMap<String, usize>);

impl Names {
    pub(crate) fn of(file: &Dockerfile) -> Self {
        let names = file.stages.iter().enumerate();
        Self(names.filter_map(|(index, stage)| Some((stage.name.as_ref()?.to_lowercase(), index))).collect())
    }

    pub(crate) fn origin(&self, name: &str) -> Origin {
        match self.0.get(&name.to_lowercase()) {
            Some(index) => Origin::Stage(*index),
            None if name == "scratch" => Origin::Scratch,
            None => Origin::Image(name.to_owned()),
        }
    }
}

/// How the stages of `file` depend on each other; `bases` are what the stages begin with, their variables expanded.
///
/// # Errors
/// An index that no stage has, a variable where none may be, stages that need each other, or more than
/// [`MAX_TRIGGERS`] triggers.
pub fn graph(file: &Dockerfile, bases: &[String]) -> Result<Graph, Error> {
    let mut names = Names(HashMap::new());
    let mut graph = Graph { bases: Vec::new(), needs: Vec::new(), images: Vec::new() };
    for (index, (stage, base)) in file.stages.iter().zip(bases).enumerate() {
        // A base is an earlier stage, of several with one name the nearest; everything else may be any stage.
        graph.bases.push(names.origin(base));
        if let Some(name) = &stage.name {
            names.0.insert(name.to_lowercase(), index);
        }
    }
    let mut triggers = 0;
    for stage in &file.stages {
        let (mut needs, mut images) = (Vec::new(), Vec::new());
        let base = match graph.bases[graph.needs.len()] {
            Origin::Stage(base) => file.stages[base].instructions.as_slice(),
            _ => &[],
        };
        for instruction in base {
            let Kind::Onbuild(text) = &instruction.kind else { continue };
            triggers += 1;
            if triggers > MAX_TRIGGERS {
                return Err(Error::new(format!("stages set off more than {MAX_TRIGGERS} triggers"), Some(stage.lines)));
            }
            // What is wrong with a trigger is said where it is run.
            if let Ok(trigger) = parse_onbuild(text, stage.lines) {
                origins(file, &names, &trigger, &mut needs, &mut images)?;
            }
        }
        for instruction in &stage.instructions {
            origins(file, &names, instruction, &mut needs, &mut images)?;
        }
        graph.needs.push(needs);
        graph.images.push(images);
    }
    graph.check_cycles(file)?;
    Ok(graph)
}

/// What `COPY --from` names: a stage by name or index, or something outside the file.
///
/// # Errors
/// An index that no stage has, or a variable.
pub fn copy_origin(file: &Dockerfile, from: &str) -> Result<Origin, String> {
    Names::of(file).numbered(file, from)
}

impl Names {
    /// What `COPY --from` names.
    pub(crate) fn numbered(&self, file: &Dockerfile, from: &str) -> Result<Origin, String> {
        let plain = Expander::new(file.escape).expand(from, &Unset).map_err(|error| error.to_string())?;
        if plain.text != from {
            let way = "define a new stage with FROM using ARG from global scope as a workaround";
            return Err(format!("variable expansion is not supported for --from, {way}"));
        }
        match from.parse::<i64>() {
            Ok(index) => match usize::try_from(index).ok().filter(|index| *index < file.stages.len()) {
                Some(index) => Ok(Origin::Stage(index)),
                None => Err(format!("invalid stage index {index}")),
            },
            Err(_) => Ok(self.origin(from)),
        }
    }
}

/// Adds what an instruction takes files from.
fn origins(
    file: &Dockerfile,
    names: &Names,
    instruction: &Instruction,
    needs: &mut Vec<Need>,
    images: &mut Vec<(String, Lines)>,
) -> Result<(), Error> {
    let lines = instruction.lines;
    let mut add = |origin| match origin {
        Origin::Stage(stage) => needs.push(Need { stage, lines }),
        Origin::Image(name) => images.push((name, lines)),
        Origin::Scratch => {}
    };
    match &instruction.kind {
        Kind::Copy(copy) => {
            if let Some(from) = &copy.from {
                add(names.numbered(file, from).map_err(|reason| Error::new(reason, Some(lines)))?);
            }
        }
        Kind::Run(run) => {
            let froms = run.mounts.iter().filter_map(|mount| mount.from.as_ref());
            froms.for_each(|from| add(names.origin(from)));
        }
        _ => {}
    }
    Ok(())
}

impl Graph {
    /// The stages that must be built for `target`, itself among them, in the file's order.
    #[must_use]
    pub fn reachable(&self, target: usize) -> Vec<usize> {
        let mut seen = vec![false; self.bases.len()];
        let mut open = vec![target];
        while let Some(stage) = open.pop() {
            if stage >= seen.len() || std::mem::replace(&mut seen[stage], true) {
                continue;
            }
            if let Origin::Stage(base) = self.bases[stage] {
                open.push(base);
            }
            open.extend(self.needs[stage].iter().map(|need| need.stage));
        }
        (0..seen.len()).filter(|stage| seen[*stage]).collect()
    }

    /// Refuses stages that need each other, however indirectly.
    fn check_cycles(&self, file: &Dockerfile) -> Result<(), Error> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.needs.len()];
        for start in 0..marks.len() {
            if marks[start] != Mark::New {
                continue;
            }
            // Each entry: a stage, and how many of its needs have been followed.
            let mut path = vec![(start, 0)];
            marks[start] = Mark::Open;
            while let Some((stage, next)) = path.last_mut() {
                let Some(need) = self.needs[*stage].get(*next) else {
                    marks[*stage] = Mark::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[need.stage] {
                    Mark::Open => {
                        let message = format!("circular dependency detected on stage: {}", display_name(file, start));
                        let first = path.first().and_then(|(stage, next)| self.needs[*stage].get(next - 1));
                        return Err(Error::new(message, first.map(|need| need.lines)));
                    }
                    Mark::New => {
                        marks[need.stage] = Mark::Open;
                        path.push((need.stage, 0));
                    }
                    Mark::Done => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Dockerfile, Result<Graph, Error>) {
        let (file, _) = crate::parse(text.as_bytes()).unwrap();
        let bases: Vec<String> = file.stages.iter().map(|stage| stage.base.clone()).collect();
        let graph = graph(&file, &bases);
        (file, graph)
    }

    #[test]
    fn names_have_no_case_and_the_nearest_earlier_one_is_the_base() {
        let (file, graph) =
            read("FROM x AS A\nFROM scratch AS a\nFROM A\nFROM b AS c\nFROM y AS b\nCOPY --from=0 / /\n");
        let graph = graph.unwrap();
        assert_eq!(graph.bases[2], Origin::Stage(1));
        assert_eq!(graph.bases[3], Origin::Image("b".into()));
        assert_eq!(graph.reachable(4), [0, 4]);
        assert_eq!(target(&file, Some("A")).unwrap(), 1);
        assert_eq!(target(&file, None).unwrap(), 4);
        assert_eq!(copy_origin(&file, "B").unwrap(), Origin::Stage(4));
        assert_eq!(copy_origin(&file, "5").unwrap_err(), "invalid stage index 5");
    }

    #[test]
    fn unused_stages_are_not_needed() {
        let text = "FROM x AS a\nFROM x AS unused\nRUN --mount=from=a,target=/a y\nFROM a AS b\nFROM scratch\nCOPY --from=b / /\nCOPY --from=image /x /\n";
        let (_, graph) = read(text);
        let graph = graph.unwrap();
        assert_eq!(graph.reachable(3), [0, 2, 3]);
        assert_eq!(graph.reachable(1), [0, 1]);
        assert_eq!(graph.images[3], [("image".to_owned(), Lines { start: 7, end: 7 })]);
    }

    #[test]
    fn triggers_of_a_base_need_stages_too() {
        let (_, graph) = read("FROM x AS data\nFROM x AS base\nONBUILD COPY --from=data /x /y\nFROM base\n");
        assert_eq!(graph.unwrap().reachable(2), [0, 1, 2]);
    }

    #[test]
    fn stages_that_need_each_other_are_refused() {
        let (_, graph) = read(
            "FROM x\nFROM x AS a\nCOPY --from=b / /\nFROM x AS b\nCOPY --from=c / /\nFROM x AS c\nRUN --mount=from=a,target=/a y\n",
        );
        let error = graph.unwrap_err();
        assert_eq!(error.to_string(), "circular dependency detected on stage: a");
        assert_eq!(error.lines.map(|lines| lines.start), Some(3));
    }
}
