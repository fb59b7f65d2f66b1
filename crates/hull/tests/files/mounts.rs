//! `-v`, `--mount`, `--tmpfs`, `--volumes-from` and `--read-only`.

use super::Home;

#[test]
fn root_every_form_of_mount() {
    let Some(h) = Home::new() else { return };
    std::fs::create_dir_all(h.path("host/sub")).expect("create");
    std::fs::write(h.path("host/file"), "of the host").expect("write");
    let host = h.text("host");
    assert_eq!(h.run(&["-v", &format!("{host}:/m")], &["cat", "/m/file"]).ok().text(), "of the host");
    assert_eq!(h.run(&["-v", "./host:/m:ro"], &["write", "/m/x", "x"]).ok().text(), "errno:30");
    let bind = format!("type=bind,src={host},dst=/m,readonly");
    assert_eq!(
        h.run(&["--mount", &bind], &["cat", "/m/file", "+", "write", "/m/x", "x"]).ok().text(),
        "of the host\nerrno:30"
    );
    let out = h.run(&["--mount", &format!("type=bind,src={host}/new,dst=/m")], &["ls", "/m"]);
    out.fails("bind source path does not exist");
    let _ = h.run(&["--mount", &format!("type=bind,src={host}/new,dst=/m,bind-create-src")], &["ls", "/m"]).ok();
    assert!(h.path("host/new").is_dir());
    let tmpfs = "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700";
    assert!(h.run(&["--mount", tmpfs], &["mounts"]).ok().stdout.contains("size=1024k,mode=700"));
    let image = "type=image,src=mine,dst=/m";
    assert_eq!(
        h.run(&["--mount", image], &["cat", "/m/data/file", "+", "write", "/m/x", "x"]).ok().text(),
        "of the image\nerrno:30"
    );
    let part = "type=image,src=mine,dst=/m,image-subpath=data";
    assert_eq!(h.run(&["--mount", part], &["ls", "/m"]).ok().text(), "file\nlink\nsub");
    h.run(&["-v", "aa:/m", "-v", "bb:/m/"], &["ls", "/"]).fails("Duplicate mount point: /m");
    h.run(&["-v", "/x:/y:xx"], &["ls", "/"]).fails("invalid mode: xx");
    h.assert_clean();
}

#[test]
fn root_a_part_of_a_volume_is_found_inside_it() {
    let Some(h) = Home::new() else { return };
    let _ = h.run(&["-v", "data:/data"], &["ls", "/data"]).ok();
    let part = "src=data,dst=/m,volume-subpath=sub";
    assert_eq!(h.run(&["--mount", part], &["ls", "/m", "+", "write", "/m/new", "x"]).ok().text(), "again\nok");
    assert!(h.volume("data").join("sub/new").exists());
    // Links of the volume end in the volume.
    std::os::unix::fs::symlink("/etc", h.volume("data").join("evil")).expect("symlink");
    std::os::unix::fs::symlink("/sub", h.volume("data").join("good")).expect("symlink");
    h.run(&["--mount", "src=data,dst=/m,volume-subpath=evil"], &["ls", "/m"]).fails("cannot access path");
    assert_eq!(h.run(&["--mount", "src=data,dst=/m,volume-subpath=good"], &["ls", "/m"]).ok().text(), "again\nnew");
    h.run(&["--mount", "src=data,dst=/m,volume-subpath=none"], &["ls", "/m"]).fails("No such file or directory");
    h.run(&["--mount", "src=data,dst=/m,volume-subpath=../x"], &["ls", "/m"])
        .fails("subpath must be a relative path within the volume");
}

#[test]
fn root_mounts_of_another_container() {
    let Some(h) = Home::new() else { return };
    std::fs::create_dir(h.path("host")).expect("create");
    h.create("first", &["-v", "one:/one", "-v", "./host:/host", "-v", "/anonymous", "--tmpfs", "/memory"]);
    let ls = h.run(&["--volumes-from", "first"], &["ls", "/", "+", "write", "/one/x", "x"]).ok();
    for name in ["one", "host", "anonymous"] {
        assert!(ls.lines().contains(&name), "{}", ls.stdout);
    }
    assert!(!ls.lines().contains(&"memory"), "a tmpfs is nobody else's: {}", ls.stdout);
    assert_eq!(h.run(&["--volumes-from", "first:ro"], &["write", "/one/x", "x"]).ok().text(), "errno:30");
    let own = h.run(&["--volumes-from", "first", "-v", "two:/one"], &["ls", "/one"]).ok();
    assert_eq!(own.text(), "", "its own mount wins");
    h.run(&["--volumes-from", "first:xx"], &["ls", "/"]).fails("invalid mode: xx");
}

#[test]
fn root_a_read_only_root_has_room_in_memory() {
    let Some(h) = Home::new() else { return };
    let write = ["write", "/x", "x", "+", "write", "/tmp/x", "x", "+", "write", "/run/x", "x"];
    assert_eq!(h.run(&["--read-only"], &write).ok().text(), "errno:30\nok\nok");
    assert_eq!(h.run(&["--read-only", "--read-only-tmpfs=false"], &write).ok().text(), "errno:30\nerrno:30\nerrno:30");
    let own = h.run(&["--read-only", "--tmpfs", "/tmp:ro"], &["write", "/tmp/x", "x"]).ok();
    assert_eq!(own.text(), "errno:30", "the user's mount wins");
    let data = h.run(&["--read-only", "-v", "data:/data"], &["write", "/data/x", "x"]).ok();
    assert_eq!(data.text(), "ok", "volumes are writable");
    h.create("kept", &["--read-only"]);
    assert_eq!(h.do_(&["inspect", "-f", "{{len .Mounts}}", "kept"]).ok().text(), "0");
}
