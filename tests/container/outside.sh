# The package on this host, as far as that is possible without changing it: in a mount namespace, where what is written below /usr,
# /etc and /var goes to a directory of its own, and where no systemd is to be seen.
#   unshare --mount --propagation private bash outside.sh DIRECTORY PACKAGE TELEGRAF SETUP COMMAND...
# SETUP is a script that runs when the package is installed. COMMAND runs as the user telegraf then.
set -eu
directory=$1 package=$2 telegraf=$3 setup=$4
shift 4
mount -t tmpfs -o mode=755 tmpfs "$directory"
for tree in usr etc var; do
  mkdir "$directory/$tree" "$directory/$tree.work"
  mount -t overlay -o "lowerdir=/$tree,upperdir=$directory/$tree,workdir=$directory/$tree.work" overlay "/$tree"
done
mount -t tmpfs -o mode=755 tmpfs /run
{
  dpkg-deb --extract "$package" "$directory/package"
  cp -a "$directory"/package/* / # not the root itself, which is the host's
  dpkg-deb --control "$package" "$directory/control"
  sh "$directory/control/postinst" configure
  install "$telegraf" /usr/bin/telegraf
  sh -e -c "$setup"
} >&2
cd /
exec setpriv --reuid telegraf --regid telegraf --init-groups --inh-caps=-all "$@"
