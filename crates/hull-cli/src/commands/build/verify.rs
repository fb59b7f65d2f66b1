//! `hull build --verify`: what is told of the comparison.

use hull_build::record::verify::Differences;

use crate::output::print;

/// Says what differs; the exit code.
pub(super) fn tell(image: &str, differences: &Differences) -> u8 {
    let image = hull_oci::spec::one_line(image);
    if differences.is_empty() {
        print(format_args!("{image}: the same, bit by bit\n"));
        return 0;
    }
    print(format_args!("{image}: it comes out differently\n"));
    for step in &differences.steps {
        let follows = if step.follows { " (after a step that differs)" } else { "" };
        print(format_args!("step {}{follows}\n", step.step));
        for (path, what) in &step.files {
            print(format_args!("  {path}: {what}\n"));
        }
        if step.more > 0 {
            print(format_args!("  and {} more\n", step.more));
        }
    }
    for field in &differences.config {
        print(format_args!("configuration: {field}\n"));
    }
    1
}
