# What a test's script may use, the script, and the end of the machine.
cg=/sys/fs/cgroup

# A root file system with busybox and its applets.
rootfs() { # DIRECTORY
  mkdir -p "$1/bin" "$1/proc" "$1/dev" "$1/sys" "$1/tmp" "$1/etc"
  cp /bin/busybox "$1/bin/busybox"
  for applet in sh true sleep cat echo dd mknod head tail kill grep ls id wc od mv; do ln -s busybox "$1/bin/$applet"; done
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
