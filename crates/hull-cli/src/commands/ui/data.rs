//! What the screen shows, from the engine. What cannot be had is a line that says why.

use std::collections::HashMap;

use hull_engine::logs;
use hull_engine::records::Phase;
use hull_engine::stats::Sample;
use hull_engine::{Container, Engine, inspect};
use hull_oci::spec::one_line;

use super::app::{Row, Tab};
use crate::output::units;

/// Lines of a log that are shown.
const LOG_LINES: usize = 500;

/// What was asked before, so that use is a difference.
#[derive(Debug, Default)]
pub(super) struct Source {
    before: HashMap<String, Sample>,
    /// Of the image that was looked at last: its layers do not change.
    layers: Option<(String, Vec<String>)>,
}

impl Source {
    /// All containers, those that run first.
    pub(super) fn rows(&mut self, engine: &Engine) -> Result<Vec<Row>, String> {
        let list = engine.list().map_err(|error| error.to_string())?;
        let now = std::time::SystemTime::now();
        let mut samples = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for (container, state) in list {
            let running = state.phase == Phase::Running;
            let sample = if running { engine.sample(&container).unwrap_or_default() } else { None };
            let none = Sample::default();
            let shown = sample.as_ref().unwrap_or(&none);
            let pair = |(one, other): (u64, u64)| format!("{} / {}", units::size(one), units::size(other));
            let paused = running && engine.shows_paused(&container.id);
            rows.push(Row {
                name: one_line(&container.name),
                image: one_line(&hull_engine::inspect::image_name(&container)),
                status: inspect::status(&state, now),
                running,
                paused,
                failed: !running && state.exit_code != 0,
                cpu: self.before.get(&container.id).map_or(0.0, |before| shown.cpu_percent(before)),
                memory: shown.memory,
                memory_percent: shown.memory_percent(),
                network: pair(shown.network),
                block: pair(shown.block),
                pids: shown.pids,
                id: container.id.clone(),
            });
            if let Some(sample) = sample {
                samples.insert(container.id, sample);
            }
        }
        self.before = samples;
        rows.sort_by_key(|row| !row.running);
        Ok(rows)
    }

    /// The lines of one side of a container.
    pub(super) fn lines(&mut self, engine: &Engine, id: &str, tab: Tab) -> Vec<String> {
        let found = engine.container(id).map_err(|error| error.to_string());
        let lines = found.and_then(|container| match tab {
            Tab::Logs => log(engine, &container),
            Tab::Processes => processes(engine, &container),
            Tab::Explain => explain(engine, &container),
            Tab::Layers => self.layers(engine, &container),
        });
        let lines = lines.unwrap_or_else(|said| vec![said]);
        lines.iter().map(|line| one_line(&line.replace('\t', "    "))).collect()
    }

    fn layers(&mut self, engine: &Engine, container: &Container) -> Result<Vec<String>, String> {
        if let Some((_, lines)) = self.layers.as_ref().filter(|(id, _)| *id == container.image_id) {
            return Ok(lines.clone());
        }
        if container.image_id.is_empty() {
            return Ok(vec!["this container runs on a directory, not on an image".to_owned()]);
        }
        let image = engine.images.find(&container.image_id).map_err(|error| error.to_string())?;
        let report = hull_image::explore::explore(&engine.images, &image).map_err(|error| error.to_string())?;
        let lines: Vec<String> = super::super::explore::text(&report, false).lines().map(str::to_owned).collect();
        self.layers = Some((container.image_id.clone(), lines.clone()));
        Ok(lines)
    }
}

fn log(engine: &Engine, container: &Container) -> Result<Vec<String>, String> {
    // Both streams into one text, in their order.
    let text = std::cell::RefCell::new(Vec::new());
    struct Shared<'t>(&'t std::cell::RefCell<Vec<u8>>);
    impl std::io::Write for Shared<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let options = logs::Options { tail: Some(LOG_LINES), ..logs::Options::default() };
    logs::show(engine, container, options, &mut Shared(&text), &mut Shared(&text))
        .map_err(|error| error.to_string())?;
    let text = text.into_inner();
    let lines: Vec<String> =
        String::from_utf8_lossy(&text).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect();
    Ok(if lines.is_empty() { vec!["(no output)".to_owned()] } else { lines })
}

fn processes(engine: &Engine, container: &Container) -> Result<Vec<String>, String> {
    let found = engine.processes(container, &[]).map_err(|error| error.to_string())?;
    let all: Vec<&Vec<String>> = std::iter::once(&found.titles).chain(&found.rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0) + 2
    };
    let widths: Vec<usize> = (0..found.titles.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<String>().trim_end().to_owned()
    };
    Ok(all.into_iter().map(line).collect())
}

fn explain(engine: &Engine, container: &Container) -> Result<Vec<String>, String> {
    let report = engine.explain(container).map_err(|error| error.to_string())?;
    Ok(super::super::explain::text(&report).lines().map(str::to_owned).collect())
}
