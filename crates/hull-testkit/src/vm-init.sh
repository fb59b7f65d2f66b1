#!/bin/busybox sh
# Init of a test's virtual machine. Everything is read-only but what is mounted here.
export PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount() { /bin/busybox mount "$@"; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev || mount -t tmpfs tmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run
/bin/busybox mkdir -p /run/vm /run/bin /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# The applets come first in PATH, so that the scripts do not depend on what the host has.
/bin/busybox --install -s /run/bin
rm -f /run/bin/mount /run/bin/init /run/bin/reboot
mount -o bind @STAGE@ /run/vm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
cg=/sys/fs/cgroup

# A root file system with busybox and its applets.
rootfs() { # DIRECTORY
  mkdir -p "$1/bin" "$1/proc" "$1/dev" "$1/sys" "$1/tmp" "$1/etc"
  cp /bin/busybox "$1/bin/busybox"
  for applet in sh true sleep cat echo dd mknod head tail kill grep ls id wc od; do ln -s busybox "$1/bin/$applet"; done
}

# Reports whether a shell expression is true; what it prints says why not.
check() { # NAME EXPRESSION
  if said=$(eval "$2" 2>&1); then
    echo "ok $1"
  else
    echo "FAILED $1: $2: $(echo $said | head -c 600)"
  fi
}

# Reports whether text is as wanted.
same() { # NAME WANTED GOT
  if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: wanted '$2', got '$3'"; fi
}

# Waits up to ten seconds for an expression to be true.
await() { # EXPRESSION
  for _ in $(seq 100); do
    eval "$1" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  return 1
}

(. /run/vm/script)
sync
poweroff -f
