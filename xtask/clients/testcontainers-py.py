"""Testcontainers for Python: containers that tests start and wait for."""

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs


def say(name, value):
    print(f"{name}: {value}", flush=True)


with DockerContainer("busybox").with_command(["sh", "-c", "echo is up; sleep 100"]).with_env("A", "b") as box:
    wait_for_logs(box, "is up", timeout=30)
    say("waited", box.get_logs()[0])
    say("exec", box.exec(["sh", "-c", "echo $A"]))
    say("status", box.get_wrapped_container().status)
serve = "mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www"
fetch = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://server/ && exit; sleep 0.3; done; exit 1"
with Network() as network:
    server = DockerContainer("busybox").with_command(["sh", "-c", serve])
    with server.with_network(network).with_network_aliases("server").with_exposed_ports(80) as server:
        with DockerContainer("busybox").with_command(["sleep", "100"]).with_network(network) as client:
            say("by alias", client.exec(["sh", "-c", fetch]))
        say("published", int(server.get_exposed_port(80)) > 0)
