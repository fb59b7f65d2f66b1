//! `-v`, `--mount`, `--tmpfs`, `--volumes-from` and `--read-only`.

use super::{create, home, run, volume};

#[test]
fn root_every_form_of_mount() {
    let Some(h) = home() else { return };
    std::fs::create_dir_all(h.at("host/sub")).expect("create");
    std::fs::write(h.at("host/file"), "of the host").expect("write");
    let host = h.text("host");
    assert_eq!(run(&h, &["-v", &format!("{host}:/m")], &["cat", "/m/file"]).ok().text(), "of the host");
    assert_eq!(run(&h, &["-v", "./host:/m:ro"], &["write", "/m/x", "x"]).ok().text(), "errno:30");
    let bind = format!("type=bind,src={host},dst=/m,readonly");
    assert_eq!(
        run(&h, &["--mount", &bind], &["cat", "/m/file", "+", "write", "/m/x", "x"]).ok().text(),
        "of the host\nerrno:30"
    );
    let out = run(&h, &["--mount", &format!("type=bind,src={host}/new,dst=/m")], &["ls", "/m"]);
    out.fails("bind source path does not exist");
    let _ = run(&h, &["--mount", &format!("type=bind,src={host}/new,dst=/m,bind-create-src")], &["ls", "/m"]).ok();
    assert!(h.at("host/new").is_dir());
    let tmpfs = "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700";
    assert!(run(&h, &["--mount", tmpfs], &["mounts"]).ok().stdout.contains("size=1024k,mode=700"));
    let image = "type=image,src=mine,dst=/m";
    assert_eq!(
        run(&h, &["--mount", image], &["cat", "/m/data/file", "+", "write", "/m/x", "x"]).ok().text(),
        "of the image\nerrno:30"
    );
    let part = "type=image,src=mine,dst=/m,image-subpath=data";
    assert_eq!(run(&h, &["--mount", part], &["ls", "/m"]).ok().text(), "file\nlink\nsub");
    run(&h, &["-v", "aa:/m", "-v", "bb:/m/"], &["ls", "/"]).fails("Duplicate mount point: /m");
    run(&h, &["-v", "/x:/y:xx"], &["ls", "/"]).fails("invalid mode: xx");
    h.assert_clean();
}

#[test]
fn root_a_part_of_a_volume_is_found_inside_it() {
    let Some(h) = home() else { return };
    let _ = run(&h, &["-v", "data:/data"], &["ls", "/data"]).ok();
    let part = "src=data,dst=/m,volume-subpath=sub";
    assert_eq!(run(&h, &["--mount", part], &["ls", "/m", "+", "write", "/m/new", "x"]).ok().text(), "again\nok");
    assert!(volume(&h, "data").join("sub/new").exists());
    // Links of the volume end in the volume.
    std::os::unix::fs::symlink("/etc", volume(&h, "data").join("evil")).expect("symlink");
    std::os::unix::fs::symlink("/sub", volume(&h, "data").join("good")).expect("symlink");
    run(&h, &["--mount", "src=data,dst=/m,volume-subpath=evil"], &["ls", "/m"]).fails("cannot access path");
    assert_eq!(run(&h, &["--mount", "src=data,dst=/m,volume-subpath=good"], &["ls", "/m"]).ok().text(), "again\nnew");
    run(&h, &["--mount", "src=data,dst=/m,volume-subpath=none"], &["ls", "/m"]).fails("No such file or directory");
    run(&h, &["--mount", "src=data,dst=/m,volume-subpath=../x"], &["ls", "/m"])
        .fails("subpath must be a relative path within the volume");
}

#[test]
fn root_mounts_of_another_container() {
    let Some(h) = home() else { return };
    std::fs::create_dir(h.at("host")).expect("create");
    create(&h, "first", &["-v", "one:/one", "-v", "./host:/host", "-v", "/anonymous", "--tmpfs", "/memory"]);
    let ls = run(&h, &["--volumes-from", "first"], &["ls", "/", "+", "write", "/one/x", "x"]).ok();
    for name in ["one", "host", "anonymous"] {
        assert!(ls.lines().contains(&name), "{}", ls.stdout);
    }
    assert!(!ls.lines().contains(&"memory"), "a tmpfs is nobody else's: {}", ls.stdout);
    assert_eq!(run(&h, &["--volumes-from", "first:ro"], &["write", "/one/x", "x"]).ok().text(), "errno:30");
    let own = run(&h, &["--volumes-from", "first", "-v", "two:/one"], &["ls", "/one"]).ok();
    assert_eq!(own.text(), "", "its own mount wins");
    run(&h, &["--volumes-from", "first:xx"], &["ls", "/"]).fails("invalid mode: xx");
}

#[test]
fn root_a_read_only_root_has_room_in_memory() {
    let Some(h) = home() else { return };
    let write = ["write", "/x", "x", "+", "write", "/tmp/x", "x", "+", "write", "/run/x", "x"];
    assert_eq!(run(&h, &["--read-only"], &write).ok().text(), "errno:30\nok\nok");
    assert_eq!(
        run(&h, &["--read-only", "--read-only-tmpfs=false"], &write).ok().text(),
        "errno:30\nerrno:30\nerrno:30"
    );
    let own = run(&h, &["--read-only", "--tmpfs", "/tmp:ro"], &["write", "/tmp/x", "x"]).ok();
    assert_eq!(own.text(), "errno:30", "the user's mount wins");
    let data = run(&h, &["--read-only", "-v", "data:/data"], &["write", "/data/x", "x"]).ok();
    assert_eq!(data.text(), "ok", "volumes are writable");
    create(&h, "kept", &["--read-only"]);
    assert_eq!(h.run(&["inspect", "-f", "{{len .Mounts}}", "kept"]).ok().text(), "0");
}
