#!/bin/busybox sh
# Init of a test's virtual machine: everything is read-only but what is mounted here. The kernel has mounted devtmpfs.
export PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount() { /bin/busybox mount "$@"; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
/bin/busybox mkdir -p /run/vm /run/bin /dev/pts /dev/shm /run/systemd/system
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# The applets come first in PATH, so that the scripts do not depend on what the host has.
/bin/busybox --install -s /run/bin
rm -f /run/bin/mount /run/bin/init /run/bin/reboot
mount -o bind @STAGE@ /run/vm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up

if [ ! -e /run/vm/systemd ]; then
  echo '+cpu +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
  exec sh /run/vm/session
fi

# The host's systemd manages the machine, with one service of its own: the script.
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /etc/systemd/system
cat >/run/systemd/system/vm.target <<'UNIT'
[Unit]
DefaultDependencies=no
Wants=vm.service
UNIT
cat >/run/systemd/system/vm.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
Environment=PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
ExecStart=/bin/busybox sh -c 'exec >/dev/console 2>&1 && . /run/vm/session'
UNIT
exec /lib/systemd/systemd --system --unit=vm.target --log-target=null --show-status=no
