# Runs a unit on this host as systemd runs it, whether that is pid 1 here or not: by a manager for root, in a mount namespace.
#   unshare --mount --propagation private bash manager.sh UNITS PROGRAM UNIT
# UNITS is a directory of units, PROGRAM is put to /run, where no sandbox hides it. /run is new, and all gone afterwards. What the
# manager wants is there: the unified cgroups with one to be in, and what it thinks that the system's manager has made.
set -eu
units=$1 program=$2 unit=$3
cp -r "$units" /dev/shm/units-$$
cp "$program" /dev/shm/program-$$
mount -t tmpfs -o mode=755 tmpfs /run
mv /dev/shm/program-$$ /run/telegraf-taskstats
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/taskstats-manager-$$
export XDG_RUNTIME_DIR=/run/user HOME=/run/home
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir /run/home /run/user/systemd "$cgroup"
cd /run/systemd/inaccessible
touch reg && mkfifo fifo && mknod chr c 0 0 && mknod blk b 0 0
cd /
mv /dev/shm/units-$$ /run/user/systemd/user
cp /usr/lib/systemd/user/*.target /run/user/systemd/user # and nothing that they want
(
  echo "$BASHPID" >"$cgroup/cgroup.procs"
  export SYSTEMD_UNIT_PATH=/run/user/systemd/user
  exec setpriv --pdeathsig KILL /lib/systemd/systemd --user --unit=basic.target
) >/run/log 2>&1 &
manager=$!
until [ -S /run/user/systemd/private ] && systemctl --user is-active --quiet basic.target; do
  kill -0 "$manager" || { cat /run/log >&2; exit 1; }
  sleep 0.05
done
systemctl --user start "$unit" >&2 || true
echo 1 >"$cgroup/cgroup.kill"
wait "$manager" 2>/dev/null || true
find "$cgroup" -depth -type d -exec rmdir {} \;
cat /run/out
