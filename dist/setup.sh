# What the packages and install.sh do to a host, as root, beside placing files.
#   setup.sh enter PROGRAM   lets the group telegraf run it, with the capabilities that it may raise
#   setup.sh leave           takes away the links that lead to these files, and stops what was started of them
# enter may be run again at any time, as after the program was replaced by hand.
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
units=${here%/share/*}/lib/systemd/system

enter() {
  # Only Telegraf is to have what the plugin may see. The group is Telegraf's: it stays when the plugin goes.
  if ! getent group telegraf >/dev/null; then
    if command -v groupadd >/dev/null; then groupadd --system telegraf; else addgroup -S telegraf; fi
  fi
  # What an administrator has decreed by dpkg-statoverride(1) stands.
  if ! dpkg-statoverride --list "$1" >/dev/null 2>&1; then
    chown root:telegraf "$1"
    chmod 0750 "$1"
  fi
  # After chown, which clears them. Never with e: the kernel refuses to execute a file that has it where the bounding set
  # lacks one of them, as in a container. With p alone the plugin starts everywhere, and raises what it gets.
  if ! setcap cap_net_admin,cap_sys_ptrace=p "$1"; then
    echo "Warning: no file capabilities for $1: setcap is missing, or the file system has none." >&2
    echo "It runs without; telegraf-taskstats --check says what it then cannot do." >&2
  fi
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    systemctl try-restart 'telegraf-taskstats*.service' || true
  fi
  # Telegraf itself is left alone: its restart interrupts all that it gathers.
  if [ -e /etc/telegraf/telegraf.d/taskstats.conf ]; then
    echo "telegraf-taskstats: Telegraf runs this version after: systemctl restart telegraf"
  else
    echo "telegraf-taskstats: Telegraf starts it after:"
    echo "  ln -s $here/telegraf.d/taskstats.conf /etc/telegraf/telegraf.d/taskstats.conf"
    echo "  systemctl restart telegraf"
  fi
}

leave() {
  if [ -d /run/systemd/system ]; then
    systemctl stop 'telegraf-taskstats*' || true
  fi
  if [ -e /etc/telegraf/telegraf.d/taskstats.conf ]; then
    echo "telegraf-taskstats: Telegraf goes on with the program that is deleted until: systemctl restart telegraf"
  fi
  for link in /etc/telegraf/telegraf.d/* /etc/sysctl.d/* /etc/systemd/system/*.wants/*; do
    [ -L "$link" ] || continue
    case $(readlink -f "$link") in
      "$here"/* | "$units"/telegraf-taskstats*) rm "$link" ;;
    esac
  done
}

"$@"
