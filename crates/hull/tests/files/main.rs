//! Volumes, mounts and `cp`, as a user types them.

mod cp;
mod mounts;
mod survival;
mod volumes;

use std::path::{Path, PathBuf};

use hull_testkit::{Finished, Home, finish, home};

/// A home with the image `mine`: the probe, and a directory `/data` with some of everything in it.
fn home() -> Option<Home> {
    let home = home!()?.here();
    let data = home.at("rootfs/data");
    home.write("rootfs/data/file", "of the image");
    for directory in [data.join("sub"), home.at("rootfs/run")] {
        std::fs::create_dir(directory).expect("create directory");
    }
    std::fs::hard_link(data.join("file"), data.join("sub/again")).expect("link");
    std::os::unix::fs::symlink("file", data.join("link")).expect("symlink");
    std::os::unix::fs::chown(data.join("file"), Some(1234), Some(2345)).expect("chown");
    std::os::unix::fs::chown(&data, Some(77), Some(78)).expect("chown");
    home.import(&[], "mine");
    Some(home)
}

/// `hull run --rm FLAGS mine /probe ARGS`.
#[track_caller]
fn run(h: &Home, flags: &[&str], args: &[&str]) -> Finished {
    let mut command = h.hull(&["run", "--rm", "--network=none", "--cgroup-parent", h.name()]);
    finish(command.args(flags).args(["mine", "/probe"]).args(args))
}

/// A container that runs until it is removed.
#[track_caller]
fn start(h: &Home, name: &str, flags: &[&str]) {
    let mut command = h.hull(&["run", "-d", "--network=none", "--cgroup-parent", h.name(), "--name", name]);
    finish(command.args(flags).args(["mine", "/probe", "sleep", "120"])).ok();
}

/// A container that does not run.
#[track_caller]
fn create(h: &Home, name: &str, flags: &[&str]) {
    let mut command = h.hull(&["create", "--network=none", "--cgroup-parent", h.name(), "--name", name]);
    finish(command.args(flags).args(["mine", "/probe", "sleep", "120"])).ok();
}

fn volume(h: &Home, name: &str) -> PathBuf {
    h.at("data/volumes").join(name).join("_data")
}

#[track_caller]
fn volumes(h: &Home) -> Vec<String> {
    h.run(&["volume", "ls", "-q"]).ok().lines().iter().map(ToString::to_string).collect()
}

/// Names in a directory, sorted; none if there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
