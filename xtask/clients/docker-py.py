"""docker-py: what programs in Python do. Prints one line for each thing that it finds out."""

import io
import re
import tarfile
import threading

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

client = docker.from_env(timeout=120)


def say(name, value):
    print(f"{name}: {value}", flush=True)


def refused(name, call):
    try:
        call()
        say(name, "done")
    except APIError as error:
        text = re.sub("[0-9a-f]{64}", "ID", error.explanation)
        say(name, f"{type(error).__name__} {error.status_code} {text}")


say("ping", client.ping())
say("api", client.version()["ApiVersion"])
say("os", client.info()["OSType"])
image = client.images.get("busybox")
say("tags", image.tags)
say("cmd", image.attrs["Config"]["Cmd"])

say("run", client.containers.run("busybox", ["echo", "hello"], remove=True))
both = client.containers.run("busybox", "sh -c 'echo out; echo err >&2'", remove=True, stdout=True, stderr=True)
say("run stderr", sorted(both.splitlines()))
try:
    client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True)
except ContainerError as error:
    say("exit", (error.exit_status, error.stderr))
try:
    client.images.get("nosuchimage:local")
except ImageNotFound as error:
    say("no image", error.explanation)

one = client.containers.run(
    "busybox",
    ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"],
    name="one",
    detach=True,
    labels={"of": "test"},
    environment={"A": "b c"},
    mem_limit="64m",
    working_dir="/tmp",
    hostname="box",
    tmpfs={"/scratch": "size=1m"},
)
say("stream", next(one.logs(stream=True, follow=True)))
one.reload()
say("status", one.status)
say("limits", one.attrs["HostConfig"]["Memory"])
say("exec", one.exec_run(["sh", "-c", "echo $A; hostname; pwd"]))
say("exec demux", one.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True))
say("exec user", one.exec_run(["id", "-u"], user="1000"))
say("exec socket", type(one.exec_run(["cat"], stdin=True, socket=True).output).__name__)
say("top", one.top()["Titles"])
say("stats", sorted(set(one.stats(stream=False)) & {"cpu_stats", "memory_stats", "pids_stats", "name"}))
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    member = tarfile.TarInfo("file")
    member.size = 5
    tar.addfile(member, io.BytesIO(b"bytes"))
say("put", one.put_archive("/tmp", archive.getvalue()))
bits, stat = one.get_archive("/tmp/file")
with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
    say("get", (tar.getnames(), tar.extractfile("file").read(), stat["size"]))
say("diff", sorted(change["Path"] for change in one.diff() if change["Path"] == "/tmp/file"))
one.pause()
one.reload()
say("paused", one.status)
one.unpause()
one.rename("two")
say("renamed", client.containers.get("two").id == one.id)
say("filter", [box.name for box in client.containers.list(filters={"label": "of=test", "status": "running"})])
say("filter none", client.containers.list(filters={"label": "of=other"}))
refused("bad filter", lambda: client.containers.list(filters={"nosuch": "x"}))
refused("taken", lambda: client.containers.create("busybox", name="two"))
refused("remove running", lambda: one.remove())
one.update(mem_limit="96m", memswap_limit="192m")
one.reload()
say("updated", one.attrs["HostConfig"]["Memory"])
one.stop(timeout=5)
say("stopped", one.wait()["StatusCode"])
one.start()
next(one.logs(stream=True, follow=True))
one.kill("KILL")
say("killed", one.wait()["StatusCode"])
made = one.commit("made", "v1", changes=["ENV X=y"])
say("committed", (made.tags, made.attrs["Config"]["Env"][-1]))
one.remove()
refused("gone", lambda: client.containers.get("two"))

attached = client.containers.create("busybox", ["cat"], stdin_open=True, name="cat")
socket = attached.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
attached.start()
raw = getattr(socket, "_sock", socket)
raw.sendall(b"typed")
frame = b""
while len(frame) < 13:
    frame += raw.recv(64)
say("attached", frame)
socket.close()
attached.remove(force=True)

serve = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www"
network = client.networks.create("net", labels={"of": "test"})
server = client.containers.run(
    "busybox", ["sh", "-c", serve], name="server", network="net", detach=True
)
fetch = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://server/ && exit; sleep 0.3; done; exit 1"
say("by name", client.containers.run("busybox", ["sh", "-c", fetch], network="net", remove=True))
network.reload()
say("members", [box.name for box in network.containers])
refused("in use", network.remove)
network.disconnect(server)
server.remove(force=True)
network.remove()
refused("no network", lambda: client.networks.get("net"))

volume = client.volumes.create("vol", labels={"of": "test"})
client.containers.run("busybox", ["sh", "-c", "echo kept > /v/file"], volumes={"vol": {"bind": "/v"}}, remove=True)
say("volume", client.containers.run("busybox", ["cat", "/v/file"], volumes=["vol:/v:ro"], remove=True))
say("volumes", [one.name for one in client.volumes.list(filters={"label": "of=test"})])
volume.remove()
try:
    client.volumes.get("vol")
except NotFound as error:
    say("no volume", error.explanation)

seen = []
events = client.events(decode=True, filters={"type": "container", "event": ["create", "start", "die", "destroy"]})
watcher = threading.Thread(target=lambda: seen.extend(event["Action"] for event, _ in zip(events, range(4))))
watcher.start()
client.containers.run("busybox", ["true"], remove=True)
watcher.join(20)
say("events", seen)

saved = b"".join(image.save(named=True))
say("saved", len(saved) > 100_000)
client.images.remove("made:v1")
say("loaded", [one.tags for one in client.images.load(saved)])
dockerfile = io.BytesIO(b"FROM busybox\nRUN echo built > /built\nLABEL a=b\nCMD [\"cat\", \"/built\"]\n")
built, log = client.images.build(fileobj=dockerfile, tag="built", rm=True)
say("built", (built.tags, built.labels))
say("runs", client.containers.run("built", remove=True))
try:
    client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"), rm=True)
except docker.errors.BuildError as error:
    say("broken build", "9" in str(error))
client.images.remove("built", force=True)
say("pruned", client.containers.prune(filters={"label": "of=nothing"}))
