# Sets up a host for the packages and install.sh, as root, after the files are placed.
#   setup.sh enter PROGRAM   lets the group telegraf run the program, and sets the capabilities that it may raise
#   setup.sh leave           removes the links to these files, and stops the units
# enter may be run again at any time, for instance after the program was replaced by hand.
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
units=${here%/share/*}/lib/systemd/system

enter() {
  # Only Telegraf may use the plugin's capabilities. The group is Telegraf's: it stays when the plugin is removed.
  if ! getent group telegraf >/dev/null; then
    if command -v groupadd >/dev/null; then groupadd --system telegraf; else addgroup -S telegraf; fi
  fi
  # Settings of an administrator by dpkg-statoverride(1) take precedence.
  if ! dpkg-statoverride --list "$1" >/dev/null 2>&1; then
    chown root:telegraf "$1"
    chmod 0750 "$1"
  fi
  # After chown, which clears capabilities. Never with e: the kernel refuses to execute a file with e where the bounding set
  # lacks one of the capabilities, as in a container. With p alone the plugin starts everywhere, and raises those that it gets.
  if ! setcap cap_net_admin,cap_sys_ptrace=p "$1"; then
    echo "Warning: no file capabilities for $1: setcap is missing, or the file system has none." >&2
    echo "It runs without; telegraf-taskstats --check says what then does not work." >&2
  fi
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    systemctl try-restart 'telegraf-taskstats*.service' || true
  fi
  # Telegraf itself is not restarted: a restart would interrupt all its other inputs.
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
